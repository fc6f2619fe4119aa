//! The audit log's tree as the store keeps it: the right edge in memory, all hashes in tiles.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::audit::{Digest, Frontier, Node, TILE_WIDTH, Tile, partial_tiles, subtrees};
use sqlx::SqliteConnection;

use super::StoreError;
use super::rows::{column, count};

/// A tree that can grow, and what of it is not in the database yet.
#[derive(Debug, Default)]
pub(super) struct Tree {
    frontier: Frontier,
    /// By level: the hashes of the tile that is not whole.
    partial: BTreeMap<u8, Vec<Digest>>,
    full: Vec<(Tile, Vec<Digest>)>,
    changed: BTreeSet<u8>,
}

impl Tree {
    /// The tree of so many entries, from the tiles on its right edge; `None` when one is missing or
    /// too short.
    pub(super) async fn load(
        conn: &mut SqliteConnection,
        size: u64,
    ) -> Result<Option<Self>, StoreError> {
        let mut partial = BTreeMap::new();
        for (tile, width) in partial_tiles(size) {
            let mut hashes = read_tile(&mut *conn, tile).await?;
            let width = usize::try_from(width).unwrap_or(usize::MAX);
            if hashes.len() < width {
                return Ok(None);
            }
            hashes.truncate(width);
            partial.insert(tile.level, hashes);
        }
        let mut peaks: BTreeMap<Node, Digest> = BTreeMap::new();
        for node in subtrees(0, size) {
            let tile = Tile::of(node);
            let hash = partial.get(&tile.level).and_then(|hashes| tile.hash(hashes, node));
            let Some(hash) = hash else { return Ok(None) };
            peaks.insert(node, hash);
        }
        Ok(Frontier::of(size, &peaks).map(|frontier| Self { frontier, partial, ..Self::default() }))
    }

    pub(super) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// The hashes of the last entries, those in the tile that is not whole.
    pub(super) fn last_leaves(&self) -> &[Digest] {
        self.partial.get(&0).map_or(&[], Vec::as_slice)
    }

    pub(super) fn append(&mut self, leaf: Digest) {
        let Self { frontier, partial, full, changed } = self;
        frontier.append(leaf, |node, hash| {
            let tile = Tile::of(node);
            // What lies between the levels of tiles is computed when it is asked for.
            if !tile.holds(node) {
                return;
            }
            let row = partial.entry(tile.level).or_default();
            row.push(hash);
            changed.insert(tile.level);
            if row.len() as u64 == TILE_WIDTH {
                full.push((tile, std::mem::take(row)));
            }
        });
    }

    /// Writes what has changed.
    pub(super) async fn save(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        for (tile, hashes) in self.full.drain(..) {
            write_tile(&mut *conn, tile, &hashes).await?;
        }
        let size = self.frontier.size();
        for (tile, _) in partial_tiles(size) {
            if !self.changed.contains(&tile.level) {
                continue;
            }
            if let Some(hashes) = self.partial.get(&tile.level) {
                write_tile(&mut *conn, tile, hashes).await?;
            }
        }
        self.changed.clear();
        Ok(())
    }
}

/// The hashes of a tile; none when it is not there.
pub(super) async fn read_tile(
    conn: impl sqlx::SqliteExecutor<'_>,
    tile: Tile,
) -> Result<Vec<Digest>, StoreError> {
    let row = sqlx::query("SELECT hashes FROM audit_tiles WHERE level = $1 AND place = $2")
        .bind(i64::from(tile.level))
        .bind(count(tile.index))
        .fetch_optional(conn)
        .await
        .map_err(StoreError::during("read the audit log's tree"))?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let bytes: Vec<u8> = column(&row, "hashes")?;
    Digest::list(&bytes).map_err(|_| StoreError::Unreadable("a tile of the audit log"))
}

async fn write_tile(
    conn: &mut SqliteConnection,
    tile: Tile,
    hashes: &[Digest],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_tiles (level, place, hashes) VALUES ($1, $2, $3)
         ON CONFLICT (level, place) DO UPDATE SET hashes = excluded.hashes",
    )
    .bind(i64::from(tile.level))
    .bind(count(tile.index))
    .bind(Digest::join(hashes))
    .execute(conn)
    .await
    .map(drop)
    .map_err(StoreError::during("write the audit log's tree"))
}
