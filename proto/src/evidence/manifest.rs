//! What the relay signs of a bundle: which parts make it up, and by which digests.
//!
//! Each entry in a bundle is proven by the log's checkpoint; that none was left out is not. So the
//! relay signs what it gave, with the log's key, and a bundle from which something was taken later is
//! seen to lack it. The text is a signed note (C2SP signed-note). Its first line has spaces, which no
//! log's name has: it never passes as a checkpoint, nor a checkpoint as it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::audit::{Digest, NoteError, VerifierKey, open};
use crate::grant::VerifySignature;
use crate::ids::SessionId;
use crate::time::UnixTime;

const FIRST: &str = "belay evidence v1";

/// So many things, and a digest over all of them in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// How many.
    pub count: u64,
    /// SHA-256 over their digests, one after the other.
    pub digest: Digest,
}

impl Listed {
    /// Over these digests.
    pub fn of(digests: &[Digest]) -> Self {
        let mut hash = Sha256::new();
        digests.iter().for_each(|digest| hash.update(digest.0));
        Self { count: digests.len() as u64, digest: Digest(hash.finalize().into()) }
    }
}

/// How far a recording went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Bytes of its file.
    pub bytes: u64,
    /// The number of its last segment.
    pub last: u64,
    /// The digest of that one, which names all before it.
    pub head: Digest,
}

/// What makes up a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The log's name.
    pub origin: String,
    /// Of which session.
    pub session: SessionId,
    /// When.
    pub made: UnixTime,
    /// Entries of the log then.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// All entries that name the session, by the hashes of their leaves.
    pub entries: Listed,
    /// All its grants, by their SHA-256.
    pub grants: Listed,
    /// Its recording, when there is one.
    pub recording: Option<Recorded>,
    /// SHA-256 of the deployment CA's certificate, DER.
    pub ca: Digest,
    /// SHA-256 of what the relay says of the session.
    pub facts: Digest,
}

/// A manifest was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text inside.
    #[error("it is signed, but no list of a bundle's parts")]
    Malformed,
    /// It speaks of another log.
    #[error("it is of the log {0}")]
    OtherLog(String),
}

impl Manifest {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{FIRST}\n{}\nsession {}\n", self.origin, self.session);
        let mut line = |args: std::fmt::Arguments<'_>| {
            // A string takes everything.
            text.write_fmt(args).ok();
            text.push('\n');
        };
        line(format_args!("made {}", self.made.0));
        line(format_args!("checkpoint {} {}", self.size, self.root));
        line(format_args!("entries {} {}", self.entries.count, self.entries.digest));
        line(format_args!("grants {} {}", self.grants.count, self.grants.digest));
        match &self.recording {
            Some(Recorded { bytes, last, head }) => {
                line(format_args!("recording {bytes} {last} {head}"));
            }
            None => line(format_args!("recording none")),
        }
        line(format_args!("ca {}", self.ca));
        line(format_args!("facts {}", self.facts));
        text
    }

    /// The manifest in a note that this key has signed.
    ///
    /// # Errors
    /// [`BadManifest`].
    pub fn open(
        note: &str,
        key: &VerifierKey,
        check: &impl VerifySignature,
    ) -> Result<Self, BadManifest> {
        let manifest = Self::parse(open(note, key, check)?).ok_or(BadManifest::Malformed)?;
        if manifest.origin == key.name() {
            Ok(manifest)
        } else {
            Err(BadManifest::OtherLog(manifest.origin))
        }
    }

    /// Reads the text. Lines after those known are of a later version, and passed over.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != FIRST {
            return None;
        }
        let origin = lines.next()?.to_owned();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let session = field("session")?.parse().ok()?;
        let made = UnixTime(field("made")?.parse().ok()?);
        let (size, root) = field("checkpoint")?.split_once(' ')?;
        let (size, root) = (size.parse().ok()?, root.parse().ok()?);
        let entries = listed(field("entries")?)?;
        let grants = listed(field("grants")?)?;
        let recording = match field("recording")? {
            "none" => None,
            recorded => {
                let mut parts = recorded.splitn(3, ' ');
                let bytes = parts.next()?.parse().ok()?;
                let last = parts.next()?.parse().ok()?;
                Some(Recorded { bytes, last, head: parts.next()?.parse().ok()? })
            }
        };
        let ca = field("ca")?.parse().ok()?;
        let facts = field("facts")?.parse().ok()?;
        Some(Self { origin, session, made, size, root, entries, grants, recording, ca, facts })
    }
}

fn listed(text: &str) -> Option<Listed> {
    let (count, digest) = text.split_once(' ')?;
    Some(Listed { count: count.parse().ok()?, digest: digest.parse().ok()? })
}

/// SHA-256, as a manifest has it.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}
