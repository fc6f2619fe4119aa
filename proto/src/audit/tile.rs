//! Tiles: where the hashes of the tree lie, 256 side by side (C2SP tlog-tiles, height 8).
//!
//! Tile level 0 has leaves, level 1 the roots of complete tiles of level 0, and so on. What lies
//! between is computed when it is asked for.

use super::digest::Digest;
use super::tree::{Node, fold};

/// Levels of the tree in one tile.
const HEIGHT: u8 = 8;

/// Hashes in a whole tile.
pub const TILE_WIDTH: u64 = 1 << HEIGHT;

/// A tile, whole or the part of it that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Its level: hashes of subtrees of `256^level` leaves.
    pub level: u8,
    /// Its place among those of its level.
    pub index: u64,
}

impl Tile {
    /// The tile that a subtree's hash is in, or computed from.
    pub const fn of(node: Node) -> Self {
        let up = node.level % HEIGHT;
        Self { level: node.level / HEIGHT, index: (node.index << up) / TILE_WIDTH }
    }

    /// Whether the hash of a subtree of [`Tile::of`] this tile lies in it as it is, and is not
    /// computed.
    pub const fn holds(self, node: Node) -> bool {
        node.level == self.level * HEIGHT
    }

    /// The hash of a subtree of [`Tile::of`] this tile, whose hashes these are; `None` when they
    /// do not reach so far.
    pub fn hash(self, hashes: &[Digest], node: Node) -> Option<Digest> {
        let up = node.level % HEIGHT;
        let first = usize::try_from((node.index << up) % TILE_WIDTH).ok()?;
        let mut row = hashes.get(first..first + (1 << up))?.to_vec();
        while row.len() > 1 {
            row = row.chunks(2).map(fold).collect();
        }
        row.first().copied()
    }
}

/// The tiles that are not whole in a tree of `size` leaves, and how many hashes each has.
pub fn partial_tiles(size: u64) -> Vec<(Tile, u64)> {
    let mut tiles = Vec::new();
    let (mut level, mut hashes) = (0, size);
    while hashes > 0 {
        if hashes % TILE_WIDTH > 0 {
            let tile = Tile { level, index: hashes / TILE_WIDTH };
            tiles.push((tile, hashes % TILE_WIDTH));
        }
        level += 1;
        hashes /= TILE_WIDTH;
    }
    tiles
}
