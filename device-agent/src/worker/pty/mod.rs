//! A program on a pseudo-terminal.
//!
//! The PTY library opens the pair and starts our exec helper on its slave,
//! which makes it lead a session with this controlling terminal. The terminal
//! belongs to the login user because the login user opened it. The library's
//! writer is never taken (dropping it types into the shell): the master is
//! duplicated and driven non-blocking by us. Closing it hangs the terminal up,
//! and the kernel sends SIGHUP to whoever is on it.

mod modes;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;

use portable_pty::{CommandBuilder, PtyPair, PtySize, native_pty_system};
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::account::Account;
use super::gate::Admitted;
use super::limits::WINDOW_CELLS_MAX;
use super::process::{Ended, OURSELVES, Program};
use super::sys;
use super::wire::set_nonblocking;

/// What `pty-req` asked for.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) size: Winsize,
    /// RFC 4254, section 8: opcode and value.
    pub(super) modes: Vec<(u8, u32)>,
}

/// A size the kernel and programs survive.
pub(super) fn window(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let side = |cells: u32| u16::try_from(cells.min(WINDOW_CELLS_MAX)).unwrap_or(u16::MAX);
    let pixels = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    Winsize {
        ws_col: side(columns),
        ws_row: side(rows),
        ws_xpixel: pixels(width),
        ws_ypixel: pixels(height),
    }
}

/// An open pair nothing runs on yet.
pub(super) struct Opened {
    pair: PtyPair,
    master: OwnedFd,
    /// Path of the slave.
    pub(super) tty: String,
}

pub(super) fn open(_leave: &Admitted, terminal: &Terminal) -> io::Result<Opened> {
    let size = PtySize {
        rows: terminal.size.ws_row,
        cols: terminal.size.ws_col,
        pixel_width: terminal.size.ws_xpixel,
        pixel_height: terminal.size.ws_ypixel,
    };
    let pair = native_pty_system().openpty(size).map_err(io::Error::other)?;
    let number = pair
        .master
        .as_raw_fd()
        .ok_or_else(|| io::Error::other("the terminal has no descriptor"))?;
    let master = sys::duplicate(number)?;
    let tty = pair.master.tty_name().ok_or_else(|| io::Error::other("the terminal has no name"))?;
    modes::apply(&master, &terminal.modes)?;
    set_nonblocking(&master)?;
    Ok(Opened { pair, master, tty: tty.display().to_string() })
}

/// A program on its terminal.
pub(super) struct Running {
    pub(super) master: AsyncFd<OwnedFd>,
    pub(super) tty: String,
    pub(super) pid: u32,
    pub(super) leader: Leader,
}

/// The program that leads the terminal's session.
pub(super) struct Leader {
    child: std::process::Child,
    deaths: Signal,
}

impl Opened {
    /// Starts `program` as the leader of a new session on this terminal.
    pub(super) fn start(
        self,
        program: &Program<'_>,
        account: &Account,
        env: Vec<(OsString, OsString)>,
    ) -> io::Result<Running> {
        // Before the child exists, or its death could be missed.
        let deaths = signal(SignalKind::child())?;
        let mut command = CommandBuilder::new(OURSELVES);
        let options: &[&str] = match program {
            Program::Shell => &["--motd"],
            Program::Command(_) | Program::Sftp { .. } => &[],
        };
        command.args(program.helper_args(account, options));
        command.env_clear();
        for (name, value) in env {
            command.env(name, value);
        }
        command.cwd("/");
        let child: Box<dyn portable_pty::Child> =
            self.pair.slave.spawn_command(command).map_err(io::Error::other)?;
        let child = child
            .downcast::<std::process::Child>()
            .map_err(|_| io::Error::other("the terminal's child is of an unknown kind"))?;
        Ok(Running {
            master: sys::watch(self.master, Interest::READABLE | Interest::WRITABLE)?,
            tty: self.tty,
            pid: child.id(),
            leader: Leader { child: *child, deaths },
        })
    }
}

impl Opened {
    /// Joins this terminal to another session's, over the socket to that one's worker.
    pub(super) fn start_joining(self, host: OwnedFd) -> io::Result<Running> {
        // Before the child exists, or its death could be missed.
        let deaths = signal(SignalKind::child())?;
        // As the login user, who owns it: our own copies end with the library's.
        let terminal = std::fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(&self.tty)?;
        let mut command = std::process::Command::new(OURSELVES);
        let child = command
            .arg0("belay-agent")
            .arg("join-helper")
            .env_clear()
            .current_dir("/")
            .stdin(host)
            .stdout(terminal.try_clone()?)
            .stderr(terminal)
            .spawn()?;
        // What it holds of theirs would hide their end.
        drop(command);
        Ok(Running {
            master: sys::watch(self.master, Interest::READABLE | Interest::WRITABLE)?,
            tty: self.tty,
            pid: child.id(),
            leader: Leader { child, deaths },
        })
    }
}

impl Leader {
    /// Waits for the program's end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.into());
            }
            self.deaths.recv().await;
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // A leader that survives its terminal is reaped by whoever inherits it.
        if let Err(error) = self.child.try_wait() {
            tracing::debug!(%error, "a terminal's program could not be waited for");
        }
    }
}
