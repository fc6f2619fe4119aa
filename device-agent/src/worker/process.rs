//! A program on three pipes: what `exec` without a terminal runs.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::account::Account;
use super::gate::Admitted;
use super::sys;
use super::wire::{enlarge_pipe, set_nonblocking};

/// This very program, whatever has become of its file.
pub(super) const OURSELVES: &str = "/proc/self/exe";

/// What to start.
pub(super) enum Program<'a> {
    /// A login shell.
    Shell,
    /// The shell with `-c`.
    Command(&'a OsString),
    /// Our own SFTP server. `ledger`: it tells of files on its standard error.
    Sftp { ledger: bool },
}

impl Program<'_> {
    /// The exec helper's arguments (see `exec_helper`).
    pub(super) fn helper_args(&self, account: &Account, options: &[&str]) -> Vec<OsString> {
        let name = account.shell.file_name().unwrap_or(account.shell.as_os_str());
        let mut args: Vec<OsString> = vec!["exec-helper".into(), "--cwd".into()];
        args.push(account.home.clone().into());
        args.extend(options.iter().map(OsString::from));
        match self {
            Self::Shell => {
                let mut login = OsString::from("-");
                login.push(name);
                args.extend(["--argv0".into(), login, "--".into()]);
                args.push(account.shell.clone().into());
            }
            Self::Command(command) => {
                args.extend(["--argv0".into(), name.to_owned(), "--".into()]);
                args.extend([account.shell.clone().into(), "-c".into(), (*command).clone()]);
            }
            Self::Sftp { ledger } => {
                args.push("--sftp".into());
                if *ledger {
                    args.push("--ledger".into());
                }
            }
        }
        args
    }
}

/// A running program and our ends of its pipes.
pub(super) struct Piped {
    pub(super) child: Child,
    pub(super) stdin: AsyncFd<OwnedFd>,
    pub(super) stdout: AsyncFd<OwnedFd>,
    pub(super) stderr: AsyncFd<OwnedFd>,
    _leave: std::marker::PhantomData<Admitted>,
}

/// Starts `program` as the login user (which we are), in a session of its own
/// so that a signal from the client reaches all of it.
///
/// It is not killed when dropped: like sshd's, a program without a terminal
/// outlives its channel and notices by its closed pipes.
pub(super) fn start(
    _leave: &Admitted,
    program: &Program<'_>,
    account: &Account,
    env: Vec<(OsString, OsString)>,
) -> io::Result<Piped> {
    let (their_in, stdin) = pipe()?;
    let (stdout, their_out) = pipe()?;
    let (stderr, their_err) = pipe()?;
    let mut command = Command::new(OURSELVES);
    command
        .arg0("belay-agent")
        .args(program.helper_args(account, &["--new-session"]))
        .env_clear()
        .envs(env)
        .current_dir(Path::new("/"))
        .stdin(Stdio::from(their_in))
        .stdout(Stdio::from(their_out))
        .stderr(Stdio::from(their_err));
    let child = command.spawn()?;
    // The command holds their ends open.
    drop(command);
    for fd in [&stdin, &stdout, &stderr] {
        set_nonblocking(fd)?;
    }
    Ok(Piped {
        child,
        stdin: sys::watch(stdin, Interest::WRITABLE)?,
        stdout: sys::watch(stdout, Interest::READABLE)?,
        stderr: sys::watch(stderr, Interest::READABLE)?,
        _leave: std::marker::PhantomData,
    })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    enlarge_pipe(&read);
    Ok((read, write))
}

/// What a program wrote, into `buffer`; `None` at the end (a terminal ends with `EIO`).
/// Cancel-safe.
pub(super) async fn read_some(source: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<usize> {
    loop {
        let mut guard = source.readable().await.ok()?;
        match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
            Ok(Ok(0)) => return None,
            Ok(Ok(read)) => return Some(read),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => {
                if error.raw_os_error() != Some(libc::EIO) {
                    tracing::debug!(%error, "reading a program's output failed");
                }
                return None;
            }
            Err(_would_block) => {}
        }
    }
}

/// How a program ended, as SSH tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    Signal { number: i32, core: bool },
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, Some(number)) => Self::Signal { number, core: status.core_dumped() },
            // Neither stopped nor continued children are reported to us.
            (None, None) => Self::Exit(255),
        }
    }
}
