//! A long-running program inside the lab.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::loud;

/// How often waiting looks again. Short against what is waited for (process
/// starts, log lines), long against what a look costs.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How much of the log is shown when a test fails.
const TAIL_LINES: usize = 40;

/// A program that runs until it ends or this value is dropped. Its standard
/// output and error both go to [`Proc::log_path`].
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Proc {
    pub(super) fn start(
        name: &str,
        mut command: Command,
        stdin: Stdio,
        log: PathBuf,
    ) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let again = file.try_clone().context("duplicating the log's handle")?;
        let child = command
            .stdin(stdin)
            .stdout(file)
            .stderr(again)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id of the program itself.
    #[must_use]
    pub fn pid(&self) -> Pid {
        // Linux never gives an id above 2^22 (PID_MAX_LIMIT).
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until `text` stands in the log.
    ///
    /// # Errors
    /// When it does not within `limit`, or the program ends without writing it.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.try_wait()?;
            if self.log().contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) without {text:?}:\n{}", self.name, self.tail());
            }
            if Instant::now() > deadline {
                bail!("{} did not write {text:?} in {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // try_wait first: the id of a process that was waited for may be another's.
        if let Some(status) = self.try_wait()? {
            bail!("{} has ended: {status}", self.name);
        }
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Its resident memory in bytes (`VmRSS`).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse::<u64>().ok())
            .with_context(|| format!("{} has no resident memory: it has ended", self.name))?;
        Ok(kib * 1024)
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            loud(&format!("--- end of the log of {}:\n{}", self.name, self.tail()));
        }
    }
}
