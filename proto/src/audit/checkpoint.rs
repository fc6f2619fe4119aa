//! Checkpoints (C2SP tlog-checkpoint): how long the log is, and the root over all of it.

use super::digest::{Digest, empty_root};
use super::note::{NoteError, VerifierKey, open, seal};
use crate::grant::VerifySignature;

/// What the log's key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

/// A checkpoint was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text inside.
    #[error("it is signed, but no checkpoint")]
    Malformed,
    /// It speaks of another log.
    #[error("it is of the log {0}")]
    OtherLog(String),
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// The signed note of this checkpoint.
    pub fn seal(&self, key: &VerifierKey, signature: &[u8; 64]) -> String {
        seal(&self.text(), key, signature)
    }

    /// The checkpoint in a note that this key has signed.
    ///
    /// # Errors
    /// [`BadCheckpoint`].
    pub fn open(
        note: &str,
        key: &VerifierKey,
        check: &impl VerifySignature,
    ) -> Result<Self, BadCheckpoint> {
        let checkpoint = Self::parse(open(note, key, check)?)?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(BadCheckpoint::OtherLog(checkpoint.origin))
        }
    }

    /// Reads the text. Lines after the first three are extensions and passed over.
    fn parse(text: &str) -> Result<Self, BadCheckpoint> {
        let mut lines = text.lines();
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let (Some(origin), Some(size), Some(root)) = (line(), line(), line()) else {
            return Err(BadCheckpoint::Malformed);
        };
        let number: u64 = size.parse().map_err(|_| BadCheckpoint::Malformed)?;
        let root: Digest = root.parse().map_err(|_| BadCheckpoint::Malformed)?;
        let canonical = number.to_string() == size && (number > 0 || root == empty_root());
        if !canonical || lines.any(str::is_empty) {
            return Err(BadCheckpoint::Malformed);
        }
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}
