//! What runs on a guest's terminal: `belay-agent join-helper`.
//!
//! Started by the guest's worker in the place of a shell, as the login user: standard input is the
//! socket to the host's worker ([`super::joining`]), standard output the guest's terminal, which is
//! made raw, so that every key and every byte passes as it is. It ends with the host's terminal, and
//! says why; its exit status is 0 then, and 1 where the host's worker went without a word.
//!
//! What it is not: it enforces nothing. That nothing is typed of what one who looks on types, and that
//! they are told, is the host's worker's doing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;

use bytes::{Buf as _, Bytes};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::answers::Answers;
use super::joining::{Frame, Frames};
use super::limits::{COPY_CHUNK, FAREWELL};
use super::process::read_some;
use super::sys;
use super::wire::set_nonblocking;

/// Joins the terminal and the host until one of them ends.
pub fn join_helper() -> ExitCode {
    sys::reset_signals();
    match run() {
        Ok(status) => status,
        Err(error) => {
            // Standard error is the terminal as well.
            tracing::debug!(%error, "cannot join");
            drop(io::Write::write_fmt(&mut io::stderr(), format_args!("belay: {error}\r\n")));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    // For SIGWINCH, and for SIGHUP when the guest's client closes the terminal.
    rustix::process::setsid()?;
    let terminal = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    let host = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    host.set_nonblocking(true)?;
    let before = tcgetattr(&terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &raw)?;
    let restored = terminal.try_clone()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(joined(host, terminal));
    restore(&restored, &before);
    end
}

fn restore(terminal: &OwnedFd, before: &Termios) {
    // It may be gone.
    if let Err(error) = tcsetattr(terminal, OptionalActions::Now, before) {
        tracing::debug!(%error, "the terminal stays raw");
    }
}

/// Why it is over.
enum Over {
    /// The host's last word.
    Told(String),
    /// The host's worker is gone.
    Lost,
    /// The guest's own terminal is.
    Closed,
}

async fn joined(host: StdStream, terminal: OwnedFd) -> io::Result<ExitCode> {
    set_nonblocking(&terminal)?;
    let terminal = sys::watch(terminal, Interest::READABLE | Interest::WRITABLE)?;
    let (from_host, to_host) = UnixStream::from_std(host)?.into_split();
    // Before the size is told, or a change could be missed.
    let resized = signal(SignalKind::window_change())?;
    let over = tokio::select! {
        over = show(from_host, &terminal) => over,
        over = tell(to_host, &terminal, resized) => over,
    };
    let (line, status) = match over {
        Over::Closed => return Ok(ExitCode::SUCCESS),
        Over::Told(why) => (why, ExitCode::SUCCESS),
        Over::Lost => ("the session's worker is gone".to_owned(), ExitCode::FAILURE),
    };
    // Whatever mode a program left the guest's window in: it is the host's, and here it ends.
    let line = format!("{LEAVE}\r\n[belay] {}\r\n", super::ssh::shown(&line));
    drop(timeout(FAREWELL, write_all(&terminal, Bytes::from(line))).await);
    Ok(status)
}

/// Off the other screen, no margins, no mouse and focus reports, no pasting brackets, usual keys and
/// colours, the cursor shown; and the cursor stays where it is.
const LEAVE: &str = "\x18\x1b[?1047l\x1b7\x1b[r\x1b8\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\
                     \x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[0m\x1b[?25h";

/// What the host shows, to the guest's terminal.
async fn show(mut from: OwnedReadHalf, terminal: &AsyncFd<OwnedFd>) -> Over {
    let mut frames = Frames::default();
    loop {
        match frames.next(&mut from).await {
            Ok(Some(Frame::Output(bytes))) => {
                if write_all(terminal, bytes).await.is_err() {
                    return Over::Closed;
                }
            }
            Ok(Some(Frame::End(why))) => return Over::Told(why),
            Ok(Some(Frame::Input(_) | Frame::Size { .. }) | None) | Err(_) => return Over::Lost,
        }
    }
}

/// What the guest types, and its window, to the host.
async fn tell(mut to: OwnedWriteHalf, terminal: &AsyncFd<OwnedFd>, mut resized: Signal) -> Over {
    let mut buffer = vec![0; COPY_CHUNK];
    let mut answers = Answers::default();
    let mut out = Vec::new();
    size(terminal).write(&mut out);
    loop {
        if to.write_all(&out).await.is_err() {
            // What the host said last is still to be read.
            return std::future::pending().await;
        }
        out.clear();
        tokio::select! {
            read = read_some(terminal, &mut buffer) => match read {
                None => return Over::Closed,
                Some(read) => {
                    let typed = answers.typed(buffer.get(..read).unwrap_or_default());
                    Frame::Input(Bytes::from(typed)).write(&mut out);
                }
            },
            _ = resized.recv() => size(terminal).write(&mut out),
        }
    }
}

fn size(terminal: &AsyncFd<OwnedFd>) -> Frame {
    match tcgetwinsize(terminal.get_ref()) {
        Ok(size) => Frame::Size { columns: size.ws_col, rows: size.ws_row },
        Err(_) => Frame::Size { columns: 0, rows: 0 },
    }
}

async fn write_all(terminal: &AsyncFd<OwnedFd>, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = terminal.writable().await?;
        match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &bytes)?)) {
            Ok(Ok(written)) => bytes.advance(written),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
    Ok(())
}
