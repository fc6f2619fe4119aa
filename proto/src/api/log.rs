//! The audit log.

use serde::{Deserialize, Serialize};

use crate::audit::Digest;

/// The audit log's newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCheckpoint {
    /// [`crate::audit::VerifierKey`] as text. Whoever has seen it before must not take another one.
    pub vkey: String,
    /// Entries it covers.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// The newest one that witnesses have cosigned, which is of fewer entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned: Option<String>,
}

/// Asks for entries of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntriesRequest {
    /// Behind the first so many.
    pub after: u64,
    /// How many at most, 1 to [`crate::audit::MAX_PAGE`].
    pub count: u32,
}

/// Entries of the audit log. None when there are no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntries {
    /// Up to which entry this goes: where to read on from.
    pub upto: u64,
    /// The entries, each the line whose bytes are the leaf; empty for one whose text was pruned, of which
    /// the hash in `leaves` is what is left.
    pub entries: Vec<String>,
    /// The hash of each leaf, as the tree has it.
    pub leaves: Vec<Digest>,
    /// Checkpoints that were signed when the log was so long as within this part.
    pub checkpoints: Vec<String>,
}

/// Asks for a proof that a longer log begins with a shorter one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConsistencyRequest {
    /// Entries of the shorter one.
    pub old: u64,
    /// Entries of the longer one.
    pub new: u64,
}

/// Asks for a proof that an entry is in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogInclusionRequest {
    /// The entry's number, from 1. The leaf's index is one less.
    pub seq: u64,
    /// Entries of the log it is to be proven in.
    pub size: u64,
}

/// A proof of RFC 6962 §2.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// Its hashes, in the order of the RFC.
    pub hashes: Vec<Digest>,
}
