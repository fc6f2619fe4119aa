//! Ctrl-C in a flood of output: how long what was written before it keeps coming.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::way::{Running, Terminal};
use crate::lab::Netns;

/// A program that writes as fast as it can, and what its shell says once it was interrupted.
const REMOTE: &str =
    "trap 'echo STOPPED.; exit 0' INT; yes 'a line of a log that nobody wanted to see in full'";

const STOPPED: &[u8] = b"STOPPED.";

/// Lets it flood for `settle`, types Ctrl-C, and reads to the end of what comes.
///
/// # Errors
/// When the session does not run, or ends otherwise.
pub fn measure(laptop: &Netns, way: &Way, settle: Duration) -> Result<Duration> {
    let mut command = way.command(Terminal::There, REMOTE);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = laptop.run(|| command.spawn())?.context("starting it")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let _running = Running(child);
    let (mut piece, mut tail) = (vec![0; 64 << 10], Vec::new());
    let (mut first, mut typed) = (None, None);
    loop {
        let read = stdout.read(&mut piece).context("the session broke")?;
        ensure!(read > 0, "the session ended and nobody said why");
        let began = *first.get_or_insert_with(Instant::now);
        if typed.is_none() && began.elapsed() >= settle {
            stdin.write_all(b"\x03").context("the session takes no key")?;
            typed = Some(Instant::now());
        }
        tail.extend_from_slice(piece.get(..read).unwrap_or_default());
        if let Some(at) = typed
            && tail.windows(STOPPED.len()).any(|window| window == STOPPED)
        {
            return Ok(at.elapsed());
        }
        tail.drain(..tail.len().saturating_sub(STOPPED.len()));
    }
}
