//! Reading the audit log: checkpoints, entries with their hashes, proofs.
//!
//! What is read was committed, and the tree only grows; so parts read one after the other fit the
//! older of them.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::audit::{
    Digest, Hashes, MAX_PAGE, Node, Plan, TILE_WIDTH, Tile, VerifierKey, plan_consistency,
    plan_inclusion,
};

use super::log::newest;
use super::rows::{column, count};
use super::tree::read_tile;
use super::{Store, StoreError};

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

    async fn fill(&self, plan: Option<Plan>, size: u64) -> Result<Option<Vec<Digest>>, StoreError> {
        let Some(plan) = plan else { return Ok(None) };
        if self.checkpoint().await?.is_none_or(|(newest, _)| newest < size) {
            return Ok(None);
        }
        let mut tiles = Tiles(BTreeMap::new());
        let needed: BTreeSet<Tile> = plan.needs().map(Tile::of).collect();
        for tile in needed {
            tiles.0.insert(tile, read_tile(self.readers(), tile).await?);
        }
        Ok(plan.fill(&tiles))
    }
}
