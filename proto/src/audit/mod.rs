//! The audit log: a list of entries that only grows, under a Merkle tree whose root is signed.
//!
//! Its law: the tree is the one of RFC 6962 §2.1, the signed statement about it is a C2SP
//! [tlog-checkpoint](https://c2sp.org/tlog-checkpoint) in a
//! [signed-note](https://c2sp.org/signed-note), its hashes lie in tiles as
//! [tlog-tiles](https://c2sp.org/tlog-tiles) has them; so that other people's programs can check
//! what ours wrote. Everything here is pure: hashes are handed in, signatures are checked through a
//! trait. What it is not: it stores nothing and reads nothing.
//!
//! | room | what it is |
//! |---|---|
//! | `digest` | hashes of leaves and nodes |
//! | `tree` | the right edge of a growing tree; which complete subtrees make up a range |
//! | `proof` | inclusion and consistency, made and checked |
//! | `tile` | where a node's hash lies |
//! | `note` `checkpoint` `cosignature` | what is signed, by whom, and who else stands by it |
//! | `entry` | one line of the log |
//! | `compare` `review` | what was done to a copy: which entries, and what |

mod checkpoint;
mod compare;
mod cosignature;
mod digest;
mod entry;
mod note;
mod proof;
mod review;
mod tile;
mod tree;

pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use compare::{Difference, compare};
pub use cosignature::{WitnessKey, cosigned_text, signers, with_signatures};
pub use digest::{BadDigest, Digest, empty_root, leaf_hash, node_hash};
pub use entry::{Entry, pruned_detail, pruned_upto, seq_of};
pub use note::{BadKey, MAX_NOTE, NoteError, VerifierKey, notes, open, seal};
pub use proof::{Plan, plan_consistency, plan_inclusion, verify_consistency, verify_inclusion};
pub use review::{Finding, Report, Review};
pub use tile::{TILE_WIDTH, Tile, partial_tiles};
pub use tree::{Frontier, Hashes, Node, fold, subtrees};

/// Longest entry in bytes: 1,024 bytes of detail, each of them a quotation mark at worst, names,
/// identifiers and keys.
pub const MAX_ENTRY: usize = 4096;

/// Most entries in one answer of the relay: 4 MiB of the longest ones.
pub const MAX_PAGE: u32 = 1024;
