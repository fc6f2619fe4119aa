//! A herd in a process of its own, driven from here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::console::Request;
use super::{Ramp, RampReport, Standing};

/// The `fleet` program beside the present one.
///
/// # Errors
/// When it was not built.
pub fn program() -> Result<PathBuf> {
    crate::program("fleet")
}

/// A running `fleet run`. Dropping it ends the process, and with it every line, silently.
#[derive(Debug)]
pub struct Remote {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts a herd with the credentials in `file` towards `relay` (`ADDRESS:PORT`). `enter`
    /// wraps the program, for example with [`crate::lab::Netns::bare`].
    ///
    /// # Errors
    /// When the program is not there or does not start.
    pub fn start(enter: impl FnOnce(&Path) -> Command, file: &Path, relay: &str) -> Result<Self> {
        let mut child = enter(&program()?)
            .arg("run")
            .args(["--relay", relay])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the fleet")?;
        let requests = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, requests, answers })
    }

    /// Connects more devices; see [`super::Herd::connect`].
    ///
    /// # Errors
    /// When the fleet ended.
    pub fn connect(&mut self, ramp: Ramp) -> Result<RampReport> {
        self.ask(Request::Connect(ramp))
    }

    /// See [`super::Herd::vanish`].
    ///
    /// # Errors
    /// When the fleet ended.
    pub fn vanish(&mut self, count: usize) -> Result<Standing> {
        self.ask(Request::Vanish(count))
    }

    /// See [`super::Herd::faithful`].
    ///
    /// # Errors
    /// When the fleet ended.
    pub fn faithful(&mut self, faithful: bool) -> Result<Standing> {
        self.ask(Request::Faithful(faithful))
    }

    /// See [`super::Herd::standing`].
    ///
    /// # Errors
    /// When the fleet ended.
    pub fn standing(&mut self) -> Result<Standing> {
        self.ask(Request::Standing)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        // Linux never gives an id above 2^22 (PID_MAX_LIMIT).
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T> {
        let mut line = serde_json::to_string(&request)?;
        line.push('\n');
        self.requests.write_all(line.as_bytes()).context("the fleet ended")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer).context("reading the fleet's answer")? == 0 {
            bail!("the fleet ended without an answer; what it said is above");
        }
        serde_json::from_str(&answer).context("the fleet's answer")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
