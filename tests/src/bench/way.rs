//! One way from the laptop into the device.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::lab::Netns;

/// A program and what stands before the remote command.
#[derive(Debug, Clone)]
pub struct Way {
    /// As the table calls it.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Arguments for a session without a terminal.
    pub plain: Vec<String>,
    /// Arguments for one with a terminal.
    pub terminal: Vec<String>,
    /// The client's own environment.
    pub environment: Vec<(String, PathBuf)>,
}

/// Whether a session has a terminal on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// Pipes alone.
    None,
    /// A pseudo-terminal over there, pipes here.
    There,
}

impl Way {
    /// The command that runs `remote`, a line for the account's shell.
    #[must_use]
    pub fn command(&self, terminal: Terminal, remote: &str) -> Command {
        let before = match terminal {
            Terminal::None => &self.plain,
            Terminal::There => &self.terminal,
        };
        let mut command = Command::new(&self.program);
        command.args(before).arg(remote);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// OpenSSH's own way of several sessions in one connection: the first makes it, at this socket.
    #[must_use]
    pub fn shared(&self, socket: &Path) -> Self {
        let path = format!("ControlPath={}", socket.display());
        let with = |arguments: &[String]| {
            let shared = ["-o", "ControlMaster=auto", "-o", &path].map(ToOwned::to_owned);
            shared.into_iter().chain(arguments.iter().cloned()).collect()
        };
        Self { plain: with(&self.plain), terminal: with(&self.terminal), ..self.clone() }
    }

    /// Runs `remote` to its end without input; what it said.
    ///
    /// # Errors
    /// When it does not end with status 0.
    pub fn say(&self, laptop: &Netns, remote: &str) -> Result<String> {
        let mut command = self.command(Terminal::None, remote);
        command.stdin(Stdio::null());
        let output = laptop.run(|| command.output())?;
        self.checked(output)
    }

    /// The standard output of a command that ended well.
    ///
    /// # Errors
    /// When it did not.
    pub fn checked(&self, output: io::Result<Output>) -> Result<String> {
        let output = output.with_context(|| format!("starting {}", self.name))?;
        ensure!(
            output.status.success(),
            "{}: {}: {}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("output that is not text")
    }
}

/// A client that is killed when it goes out of scope.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
