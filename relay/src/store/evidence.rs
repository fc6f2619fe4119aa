//! Reading the audit log: checkpoints, entries with their hashes, proofs.
//!
//! What is read was committed, and the tree only grows; so parts read one after the other fit the
//! older of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use belay_proto::api::{LogProven, LogSession, MAX_SESSION_PAGE};
use belay_proto::audit::{
    Checkpoint, Digest, Hashes, MAX_PAGE, Node, Plan, TILE_WIDTH, Tile, VerifierKey, leaf_hash,
    plan_consistency, plan_inclusion,
};
use belay_proto::evidence::{MAX_ENTRIES, Manifest};
use belay_proto::ids::SessionId;

use super::log::newest;
use super::rows::{column, count};
use super::tree::read_tile;
use super::{EventKind, Store, StoreError};

/// A part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The entries, as lines. One whose text was pruned is empty.
    pub entries: Vec<String>,
    /// The hash of each as the tree has it.
    pub leaves: Vec<Digest>,
    /// Signed checkpoints whose size is within the page, and behind them those that are cosigned.
    pub checkpoints: Vec<String>,
}

/// A tile's hashes by tile: what a proof is filled in from.
struct Tiles(BTreeMap<Tile, Vec<Digest>>);

impl Hashes for Tiles {
    fn hash(&self, node: Node) -> Option<Digest> {
        let tile = Tile::of(node);
        tile.hash(self.0.get(&tile)?, node)
    }
}

impl Store {
    /// What auditors verify this log with.
    pub fn log_key(&self) -> &VerifierKey {
        self.0.log_key.verifier()
    }

