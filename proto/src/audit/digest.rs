//! SHA-256 as RFC 6962 §2.1 uses it: leaves and nodes never share a hash.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A hash of the tree. As text: base64 (RFC 4648 §4), as checkpoints carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// The text is not 32 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 32 bytes in base64")]
pub struct BadDigest;

impl Digest {
    /// Hashes that lie side by side, as in a tile.
    ///
    /// # Errors
    /// [`BadDigest`] when the bytes are not a multiple of 32.
    pub fn list(bytes: &[u8]) -> Result<Vec<Self>, BadDigest> {
        let chunks = bytes.chunks(32);
        chunks.map(|chunk| chunk.try_into().map(Self).map_err(|_| BadDigest)).collect()
    }

    /// The other way round.
    pub fn join(hashes: &[Self]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.0).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bytes = STANDARD.decode(text).map_err(|_| BadDigest)?;
        bytes.try_into().map(Self).map_err(|_| BadDigest)
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// The hash of a leaf: `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    sha256(&[&[0], entry])
}

/// The hash of a node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: Digest, right: Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}

/// The root of a tree without leaves: `SHA-256()`.
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// The first four bytes of `SHA-256(parts)`, which is how signed-note numbers keys.
pub(super) fn short(parts: &[&[u8]]) -> u32 {
    let [a, b, c, d, ..] = sha256(parts).0;
    u32::from_be_bytes([a, b, c, d])
}
