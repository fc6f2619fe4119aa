//! Appending events and reading them back. Nothing changes or removes one.

use belay_proto::ids::{DeviceId, SessionId, UserId};
use sqlx::sqlite::SqliteRow;
use tokio::sync::oneshot;

use super::rows::{column, time};
use super::writer::{Job, Tx};
use super::{Decision, Event, Store, StoreError};

/// Most events in one batch.
const MAX_BATCH: usize = 256;

/// Most decisions one reading returns.
const MAX_READ: i64 = 10_000;

impl Tx {
    /// Adds an event to this transaction.
    pub(super) async fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        self.log.append(&mut self.conn, event).await
    }
}

impl Store {
    /// Records an event; returns once it is on disk.
    ///
    /// # Errors
    /// [`StoreError`]: it is not recorded, and what it stands for must not happen.
    pub async fn record(&self, event: Event) -> Result<(), StoreError> {
        self.append(vec![event]).await
    }

    /// Records several, all or none. More than 256 go in several transactions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_batch(&self, mut events: Vec<Event>) -> Result<(), StoreError> {
        while events.len() > MAX_BATCH {
            let rest = events.split_off(MAX_BATCH);
            self.append(events).await?;
            events = rest;
        }
        self.append(events).await
    }

    async fn append(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let (done, recorded) = oneshot::channel();
        self.enqueue(Job::Append(events, done)).await?;
        recorded.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What was recorded after place `after`, oldest first, at most 10,000.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decisions(&self, after: i64) -> Result<Vec<Decision>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, at, kind, user_id, device, session, login, code, detail, source
             FROM decisions WHERE seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(after)
        .bind(MAX_READ)
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::during("read decisions"))?;
        rows.iter().map(decision).collect()
    }
}

pub(super) fn decision(row: &SqliteRow) -> Result<Decision, StoreError> {
    let id = |name| column::<Option<Vec<u8>>>(row, name);
    let user = id("user_id")?.as_deref().and_then(UserId::from_slice);
    let device = id("device")?.as_deref().and_then(DeviceId::from_slice);
    let session = id("session")?.as_deref().and_then(SessionId::from_slice);
    Ok(Decision {
        seq: column(row, "seq")?,
        at: time(column(row, "at")?)?,
        kind: column(row, "kind")?,
        user,
        device,
        session,
        login: column(row, "login")?,
        code: column(row, "code")?,
        detail: column(row, "detail")?,
        source: column(row, "source")?,
    })
}
