//! Bytes that keep coming for as long as somebody wants them, counted where they arrive.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::transfer::Towards;
use super::way::{Running, Terminal};
use crate::lab::Netns;

/// Random bytes that are sent again and again: no compression on the way would gain anything.
const BLOCK: usize = 1 << 20;

/// How long the first byte may take, and the last after the flow was stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(5);

/// One endless transfer. Dropped without [`Flow::stop`] its client is killed.
#[derive(Debug)]
pub struct Flow {
    client: Running,
    going: Arc<AtomicBool>,
    arrived: Arrived,
    worker: Option<JoinHandle<()>>,
    // Gone with its directory: the far side stops writing by that.
    block: tempfile::TempDir,
}

#[derive(Debug)]
enum Arrived {
    /// Read here.
    Here(Arc<AtomicU64>),
    /// Written by the far side, to a file in memory.
    There(PathBuf),
}

impl Flow {
    /// Starts one, and waits for its first byte.
    ///
    /// # Errors
    /// When nothing arrives.
    pub fn start(laptop: &Netns, way: &Way, towards: Towards) -> Result<Self> {
        let dir = tempfile::tempdir_in("/dev/shm").context("no memory file system")?;
        let block = dir.path().join("block");
        let mut bytes = vec![0; BLOCK];
        let mut random = File::open("/dev/urandom").context("no random numbers")?;
        random.read_exact(&mut bytes).context("no random numbers")?;
        std::fs::write(&block, &bytes).context("making what is sent")?;
        let sink = dir.path().join("arrived");
        let remote = match towards {
            Towards::Down => format!("while cat {} 2>/dev/null; do :; done", block.display()),
            Towards::Up => format!("cat > {}", sink.display()),
        };
        let mut command = way.command(Terminal::None, &remote);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = laptop.run(|| command.spawn())?.context("starting it")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut stdout = child.stdout.take().context("no standard output")?;
        let going = Arc::new(AtomicBool::new(true));
        let (arrived, worker) = match towards {
            Towards::Up => {
                let going = Arc::clone(&going);
                (Arrived::There(sink), thread::spawn(move || feed(stdin, &bytes, &going)))
            }
            Towards::Down => {
                let count = Arc::new(AtomicU64::new(0));
                let counted = Arc::clone(&count);
                let worker = thread::spawn(move || {
                    // Held, so that the far side's input does not end.
                    let _stdin = stdin;
                    let mut piece = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = stdout.read(&mut piece) {
                        counted.fetch_add(read as u64, Ordering::Relaxed);
                    }
                });
                (Arrived::Here(count), worker)
            }
        };
        let client = Running(child);
        let flow = Self { client, going, arrived, worker: Some(worker), block: dir };
        let deadline = Instant::now() + PATIENCE;
        while flow.arrived() == 0 {
            ensure!(Instant::now() < deadline, "{}: nothing arrives", way.name);
            thread::sleep(LOOK);
        }
        Ok(flow)
    }

    /// Bytes that have arrived.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        match &self.arrived {
            Arrived::Here(count) => count.load(Ordering::Relaxed),
            // Not there before its first byte.
            Arrived::There(file) => std::fs::metadata(file).map_or(0, |file| file.len()),
        }
    }

    /// Megabytes a second that arrive over this much time, from now on.
    #[must_use]
    pub fn speed(&self, span: Duration) -> f64 {
        let (began, before) = (Instant::now(), self.arrived());
        thread::sleep(span);
        (self.arrived() - before) as f64 / 1e6 / began.elapsed().as_secs_f64()
    }

    /// Stops it, and waits until its last byte has arrived and its client has ended, as it would
    /// after any transfer.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.going.store(false, Ordering::Relaxed);
        if let Arrived::Here(_) = self.arrived {
            std::fs::remove_file(self.block.path().join("block")).context("stopping a transfer")?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.client.0.try_wait().context("waiting for a transfer")?.is_none() {
            ensure!(Instant::now() < deadline, "a transfer does not end");
            thread::sleep(LOOK);
        }
        let worker = self.worker.take().context("stopped twice")?;
        worker.join().ok().context("a transfer's thread panicked")
    }
}

/// Gives the client bytes until nobody wants more, or it takes no more.
fn feed(mut stdin: ChildStdin, bytes: &[u8], going: &AtomicBool) {
    while going.load(Ordering::Relaxed) {
        for piece in bytes.chunks(64 << 10) {
            if !going.load(Ordering::Relaxed) || stdin.write_all(piece).is_err() {
                return;
            }
        }
    }
}
