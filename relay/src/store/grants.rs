//! Grants that were issued, kept for evidence.
//!
//! Its law: a grant and the entry that names it are one transaction, and its device hears of it after.

use std::collections::BTreeSet;

use belay_proto::audit::Entry;
use belay_proto::evidence::{Issued, MAX_ENTRIES};
use belay_proto::ids::SessionId;

use super::rows::{column, count};
use super::writer::Tx;
use super::{EventKind, SessionRecord, Store, StoreError};

impl Store {
    /// Keeps a session's grant as it is sent, signed by `key`, and records it.
    ///
    /// # Errors
    /// [`StoreError`]: the device must not be sent it.
    pub async fn keep_grant(
        &self,
        session: &SessionRecord,
        signed: Vec<u8>,
        key: [u8; 32],
    ) -> Result<(), StoreError> {
        let detail = Issued::new(&signed, key).detail();
        let event = session.event(EventKind::GrantIssued).detail(&detail);
        let id = session.id;
        self.write(move |tx| {
            Box::pin(async move {
                tx.add_grant(id, &signed).await?;
                tx.append(&event).await
            })
        })
        .await
    }

    /// A session's grants as they were sent, in their order, at most [`MAX_ENTRIES`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn grants(&self, session: SessionId) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = sqlx::query("SELECT signed FROM grants WHERE session = $1 ORDER BY id LIMIT $2")
            .bind(session.as_bytes().as_slice())
            .bind(count(MAX_ENTRIES as u64))
            .fetch_all(self.readers())
            .await
            .map_err(StoreError::during("read grants"))?;
        rows.iter().map(|row| column(row, "signed")).collect()
    }
}

impl Store {
    /// What the log of `size` entries says of a session's grants: those whose entries have their text.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn issued(
        &self,
        session: SessionId,
        size: u64,
    ) -> Result<BTreeSet<[u8; 32]>, StoreError> {
        let rows = sqlx::query(
            "SELECT entry FROM decisions WHERE session = $1 AND kind = $2 AND seq <= $3
             AND entry IS NOT NULL ORDER BY seq LIMIT $4",
        )
        .bind(session.as_bytes().as_slice())
        .bind(EventKind::GrantIssued.token())
        .bind(count(size))
        .bind(count(MAX_ENTRIES as u64))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::during("read grants"))?;
        let mut issued = BTreeSet::new();
        for row in &rows {
            let entry: String = column(row, "entry")?;
            let entry = serde_json::from_str::<Entry>(&entry).ok();
            issued.extend(entry.and_then(|entry| Issued::of(&entry)).map(|one| one.digest));
        }
        Ok(issued)
    }
}

impl Tx {
    async fn add_grant(&mut self, session: SessionId, signed: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO grants (session, signed) VALUES ($1, $2)")
            .bind(session.as_bytes().as_slice())
            .bind(signed)
            .execute(&mut self.conn)
            .await
            .map(drop)
            .map_err(StoreError::during("keep a grant"))
    }
}
