//! Two machines with one device's key: the alarm, kept until a person decides.

use std::net::SocketAddr;

use belay_proto::ids::{DeviceId, RunId};
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use sqlx::sqlite::SqliteRow;

use super::rows::{column, seconds, time};
use super::writer::Tx;
use super::{Event, EventKind, Store, StoreError};

/// Two machines were seen alive with one device's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneAlarm {
    /// Since when.
    pub since: UnixTime,
    /// Where the newer one came from last, `ADDRESS:PORT`.
    pub source: String,
    /// The run of the agent that holds the line.
    pub kept: RunId,
    /// The run that was refused.
    pub refused: RunId,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct CloneSeen {
    /// Whose key.
    pub device: DeviceId,
    /// The run that holds the line.
    pub kept: RunId,
    /// The run that came.
    pub refused: RunId,
    /// Where from.
    pub source: SocketAddr,
}

impl Store {
    /// Raises the alarm, or follows the machine that was refused into its next run. Recorded when
    /// there is something new in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_clone(&self, seen: CloneSeen) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.clone_seen(&seen).await })).await
    }

    /// The machine that holds the line while the alarm is open has restarted its agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn follow_kept(&self, device: DeviceId, run: RunId) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.follow_kept(device, run).await })).await
    }
}

impl Tx {
    async fn clone_seen(&mut self, seen: &CloneSeen) -> Result<(), StoreError> {
        let Some(device) = self.device(seen.device).await? else { return Ok(()) };
        let known = device.clone.is_some_and(|alarm| alarm.refused == seen.refused);
        sqlx::query(
            "UPDATE devices SET clone_since = COALESCE(clone_since, $2), clone_source = $3,
                                clone_kept = $4, clone_refused = $5
             WHERE id = $1",
        )
        .bind(seen.device.as_bytes().as_slice())
        .bind(seconds(clock::now()))
        .bind(seen.source.to_string())
        .bind(seen.kept.as_bytes().as_slice())
        .bind(seen.refused.as_bytes().as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        if known {
            return Ok(());
        }
        let event = Event::new(EventKind::CloneSuspected).device(seen.device).source(seen.source);
        self.append(&event.detail("a second machine with its key; the newer one is refused")).await
    }

    async fn follow_kept(&mut self, device: DeviceId, run: RunId) -> Result<(), StoreError> {
        sqlx::query("UPDATE devices SET clone_kept = $2 WHERE id = $1 AND clone_since IS NOT NULL")
            .bind(device.as_bytes().as_slice())
            .bind(run.as_bytes().as_slice())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        Ok(())
    }

    pub(super) async fn close_alarm(&mut self, device: DeviceId) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE devices SET clone_since = NULL, clone_source = NULL, clone_kept = NULL,
                                clone_refused = NULL
             WHERE id = $1",
        )
        .bind(device.as_bytes().as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(())
    }
}

/// The alarm in a device's row.
pub(super) fn alarm(row: &SqliteRow) -> Result<Option<CloneAlarm>, StoreError> {
    let Some(since) = column::<Option<i64>>(row, "clone_since")? else { return Ok(None) };
    let run = |name| {
        RunId::from_slice(column(row, name)?).ok_or(StoreError::Unreadable("a run of an agent"))
    };
    Ok(Some(CloneAlarm {
        since: time(since)?,
        source: column(row, "clone_source")?,
        kept: run("clone_kept")?,
        refused: run("clone_refused")?,
    }))
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("keep the alarm of a copied key")
}
