//! A counted stream: numbered lines go out, and must come back one by one, in order.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::world::{PATIENCE, World};

/// As fast as somebody types who types very fast.
const BETWEEN: Duration = Duration::from_millis(20);

/// Writers, readers, and what they have seen.
pub(super) struct Counted {
    name: &'static str,
    seen: Arc<Seen>,
    writer: Option<JoinHandle<Result<u64>>>,
    reader: Option<JoinHandle<Result<u64>>>,
    child: Option<Child>,
    socket: Option<TcpStream>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    typed: AtomicU64,
    echoed: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Counted {
    /// Over a program's standard input and output. It says `ready` first.
    pub(super) fn program(name: &'static str, mut command: Command, errors: File) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let to = child.stdin.take().context("no stdin")?;
        let mut from = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut ready = String::new();
        from.read_line(&mut ready)?;
        ensure!(ready.trim() == "ready", "{name} began with {ready:?}");
        let mut counted = Self::over(name, to, from);
        counted.child = Some(child);
        Ok(counted)
    }

    /// Over a port on the laptop behind which everything comes back.
    pub(super) fn port(name: &'static str, world: &World, port: u16) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let socket = loop {
            match world.lab.ns("laptop").run(|| TcpStream::connect(("127.0.0.1", port)))? {
                Ok(socket) => break socket,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("{name}: nobody listens"));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        let (to, from) = (socket.try_clone()?, BufReader::new(socket.try_clone()?));
        let mut counted = Self::over(name, to, from);
        counted.socket = Some(socket);
        Ok(counted)
    }

    fn over(
        name: &'static str,
        to: impl Write + Send + 'static,
        from: BufReader<impl Read + Send + 'static>,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let writer = thread::spawn({
            let seen = Arc::clone(&seen);
            move || write(to, &seen)
        });
        let reader = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let read = read(from, &seen);
                if let Err(error) = &read {
                    *seen.wrong.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(format!("{error:#}"));
                }
                read
            }
        });
        let (writer, reader) = (Some(writer), Some(reader));
        Self { name, seen, writer, reader, child: None, socket: None }
    }

    pub(super) fn typed(&self) -> u64 {
        self.seen.typed.load(Ordering::Relaxed)
    }

    pub(super) fn echoed(&self) -> u64 {
        self.seen.echoed.load(Ordering::Relaxed)
    }

    /// Waits until the line of this number has come back.
    pub(super) fn wait_for(&self, number: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.echoed() < number {
            if let Some(wrong) = &*self.seen.wrong.lock().unwrap_or_else(PoisonError::into_inner) {
                bail!("{}: {wrong}", self.name);
            }
            ensure!(
                Instant::now() < deadline,
                "{}: {} of {number} lines came back",
                self.name,
                self.echoed()
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Types no more, and checks that all came back. How many lines that were.
    pub(super) fn finish(&mut self) -> Result<u64> {
        self.seen.stop.store(true, Ordering::Relaxed);
        let typed = joined(self.writer.take())?;
        self.wait_for(typed)?;
        // Nothing may come after the last line.
        if let Some(child) = &mut self.child {
            child.kill()?;
            child.wait()?;
        }
        if let Some(socket) = &self.socket {
            socket.shutdown(std::net::Shutdown::Both)?;
        }
        let echoed = joined(self.reader.take())?;
        ensure!(typed == echoed, "{typed} lines went out, {echoed} came back");
        Ok(typed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        // Whatever has ended already needs no ending.
        if let Some(child) = &mut self.child
            && child.kill().is_ok()
            && child.wait().is_err()
        {
            crate::lab::loud("a counted program cannot be waited for");
        }
    }
}

fn joined(thread: Option<JoinHandle<Result<u64>>>) -> Result<u64> {
    thread.context("finished twice")?.join().ok().context("a thread panicked")?
}

fn write(mut to: impl Write, seen: &Seen) -> Result<u64> {
    let mut number = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        number += 1;
        to.write_all(format!("{number}\n").as_bytes()).context("typing")?;
        seen.typed.store(number, Ordering::Relaxed);
        thread::sleep(BETWEEN);
    }
    Ok(number)
}

fn read(from: BufReader<impl Read>, seen: &Seen) -> Result<u64> {
    let mut expected = 0;
    for line in from.lines() {
        let line = match line {
            Ok(line) => line,
            // Our own end of it.
            Err(_) if seen.stop.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error).context("reading"),
        };
        expected += 1;
        ensure!(line.trim() == expected.to_string(), "{line:?} came instead of {expected}");
        seen.echoed.store(expected, Ordering::Relaxed);
    }
    ensure!(seen.stop.load(Ordering::Relaxed), "it ended after {expected} lines");
    Ok(expected)
}
