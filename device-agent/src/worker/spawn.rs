//! The supervisor's side of a worker: start it, feed it, hear from it.
//!
//! A worker holds no descriptor of the supervisor's but its own two sockets and
//! the log, sees none of its environment but `RUST_LOG`, and leads a session of
//! its own, so that a signal to the supervisor's group does not reach it.
//!
//! Dropping a [`Worker`] does not kill the process: its sockets close, it sees
//! the end of its bytes, tells its programs and ends by itself. The runtime
//! reaps it. [`Worker::kill`] is for one that does not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::control::{read_frame, write_frame};
use super::event::WorkerEvent;
use super::limits::{EVENTS, ORDER_TIMEOUT};
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
    /// The session's bytes, both ways. Shutting down the write half tells the
    /// worker that the client is gone.
    pub data: UnixStream,
    /// What happens in the session; ends with the process. Bounded: a
    /// supervisor that does not read holds the session, never loses an event.
    pub events: mpsc::Receiver<WorkerEvent>,
    child: Child,
    _reader: AbortOnDropHandle<()>,
}

/// Starts a worker from `exe` (`/proc/self/exe` for this very program, even
/// when its file was replaced) and gives it its order.
///
/// # Errors
/// See [`SpawnError`]; the process, if it started, is killed.
pub async fn spawn(order: &WorkerOrder, exe: &Path) -> Result<Worker, SpawnError> {
    let body = order.encode()?;
    let (data, their_data) = UnixStream::pair().map_err(SpawnError::Sockets)?;
    let (mut control, their_control) = UnixStream::pair().map_err(SpawnError::Sockets)?;

    let mut command = Command::new(exe);
    command
        .arg0("belay-agent")
        .arg("worker")
        .env_clear()
        .env(SUPERVISED, "1")
        .current_dir("/")
        .stdin(theirs(their_data)?)
        .stdout(theirs(their_control)?)
        .stderr(Stdio::inherit())
        .kill_on_drop(false);
    if let Some(level) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", level);
    }
    let mut child = command
        .spawn()
        .map_err(|source| SpawnError::Start { exe: exe.display().to_string(), source })?;
    // Our copies of the child's ends live in `command`; while they do, neither
    // side would ever see the other's end.
    drop(command);

    let sent = tokio::time::timeout(ORDER_TIMEOUT, write_frame(&mut control, &body))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = sent {
        if let Err(kill) = child.start_kill() {
            tracing::warn!(error = %kill, "a worker that took no order cannot be killed");
        }
        return Err(SpawnError::Order(error));
    }

    let (tx, events) = mpsc::channel(EVENTS);
    let reader = AbortOnDropHandle::new(tokio::spawn(forward(control, tx)));
    Ok(Worker { data, events, child, _reader: reader })
}

fn theirs(socket: UnixStream) -> Result<Stdio, SpawnError> {
    let socket = socket.into_std().map_err(SpawnError::Sockets)?;
    Ok(Stdio::from(OwnedFd::from(socket)))
}

async fn forward(mut control: UnixStream, events: mpsc::Sender<WorkerEvent>) {
    loop {
        let event = match read_frame(&mut control).await {
            Ok(Some(body)) => WorkerEvent::decode(&body),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "a worker's control socket failed");
                return;
            }
        };
        match event {
            Ok(Some(event)) => {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Ok(None) => tracing::debug!("a worker told something this version does not know"),
            Err(error) => {
                tracing::warn!(%error, "a worker's event cannot be decoded");
                return;
            }
        }
    }
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
}
