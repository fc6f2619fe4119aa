//! Starting a worker, and giving it its order.
//!
//! A worker holds no descriptor of the supervisor's but its door, its control
//! socket and the log, sees none of its environment but `RUST_LOG`, and leads a
//! session of its own, so that a signal to the supervisor's group does not reach
//! it.
//!
//! Dropping a [`Worker`] does not end the process: it goes on, and another
//! supervisor may take it over through its door. [`Worker::kill`] ends it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::control::{ControlLine, write_order, write_socket};
use super::limits::ORDER_TIMEOUT;
use super::order::{OrderError, WorkerOrder};

/// Set in the environment of a supervised worker; standard-input mode, which
/// takes plain keys, refuses to run where it is set.
pub(super) const SUPERVISED: &str = "BELAY_SUPERVISED";

/// Why a worker could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    #[error("the worker's sockets cannot be made")]
    Sockets(#[source] io::Error),
    #[error("the worker cannot be started from {exe}")]
    Start {
        exe: String,
        #[source]
        source: io::Error,
    },
    #[error("the worker does not take its order")]
    Order(#[source] io::Error),
    #[error(transparent)]
    Encode(#[from] OrderError),
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// What happens in the session, and the way to end it. Bounded: a
    /// supervisor that does not read holds the session, never loses an event.
    pub control: ControlLine,
    child: Child,
}

/// Starts a worker from `exe` (`/proc/self/exe` for this very program, even
/// when its file was replaced) and gives it its order and its door.
///
/// # Errors
/// See [`SpawnError`]; the process, if it started, is killed.
pub async fn spawn(
    order: &WorkerOrder,
    exe: &Path,
    door: UnixListener,
) -> Result<Worker, SpawnError> {
    spawn_joining(order, exe, door, None).await
}

/// The same of one whose order says that it joins another: with the socket to that one's worker,
/// which nothing here reads.
///
/// # Errors
/// As [`spawn`].
pub async fn spawn_joining(
    order: &WorkerOrder,
    exe: &Path,
    door: UnixListener,
    host: Option<OwnedFd>,
) -> Result<Worker, SpawnError> {
    let body = order.encode()?;
    let (mut control, their_control) = UnixStream::pair().map_err(SpawnError::Sockets)?;
    let their_control = their_control.into_std().map_err(SpawnError::Sockets)?;

    let mut command = Command::new(exe);
    command
        .arg0("belay-agent")
        .arg("worker")
        .env_clear()
        .env(SUPERVISED, "1")
        // Memory is taken from one pool, not from one of each thread's (mallopt(3), `M_ARENA_MAX`).
        .env("MALLOC_ARENA_MAX", "1")
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(door)))
        .stdout(Stdio::from(OwnedFd::from(their_control)))
        .stderr(Stdio::inherit())
        .kill_on_drop(false);
    if let Some(level) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", level);
    }
    let mut child = command
        .spawn()
        .map_err(|source| SpawnError::Start { exe: exe.display().to_string(), source })?;
    // Our copies of the child's ends live in `command`; while they do, neither
    // side would ever see the other's end, and a dead worker's door would be open.
    drop(command);

    let ordering = async {
        write_order(&mut control, &body).await?;
        match &host {
            Some(host) => write_socket(&control, host.as_fd()).await,
            None => Ok(()),
        }
    };
    let sent = tokio::time::timeout(ORDER_TIMEOUT, ordering)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = sent {
        if let Err(kill) = child.start_kill() {
            tracing::warn!(error = %kill, "a worker that took no order cannot be killed");
        }
        return Err(SpawnError::Order(error));
    }

    Ok(Worker { control: ControlLine::new(control), child })
}

impl Worker {
    /// Process id, `None` once it was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for the process to end. Cancel-safe.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills the process at once; its terminals hang up.
    ///
    /// # Errors
    /// The operating system's; not for a process already gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.start_kill()
    }

    /// The two parts. Dropping the process's handle does not end it.
    pub fn into_parts(self) -> (ControlLine, Child) {
        (self.control, self.child)
    }
}
