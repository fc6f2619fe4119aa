//! Inclusion and consistency proofs, made (RFC 6962 §2.1.1, §2.1.2) and checked (RFC 9162
//! §2.1.3.2, §2.1.4.2).
//!
//! A proof is planned first: which subtrees it takes, so that whoever holds the hashes can fetch
//! them, then filled in.

use super::digest::{Digest, node_hash};
use super::tree::{Hashes, Node, fold, subtrees};

/// What a proof is made of, in its order: each part is one hash, over these neighbouring subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<Vec<Node>>);

impl Plan {
    /// Every subtree whose hash is needed: fewer than `log2(size)` squared.
    pub fn needs(&self) -> impl Iterator<Item = Node> + '_ {
        self.0.iter().flatten().copied()
    }

    /// The proof; `None` when a hash is missing.
    pub fn fill(&self, hashes: &impl Hashes) -> Option<Vec<Digest>> {
        let part = |nodes: &Vec<Node>| {
            let found: Option<Vec<Digest>> = nodes.iter().map(|node| hashes.hash(*node)).collect();
            found.map(|found| fold(&found))
        };
        self.0.iter().map(part).collect()
    }
}

/// The largest power of two below `n`, which is at least 2.
const fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The plan of a proof that leaf `index` is in the tree of `size` leaves; `None` when it is not.
pub fn plan_inclusion(index: u64, size: u64) -> Option<Plan> {
    if index >= size {
        return None;
    }
    let (mut from, mut to, mut parts) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            parts.push(subtrees(middle, to));
            to = middle;
        } else {
            parts.push(subtrees(from, middle));
            from = middle;
        }
    }
    parts.reverse();
    Some(Plan(parts))
}

/// The plan of a proof that the tree of `new` leaves begins with the one of `old`; `None` when
/// there is none: of a tree without leaves, or of a larger one.
pub fn plan_consistency(old: u64, new: u64) -> Option<Plan> {
    if old == 0 || old > new {
        return None;
    }
    let (mut from, mut to, mut parts) = (0, new, Vec::new());
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            parts.push(subtrees(middle, to));
            to = middle;
        } else {
            parts.push(subtrees(from, middle));
            from = middle;
        }
    }
    // Whoever asks knows the old root, so it is left out where it is a subtree by itself.
    if from > 0 {
        parts.push(subtrees(from, to));
    }
    parts.reverse();
    Some(Plan(parts))
}

/// Whether `proof` shows that `leaf` is at `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion(
    leaf: Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last, mut hash) = (index, size - 1, leaf);
    for part in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(*part, hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(hash, *part);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether `proof` shows that the tree of `new` leaves and root `new_root` begins with the one of
/// `old` leaves and root `old_root`. Every tree begins with the empty one.
pub fn verify_consistency(
    old: u64,
    old_root: Digest,
    new: u64,
    new_root: Digest,
    proof: &[Digest],
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && old_root == super::digest::empty_root();
    }
    let mut parts = proof.iter().copied();
    let first = if old.is_power_of_two() { Some(old_root) } else { parts.next() };
    let Some(first) = first else { return false };
    let (mut place, mut last) = (old - 1, new - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut was, mut is) = (first, first);
    for part in parts {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            was = node_hash(part, was);
            is = node_hash(part, is);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            is = node_hash(is, part);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && was == old_root && is == new_root
}
