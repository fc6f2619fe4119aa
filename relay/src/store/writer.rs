//! The one writer: everything that changes the store goes through it, many operations in one
//! transaction and one fsync (group commit).
//!
//! Its law: an operation is answered only after the transaction that holds it is on disk. When a
//! transaction fails, every operation in it is refused and none is kept; the writer opens its
//! connection anew and goes on with the next. What it is not: it decides nothing.

use std::mem;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::error::{StoreError, is_full};
use super::log::Log;
use super::{Change, Event};
use crate::ca::AuditKey;
use belay_proto::error_line::one_line;

/// Operations waiting. Each holds a few hundred bytes; at the measured thousands a second this is
/// well under a second of work. A full queue makes callers wait, then refuses them.
pub(super) const QUEUE: usize = 4096;

/// Most operations in one transaction: bounds how long the first waits for the last.
const GROUP: usize = 1024;

/// The open transaction, as an operation sees it.
pub(super) struct Tx {
    pub(super) conn: SqliteConnection,
    pub(super) log: Log,
    changes: Vec<Change>,
}

impl Tx {
    fn new(conn: SqliteConnection, key: Arc<AuditKey>) -> Self {
        Self { conn, log: Log::new(key), changes: Vec::new() }
    }

    /// To be told to everybody who listens, once this is on disk.
    pub(super) fn announce(&mut self, change: Change) {
        self.changes.push(change);
    }
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) enum Step {
    /// Keep what it wrote.
    Keep(Answer),
    /// Take back what it wrote.
    Undo(Answer),
    /// The database failed under it: the whole transaction is lost.
    Broken(StoreError, Answer),
}

/// One operation, its result's type hidden.
pub(super) trait Operation: Send {
    fn run(self: Box<Self>, tx: &mut Tx) -> BoxFuture<'_, Step>;
    /// It was never run.
    fn refuse(self: Box<Self>, error: StoreError);
}

/// An operation's error: either its own, or the store's.
pub(super) trait Fails: From<StoreError> + Send + 'static {
    /// The store's part, when it is that.
    fn store(&self) -> Option<&StoreError>;
}

impl Fails for StoreError {
    fn store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// The work of an operation and whoever waits for it.
pub(super) struct Waited<W, T, E> {
    pub(super) work: W,
    pub(super) answer: oneshot::Sender<Result<T, E>>,
}

impl<W, T, E> Operation for Waited<W, T, E>
where
    W: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Fails,
{
    fn run(self: Box<Self>, tx: &mut Tx) -> BoxFuture<'_, Step> {
        let Self { work, answer } = *self;
        let result = work(tx);
        Box::pin(async move {
            match result.await {
                Ok(value) => Step::Keep(Box::new(move |outcome| {
                    tell(answer, outcome.map(|()| value).map_err(E::from));
                })),
                Err(error) => {
                    let broken = error.store().filter(|e| !e.spares_the_transaction()).cloned();
                    let answer: Answer = Box::new(move |outcome| {
                        tell(answer, Err(outcome.err().map_or(error, E::from)));
                    });
                    match broken {
                        Some(broken) => Step::Broken(broken, answer),
                        None => Step::Undo(answer),
                    }
                }
            }
        })
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        tell(self.answer, Err(E::from(error)));
    }
}