    /// The newest checkpoint: how many entries it covers, and its note. `None` before the first
    /// entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoint(&self) -> Result<Option<(u64, String)>, StoreError> {
        newest(self.readers()).await
    }

    /// Entries after the first `after`, at most [`MAX_PAGE`] and none after the first `upto`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_page(&self, after: u64, upto: u64) -> Result<LogPage, StoreError> {
        let upto = upto.min(after.saturating_add(MAX_PAGE.into()));
        let doing = || StoreError::during("read the audit log");
        let rows =
            sqlx::query("SELECT entry FROM decisions WHERE seq > $1 AND seq <= $2 ORDER BY seq")
                .bind(count(after))
                .bind(count(upto))
                .fetch_all(self.readers())
                .await
                .map_err(doing())?;
        let entry = |row| column::<Option<String>>(row, "entry").map(Option::unwrap_or_default);
        let entries = rows.iter().map(entry).collect::<Result<_, _>>()?;
        let mut leaves = Vec::new();
        let mut at = after;
        while at < upto {
            let tile = Tile { level: 0, index: at / TILE_WIDTH };
            let hashes = read_tile(self.readers(), tile).await?;
            let end = upto.min((tile.index + 1) * TILE_WIDTH);
            let place = |n: u64| usize::try_from(n - tile.index * TILE_WIDTH).unwrap_or(usize::MAX);
            let last = place(end).min(hashes.len());
            leaves.extend_from_slice(hashes.get(place(at)..last).unwrap_or_default());
            at = end;
        }
        let rows = sqlx::query(
            "SELECT note FROM audit_checkpoints WHERE size > $1 AND size <= $2 ORDER BY size",
        )
        .bind(count(after))
        .bind(count(upto))
        .fetch_all(self.readers())
        .await
        .map_err(doing())?;
        let mut checkpoints =
            rows.iter().map(|row| column(row, "note")).collect::<Result<Vec<_>, _>>()?;
        checkpoints.extend(self.cosigned_within(after, upto).await?);
        Ok(LogPage { entries, leaves, checkpoints })
    }

    /// The proof that the log of `new` entries begins with the one of `old`; `None` when there is
    /// none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        self.fill(plan_consistency(old, new), new).await
    }

    /// The proof that the log of `size` entries has this one; `seq` counts from 1. `None` when it
    /// has not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_inclusion(
        &self,
        seq: u64,
        size: u64,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        self.fill(seq.checked_sub(1).and_then(|index| plan_inclusion(index, size)), size).await
    }

    /// Entries that name a session, after entry `after`, of the log of `size` entries, each with the
    /// proof that this log has it; at most [`MAX_SESSION_PAGE`]. `None` when there is no log of that
    /// size.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_session(
        &self,
        session: SessionId,
        after: u64,
        size: u64,
    ) -> Result<Option<LogSession>, StoreError> {
        if !self.has_size(size).await? {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT seq, entry FROM decisions WHERE session = $1 AND seq > $2 AND seq <= $3
             ORDER BY seq LIMIT $4",
        )
        .bind(session.as_bytes().as_slice())
        .bind(count(after))
        .bind(count(size))
        .bind(i64::from(MAX_SESSION_PAGE))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::during("read the audit log"))?;
        let whole = rows.len() < MAX_SESSION_PAGE as usize;
        let (mut entries, mut tiles, mut last) = (Vec::new(), Tiles(BTreeMap::new()), after);
        for row in &rows {
            let seq: i64 = column(row, "seq")?;
            last = u64::try_from(seq).map_err(|_| StoreError::Unreadable("an entry's number"))?;
            let entry = column::<Option<String>>(row, "entry")?.unwrap_or_default();
            let plan = last.checked_sub(1).and_then(|index| plan_inclusion(index, size));
            let hashes = match plan {
                Some(plan) => self.filled(&plan, &mut tiles).await?,
                None => None,
            };
            let hashes = hashes.ok_or(StoreError::Unreadable("a tile of the audit log"))?;
            entries.push(LogProven { entry, hashes });
        }
        Ok(Some(LogSession { upto: if whole { size } else { last }, entries }))
    }

    /// Whether the log has an entry of this kind of a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_event(&self, session: SessionId, kind: EventKind) -> Result<bool, StoreError> {
        let found = sqlx::query("SELECT 1 FROM decisions WHERE session = $1 AND kind = $2 LIMIT 1")
            .bind(session.as_bytes().as_slice())
            .bind(kind.token())
            .fetch_optional(self.readers())
            .await
            .map_err(StoreError::during("read the audit log"))?;
        Ok(found.is_some())
    }

    /// The hashes of all leaves that name a session, in the log of `size` entries; `None` when there
    /// are more than [`MAX_ENTRIES`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_leaves(
        &self,
        session: SessionId,
        size: u64,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        let rows = sqlx::query(
            "SELECT entry FROM decisions WHERE session = $1 AND seq <= $2 ORDER BY seq LIMIT $3",
        )
        .bind(session.as_bytes().as_slice())
        .bind(count(size))
        .bind(count(MAX_ENTRIES as u64 + 1))
        .fetch_all(self.readers())
        .await
        .map_err(StoreError::during("read the audit log"))?;
        let leaf = |row| {
            let entry = column::<Option<String>>(row, "entry")?.unwrap_or_default();
            Ok(leaf_hash(entry.as_bytes()))
        };
        let leaves = rows.iter().map(leaf).collect::<Result<Vec<_>, StoreError>>()?;
        Ok((leaves.len() <= MAX_ENTRIES).then_some(leaves))
    }

    /// Signs the list of what makes up a bundle, with the log's key.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the key does not sign.
    pub fn sign_manifest(&self, manifest: &Manifest) -> Result<String, StoreError> {
        let note = self.0.log_key.seal_manifest(manifest);
        note.map_err(|_| StoreError::Unreadable("an audit key that does not sign"))
    }

    /// The newest checkpoint, read, and its note. `None` before the first entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoint_read(&self) -> Result<Option<(Checkpoint, String)>, StoreError> {
        let Some((_, note)) = self.checkpoint().await? else { return Ok(None) };
        let key = &self.0.log_key;
        let checkpoint = Checkpoint::open(&note, key.verifier(), &key.check());
        let checkpoint = checkpoint.map_err(|_| StoreError::Unreadable("a checkpoint"))?;
        Ok(Some((checkpoint, note)))
    }

    async fn has_size(&self, size: u64) -> Result<bool, StoreError> {
        Ok(self.checkpoint().await?.is_some_and(|(newest, _)| newest >= size))
    }

    async fn fill(&self, plan: Option<Plan>, size: u64) -> Result<Option<Vec<Digest>>, StoreError> {
        let Some(plan) = plan else { return Ok(None) };
        if !self.has_size(size).await? {
            return Ok(None);
        }
        self.filled(&plan, &mut Tiles(BTreeMap::new())).await
    }

    /// Reads the tiles that a proof needs and are not there yet. Of those read for one size a larger
    /// log has more, never others.
    async fn filled(
        &self,
        plan: &Plan,
        tiles: &mut Tiles,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        let needed: BTreeSet<Tile> = plan.needs().map(Tile::of).collect();
        for tile in needed {
            if let Entry::Vacant(vacant) = tiles.0.entry(tile) {
                vacant.insert(read_tile(self.readers(), tile).await?);
            }
        }
        Ok(plan.fill(tiles))
    }
}
