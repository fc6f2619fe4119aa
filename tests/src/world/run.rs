//! Running a command to its end, with a limit, and saying what it did when it fails.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// No command of a test runs longer; one that does is killed and the test fails.
const LIMIT: Duration = Duration::from_secs(240);

/// What a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard output, as bytes.
    pub bytes: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Outcome {
    /// Itself when the status is 0.
    ///
    /// # Errors
    /// Otherwise, with what it printed.
    pub fn success(self) -> Result<Self> {
        self.expect_status(0)
    }

    /// Itself when the status is this one.
    ///
    /// # Errors
    /// Otherwise, with what it printed.
    pub fn expect_status(self, status: i32) -> Result<Self> {
        ensure!(
            self.status == Some(status),
            "status {:?}, not {status}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }
}

/// Runs a command with the standard input it has been given.
///
/// # Errors
/// When it cannot be started, or does not end in time.
pub fn run(command: &mut Command) -> Result<Outcome> {
    finish(command, None)
}

/// Runs a command with these bytes on its standard input.
///
/// # Errors
/// When it cannot be started, or does not end in time.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Outcome> {
    command.stdin(Stdio::piped());
    finish(command, Some(input.to_vec()))
}

fn finish(command: &mut Command, input: Option<Vec<u8>>) -> Result<Outcome> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let writer = input.and_then(|input| {
        let mut stdin = child.stdin.take()?;
        // A command that reads less than it is given is not at fault: its status tells.
        Some(thread::spawn(move || drop(stdin.write_all(&input))))
    });
    let mut stdout = child.stdout.take().context("no stdout")?;
    let mut stderr = child.stderr.take().context("no stderr")?;
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("{shown} did not end within {} s", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    };
    if let Some(writer) = writer {
        writer.join().ok().context("the writer of standard input panicked")?;
    }
    let bytes = out.join().ok().context("the reader of standard output panicked")??;
    let errors = err.join().ok().context("the reader of standard error panicked")??;
    Ok(Outcome {
        status: status.code(),
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
        stderr: String::from_utf8_lossy(&errors).into_owned(),
    })
}