pub(super) enum Job {
    /// Append events: cannot be refused for a reason of its own.
    Append(Vec<Event>, oneshot::Sender<Result<(), StoreError>>),
    /// Any other operation, in a savepoint of its own.
    Run(Box<dyn Operation>),
    /// Finish, and say when.
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    options: SqliteConnectOptions,
    tx: Option<Tx>,
    jobs: mpsc::Receiver<Job>,
    changes: broadcast::Sender<Change>,
    key: Arc<AuditKey>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        options: SqliteConnectOptions,
        conn: SqliteConnection,
        jobs: mpsc::Receiver<Job>,
        changes: broadcast::Sender<Change>,
        key: Arc<AuditKey>,
    ) -> Self {
        let tx = Some(Tx::new(conn, Arc::clone(&key)));
        Self { options, tx, jobs, changes, key, failing: false }
    }

    /// Works until [`Job::Close`] or until nobody can send any more.
    pub(super) async fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            if self.jobs.recv_many(&mut group, GROUP).await == 0 {
                break;
            }
            let mut closing = Vec::new();
            let mut work = Vec::with_capacity(group.len());
            for job in group.drain(..) {
                match job {
                    Job::Close(done) => closing.push(done),
                    job @ (Job::Append(..) | Job::Run(_)) => work.push(job),
                }
            }
            if !work.is_empty() {
                self.group(work).await;
            }
            if !closing.is_empty() {
                self.jobs.close();
                self.finish().await;
                for done in closing {
                    tell(done, ());
                }
                return;
            }
        }
        self.finish().await;
    }

    async fn finish(&mut self) {
        if let Some(tx) = self.tx.take()
            && let Err(error) = tx.conn.close().await
        {
            tracing::warn!(error = %one_line(&error), "closing the store");
        }
    }

    async fn group(&mut self, jobs: Vec<Job>) {
        let mut answers: Vec<Answer> = Vec::with_capacity(jobs.len());
        let outcome = self.transaction(jobs, &mut answers).await;
        let changes = match (&outcome, &mut self.tx) {
            (Ok(()), Some(tx)) => mem::take(&mut tx.changes),
            _ => Vec::new(),
        };
        for change in changes {
            // An error means that nobody listens.
            drop(self.changes.send(change));
        }
        for answer in answers {
            answer(outcome.clone());
        }
        match outcome {
            Ok(()) if mem::take(&mut self.failing) => tracing::info!("the store works again"),
            Ok(()) => {}
            Err(error) => self.broken(&error).await,
        }
    }

    /// One transaction around the jobs. Whatever happens, each job's answer is in `answers` after.
    async fn transaction(
        &mut self,
        jobs: Vec<Job>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        let mut broken = self.begin().await.err();
        let mut jobs = jobs.into_iter();
        if let Some(tx) = &mut self.tx
            && broken.is_none()
        {
            for job in jobs.by_ref() {
                if let Err(error) = run(tx, job, answers).await {
                    broken = Some(error);
                    break;
                }
            }
            if broken.is_none() {
                broken = tx.log.flush(&mut tx.conn).await.err();
            }
            if broken.is_none() {
                broken = execute(&mut tx.conn, "COMMIT").await.err();
            }
        }
        let Some(error) = broken else { return Ok(()) };
        for job in jobs {
            refuse(job, &error);
        }
        Err(error)
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        if self.tx.is_none() {
            let conn = self.options.connect().await.map_err(StoreError::during("open its file"))?;
            self.tx = Some(Tx::new(conn, Arc::clone(&self.key)));
        }
        match &mut self.tx {
            Some(tx) => execute(&mut tx.conn, "BEGIN IMMEDIATE").await,
            None => Err(StoreError::Closed),
        }
    }

    /// After a failed transaction: whatever state the connection is in, it is not used again. A
    /// write-ahead log that filled the disk is folded into the database first, which gives its
    /// room back.
    async fn broken(&mut self, error: &StoreError) {
        if !mem::replace(&mut self.failing, true) {
            tracing::error!(
                error = %one_line(error),
                "the store cannot be written: what must be recorded is refused until it can"
            );
        }
        let full = matches!(error, StoreError::Unavailable { source, .. } if is_full(source));
        let Some(mut tx) = self.tx.take() else { return };
        // Fails when the database has rolled back by itself; closing would do it as well.
        let rolled_back = execute(&mut tx.conn, "ROLLBACK").await;
        if full && let Err(error) = execute(&mut tx.conn, "PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::debug!(error = %one_line(&error), ?rolled_back, "no room came free");
        }
        if let Err(error) = tx.conn.close().await {
            tracing::debug!(error = %one_line(&error), "closing the broken connection");
        }
    }
}

async fn run(tx: &mut Tx, job: Job, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
    match job {
        Job::Append(events, done) => {
            answers.push(Box::new(move |outcome| tell(done, outcome)));
            for event in &events {
                tx.append(event).await?;
            }
            Ok(())
        }
        Job::Run(work) => {
            let (announced, logged) = (tx.changes.len(), tx.log.mark());
            execute(&mut tx.conn, "SAVEPOINT one").await?;
            match work.run(tx).await {
                Step::Keep(answer) => {
                    answers.push(answer);
                    execute(&mut tx.conn, "RELEASE one").await
                }
                Step::Undo(answer) => {
                    tx.changes.truncate(announced);
                    tx.log.take_back(logged);
                    answers.push(answer);
                    execute(&mut tx.conn, "ROLLBACK TO one").await?;
                    execute(&mut tx.conn, "RELEASE one").await
                }
                Step::Broken(error, answer) => {
                    answers.push(answer);
                    Err(error)
                }
            }
        }
        Job::Close(done) => {
            tell(done, ());
            Ok(())
        }
    }
}

fn refuse(job: Job, error: &StoreError) {
    match job {
        Job::Append(_, done) => tell(done, Err(error.clone())),
        Job::Run(work) => work.refuse(error.clone()),
        Job::Close(done) => tell(done, ()),
    }
}

/// Whoever waited may have gone away; that is no fault.
fn tell<T>(whom: oneshot::Sender<T>, what: T) {
    drop(whom.send(what));
}

async fn execute(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql)
        .execute(conn)
        .await
        .map(drop)
        .map_err(|source| StoreError::Unavailable { doing: "commit", source: Arc::new(source) })
}
