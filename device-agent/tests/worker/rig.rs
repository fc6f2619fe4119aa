//! Keys, certificates and an ssh configuration for one test, in a directory of
//! its own; and programs that cannot run for ever.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_belay-agent");

/// No single command of these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether OpenSSH's client is here; without it most tests have no peer.
pub(crate) fn have_ssh() -> bool {
    let here = have("ssh") && have("ssh-keygen");
    if !here {
        eprintln!("SKIPPED: this test needs OpenSSH's ssh and ssh-keygen");
    }
    here
}

pub(crate) fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "{:?}: {}", self.status, self.stderr);
        self
    }
}

/// Runs to the end, or kills it after [`PATIENCE`] and fails.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: Vec<u8>) -> Output {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    finish(child, input, &format!("{command:?}"))
}

#[track_caller]
fn finish(mut child: Child, input: Vec<u8>, what: &str) -> Output {
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    // A program that ends without reading is no fault.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("no end after {PATIENCE:?}: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    feeder.join().unwrap();
    Output { status, stdout: out.join().unwrap().unwrap(), stderr: err.join().unwrap().unwrap() }
}

/// A program that runs beside the test and ends with it, whatever happens.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn stop(self) {}
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A device, an authority and an engineer with a certificate.
pub(crate) struct Rig {
    dir: TempDir,
    login: String,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let us = run(Command::new("id").arg("-un"), Vec::new()).ok().text();
        let rig = Self { dir, login: us };
        for name in ["host", "ca", "other-ca", "key", "plain"] {
            rig.keygen(&["-q", "-t", "ed25519", "-N", "", "-f", name]);
        }
        rig.certify("ca", &["-n", "ada", "-V", "-5m:+10m"]);
        std::fs::copy(rig.path("plain.pub"), rig.path("authorized")).unwrap();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn login(&self) -> &str {
        &self.login
    }

    pub(crate) fn keygen(&self, args: &[&str]) {
        run(Command::new("ssh-keygen").current_dir(self.dir.path()).args(args), Vec::new()).ok();
    }

    /// Signs the engineer's key anew.
    pub(crate) fn certify(&self, authority: &str, options: &[&str]) {
        let mut args = vec!["-q", "-s", authority, "-I", "ada@laptop"];
        args.extend(options);
        args.push("key.pub");
        self.keygen(&args);
    }

    /// The worker's command line, with more options.
    fn worker(&self, options: &[&str]) -> String {
        let mut line = format!(
            "{AGENT} worker --stdio --user ada --host-key {} --user-ca {} --authorized-keys {}",
            self.path("host").display(),
            self.path("ca.pub").display(),
            self.path("authorized").display(),
        );
        for option in options {
            write!(line, " {option}").unwrap();
        }
        // Its log is not the client's standard error.
        write!(line, " 2>>{}", self.path("log").display()).unwrap();
        line
    }

    /// ssh, scp or sftp, with the certificate, to a worker with these options.
    pub(crate) fn client(&self, program: &str, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.config("key", options));
        command.env_remove("SSH_AUTH_SOCK");
        command
    }

    /// A configuration with host `x`; returns its file.
    pub(crate) fn config(&self, key: &str, options: &[&str]) -> PathBuf {
        let file = self.path(&format!("config-{key}"));
        let text = format!(
            "Host *\n ProxyCommand {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n \
             IdentityAgent none\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n \
             GlobalKnownHostsFile /dev/null\n LogLevel ERROR\n",
            self.worker(options),
            self.login,
            self.path(key).display(),
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    /// `ssh x COMMAND`.
    #[track_caller]
    pub(crate) fn ssh(&self, command: &str) -> Output {
        self.ssh_with(&[], &[], command)
    }

    #[track_caller]
    pub(crate) fn ssh_with(&self, worker: &[&str], client: &[&str], command: &str) -> Output {
        run(self.client("ssh", worker).args(client).arg("x").arg(command), Vec::new())
    }

    /// A connection others share; ready when this returns.
    pub(crate) fn master(&self) -> (Background, Shared) {
        let control = self.path("control");
        let mut ssh = self.client("ssh", &[]);
        let master = Background::start(ssh.args(["-M", "-N", "-S"]).arg(&control).arg("x"));
        eventually("the master listens", || control.exists());
        (master, Shared(control))
    }
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that no two places of look alike.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// The way through a shared connection.
pub(crate) struct Shared(PathBuf);

impl Shared {
    pub(crate) fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-S").arg(&self.0).args(["-oProxyCommand=false", "x", command]);
        ssh
    }
}
