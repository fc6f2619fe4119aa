//! The shape of the tree: complete subtrees, and the right edge that a growing log has to keep.

use std::collections::BTreeMap;

use super::digest::{Digest, empty_root, node_hash};

/// A complete subtree: `2^level` leaves, the first of them `index << level`. Level 0 is a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its height.
    pub level: u8,
    /// Its place among those of its height.
    pub index: u64,
}

/// Where the hashes of complete subtrees are looked up.
pub trait Hashes {
    /// The hash, when it is there.
    fn hash(&self, node: Node) -> Option<Digest>;
}

impl Hashes for BTreeMap<Node, Digest> {
    fn hash(&self, node: Node) -> Option<Digest> {
        self.get(&node).copied()
    }
}

/// The complete subtrees, largest first, that have exactly the leaves `from..to`. `from` is where
/// the proofs of RFC 6962 cut: a multiple of the largest power of two that fits.
pub fn subtrees(mut from: u64, to: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    while from < to {
        let fits = (to - from).ilog2();
        let level = if from == 0 { fits } else { fits.min(from.trailing_zeros()) };
        // Below 64, as any logarithm of a u64.
        nodes.push(Node { level: u8::try_from(level).unwrap_or(u8::MAX), index: from >> level });
        from += 1 << level;
    }
    nodes
}

/// The root over neighbouring complete subtrees, largest first; of none, the empty root.
pub fn fold(hashes: &[Digest]) -> Digest {
    let mut right_to_left = hashes.iter().rev().copied();
    let Some(last) = right_to_left.next() else { return empty_root() };
    right_to_left.fold(last, |right, left| node_hash(left, right))
}

/// The right edge of a tree: all that is needed to let it grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One for each one-bit of `size`, the largest first.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The right edge of a tree of `size` leaves whose hashes are known; `None` when one is not.
    pub fn of(size: u64, hashes: &impl Hashes) -> Option<Self> {
        let peaks = subtrees(0, size).into_iter().map(|node| hashes.hash(node));
        Some(Self { size, peaks: peaks.collect::<Option<_>>()? })
    }

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        fold(&self.peaks)
    }

    /// Adds a leaf. `completed` hears each subtree that it completes, the leaf itself first.
    pub fn append(&mut self, leaf: Digest, mut completed: impl FnMut(Node, Digest)) {
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        completed(node, hash);
        while node.index & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node_hash(left, hash);
            node = Node { level: node.level + 1, index: node.index >> 1 };
            completed(node, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }
}
