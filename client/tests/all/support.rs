//! Running the binary in a home of its own, bounded in time.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The one line on standard error.
    pub(crate) fn complaint(&self) -> &str {
        assert_eq!(self.err.lines().count(), 1, "not one line: {:?}", self.err);
        self.err.trim_end()
    }
}

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn user_home(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    pub(crate) fn belay(&self, args: &[&str]) -> Ran {
        self.belay_with(args, b"")
    }

    pub(crate) fn belay_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        std::fs::create_dir_all(self.user_home()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_belay"))
            .args(args)
            .env_clear()
            .env("HOME", self.user_home())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that never reads closes the pipe; that is its right.
        child.stdin.take().unwrap().write_all(stdin).ok();
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{args:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ran {
            status: status.code().unwrap_or(-1),
            out: out.join().unwrap(),
            err: err.join().unwrap(),
        }
    }
}
