//! One byte there and back in a session that is open: what typing feels like.

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::stats::Samples;
use super::way::{Running, Terminal};
use crate::lab::Netns;

/// Bytes sent one after the other before the next way has its turn.
const BLOCK: usize = 100;

/// What the far side says when it is ready to echo.
const READY: &[u8] = b"READY.";

/// A session that is open and sends back what it is given.
#[derive(Debug)]
pub struct Session {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _running: Running,
}

/// Measures every way in turns over sessions that stay open meanwhile; a tenth more as warm-up.
///
/// # Errors
/// When a session does not open or echoes something else.
pub fn measure(
    laptop: &Netns,
    ways: &[&Way],
    terminal: Terminal,
    bytes: usize,
) -> Result<Vec<Samples>> {
    let mut sessions = ways
        .iter()
        .map(|way| Session::open(laptop, way, terminal).with_context(|| way.name))
        .collect::<Result<Vec<_>>>()?;
    for (session, way) in sessions.iter_mut().zip(ways) {
        session.samples(bytes / 10).with_context(|| way.name)?;
    }
    let mut all = vec![Samples::default(); ways.len()];
    let mut done = 0;
    while done < bytes {
        let block = BLOCK.min(bytes - done);
        for ((session, samples), way) in sessions.iter_mut().zip(&mut all).zip(ways) {
            samples.append(session.samples(block).with_context(|| way.name)?);
        }
        done += block;
    }
    Ok(all)
}

/// What runs on the device: it says that it is there, then gives back what comes.
pub(super) const fn remote(terminal: Terminal) -> &'static str {
    match terminal {
        Terminal::None => "printf READY.; exec cat",
        // Raw and without the terminal's own echo: what comes back is cat's.
        Terminal::There => "stty raw -echo; printf READY.; exec cat",
    }
}

impl Session {
    /// Opens one and waits until it is there.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(laptop: &Netns, way: &Way, terminal: Terminal) -> Result<Self> {
        let remote = remote(terminal);
        let mut command = way.command(terminal, remote);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = laptop.run(|| command.spawn())?.context("starting it")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut session = Self { stdin, stdout, _running: Running(child) };
        let mut said = Vec::new();
        while !said.ends_with(READY) {
            let mut byte = [0];
            session.stdout.read_exact(&mut byte).context("the session did not open")?;
            said.extend(byte);
        }
        Ok(session)
    }

    /// Sends bytes one after the other; how long each took to come back.
    ///
    /// # Errors
    /// When the session ends or echoes something else.
    pub fn samples(&mut self, count: usize) -> Result<Samples> {
        (0..count)
            .map(|n| {
                let byte = [b'a' + u8::try_from(n % 26)?];
                let mut back = [0];
                let began = Instant::now();
                self.stdin.write_all(&byte).context("the session ended")?;
                self.stdout.read_exact(&mut back).context("the session ended")?;
                let took = began.elapsed();
                ensure!(back == byte, "the session echoed something else");
                Ok(took)
            })
            .collect()
    }
}
