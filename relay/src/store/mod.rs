//! What the relay remembers: people, devices, tokens, sessions, and every decision.
//!
//! Its law: what a method acknowledges is on disk, whole; what it refuses left nothing behind.
//! When the file cannot be written, reads go on, writes are refused with [`StoreError`], and
//! writing resumes by itself. One connection writes (`writer`), a few read. The SQL is the part
//! that SQLite and PostgreSQL share. Of private keys it uses the audit log's alone, through
//! [`AuditKey`]. What it is not: it asks no policy.

mod actor;
mod clones;
mod codes;
mod cosigned;
mod cursors;
mod decisions;
mod deletions;
mod devices;
mod enrolment;
mod error;
mod event;
mod evidence;
mod grants;
mod holds;
mod lines;
mod log;
mod log_check;
mod past;
mod prune;
mod reconcile;
mod rows;
mod schema;
mod sessions;
mod tokens;
mod tree;
mod users;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::api::DeviceStatus;
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_tunnel::private_file;
use futures::future::BoxFuture;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::ca::AuditKey;
pub use actor::Actor;
pub use clones::{CloneAlarm, CloneSeen};
pub use codes::{CodeError, LoginCode};
pub use cursors::Cursor;
pub use deletions::{BuryError, Remains, Tombstone};
pub use devices::{DeviceChangeError, DeviceRecord};
pub use enrolment::{EnrolError, Enrolled, Enrolment, NameWish};
pub use error::StoreError;
pub use event::{Decision, Event, EventKind};
pub use evidence::LogPage;
pub use holds::{HoldError, HoldRecord, NewHold, Target};
pub use lines::{LeftLine, LineDown, LineUp, Renewal, RenewalError};
pub use log_check::LogError;
pub use past::Past;
pub use reconcile::Reconciled;
pub use sessions::{Ending, OpenSessionError, Over, Passed, SessionRecord, Whose};
pub use tokens::{BadPattern, NamePattern, NewToken};
pub use users::{PasswordHash, UserError, UserRecord};
use writer::{Fails, Job, Tx, Waited, Writer};

/// Readers at a time. Reads are short; SQLite lets them run beside the writer.
const READERS: u32 = 4;

/// How long a read waits for a reader, and a write for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// Changes kept for a slow listener. One that falls behind further is told so and must look at
/// everything again.
const CHANGES: usize = 1024;

/// The database's file in the data directory.
pub const FILE: &str = "belay.db";

/// Something that live connections hang on has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A device's standing.
    DeviceStatus(DeviceId, DeviceStatus),
    /// A device's name or labels: what roles cover may be different now.
    DeviceEdited(DeviceId),
    /// A person was disabled.
    UserDisabled(UserId),
    /// A person's roles.
    UserRoles(UserId),
    /// Somebody ended a session.
    SessionKilled(SessionId),
}

struct Inner {
    jobs: mpsc::Sender<Job>,
    readers: SqlitePool,
    changes: broadcast::Sender<Change>,
    log_key: Arc<AuditKey>,
    _writer: AbortOnDropHandle<()>,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made.
    #[error("cannot make the store {0}")]
    Make(String, #[source] std::io::Error),
    /// The file cannot be opened.
    #[error("cannot open the store {0}")]
    Open(String, #[source] sqlx::Error),
    /// Its tables are not what this version makes of them.
    #[error("cannot bring the store {0} to this version")]
    Migrate(String, #[source] sqlx::migrate::MigrateError),
    /// The audit log in it is not what was signed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Store {
    /// Opens the store in a data directory, makes it when it is missing, and brings its tables to
    /// this version. Needs a tokio runtime: the writer is a task of its own, and ends with the
    /// last clone or with [`Store::close`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(data: &Path) -> Result<Self, OpenError> {
        let file = data.join(FILE);
        let shown = || file.display().to_string();
        // SQLite gives the files beside it the same mode.
        match private_file::create(&file, b"") {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Make(shown(), error));
            }
            Ok(()) | Err(_) => {}
        }
        let options = schema::writing(&file);
        let mut conn = options.connect().await.map_err(|error| OpenError::Open(shown(), error))?;
        schema::migrator()
            .run(&mut conn)
            .await
            .map_err(|error| OpenError::Migrate(shown(), error))?;
        let log_key = log_check::open(&mut conn, data).await?;
        let readers = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(READERS)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(schema::reading(&file))
            .await
            .map_err(|error| OpenError::Open(shown(), error))?;
        let (jobs, queue) = mpsc::channel(writer::QUEUE);
        let (changes, _) = broadcast::channel(CHANGES);
        let writer = Writer::new(options, conn, queue, changes.clone(), Arc::clone(&log_key));
        let writer = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        Ok(Self(Arc::new(Inner { jobs, readers, changes, log_key, _writer: writer })))
    }

    /// Tells of every [`Change`] from now on, after it is on disk and before whoever made it is
    /// answered. A receiver that lags must re-read what it watches.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// Finishes what is queued, folds the write-ahead log in and closes the file. Operations after
    /// this are refused with [`StoreError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.jobs.send(Job::Close(done)).await.is_ok() && closed.await.is_err() {
            tracing::warn!("the store's writer ended before it was told to");
        }
        self.0.readers.close().await;
    }

    fn readers(&self) -> &SqlitePool {
        &self.0.readers
    }

    async fn enqueue(&self, job: Job) -> Result<(), StoreError> {
        self.0.jobs.send_timeout(job, PATIENCE).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Overloaded,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
        })
    }

    /// Runs `work` inside the writer's transaction and returns once it is on disk.
    async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Fails,
    {
        let (answer, result) = oneshot::channel();
        self.enqueue(Job::Run(Box::new(Waited { work, answer }))).await?;
        result.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }
}

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;
