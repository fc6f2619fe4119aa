//! Bringing the record of sessions together with what a device says it has.
//!
//! A device speaks of them when its line comes up; what either side missed while there was none is
//! made good here.

use std::collections::BTreeSet;

use belay_proto::ids::{DeviceId, SessionId};
use belay_tunnel::clock;

use super::sessions::{by_id, open_of};
use super::writer::Tx;
use super::{EventKind, SessionRecord, Store, StoreError, Whose};

/// A session the device is to end, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Which.
    pub session: SessionId,
    /// One line for a person.
    pub why: String,
}

impl Store {
    /// Brings the store to what a device that has connected says it still has: its open sessions
    /// that are not in `alive`, and of which `is_live` knows nothing, are closed and recorded.
    /// `is_live` is asked inside the transaction, so a session that is being opened meanwhile is
    /// not taken for a lost one.
    ///
    /// Returns what the device is to end: those closed here, and those of `alive` that are closed,
    /// unknown, or another device's.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn reconcile(
        &self,
        device: DeviceId,
        alive: BTreeSet<SessionId>,
        is_live: impl Fn(SessionId) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<Reconciled>, StoreError> {
        // Most devices have none, and a whole fleet may come back at once.
        if alive.is_empty() && self.open_sessions(Whose::Device(device)).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| Box::pin(async move { tx.reconcile(device, &alive, &is_live).await }))
            .await
    }
}

impl Tx {
    async fn reconcile(
        &mut self,
        device: DeviceId,
        alive: &BTreeSet<SessionId>,
        is_live: &(impl Fn(SessionId) -> bool + Send + Sync),
    ) -> Result<Vec<Reconciled>, StoreError> {
        const LOST: &str = "ended while the line was down";
        let mut over = Vec::new();
        for session in open_of(&mut self.conn, Whose::Device(device)).await? {
            if alive.contains(&session.id) || is_live(session.id) {
                continue;
            }
            self.shut(session.id, clock::now(), LOST).await?;
            self.append(&session.event(EventKind::SessionClosed).detail(LOST)).await?;
            over.push(Reconciled { session: session.id, why: LOST.to_owned() });
        }
        for id in alive {
            let known = by_id(&mut self.conn, *id).await?.filter(|known| known.device == device);
            let why = match known {
                // It was ended, and closing it failed: the device's own word closes it.
                Some(SessionRecord { over: None, killed: Some(line), .. }) => line,
                Some(SessionRecord { over: None, .. }) => continue,
                Some(SessionRecord { over: Some(over), .. }) => over.why,
                None => "the relay knows no such session".to_owned(),
            };
            over.push(Reconciled { session: *id, why });
        }
        Ok(over)
    }
}
