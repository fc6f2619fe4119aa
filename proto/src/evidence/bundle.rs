//! A bundle: one file of JSON lines, each one [`Part`].
//!
//! What it is not: a bundle that was read proves nothing yet; see [`super::examine()`].

use serde::{Deserialize, Serialize};

use super::MAX_ENTRIES;
use crate::api::LogProven;
use crate::audit::{Digest, MAX_ENTRY, MAX_NOTE};

/// The format's number, in the first line.
pub(super) const FORMAT: u32 = 1;

/// Bytes of a recording in one line, in base64 a third more.
pub(super) const RECORDING_PIECE: usize = 48 * 1024;

/// Digests of entries in one line.
pub(super) const LISTED_PIECE: usize = 1024;

/// Longest line in bytes: a piece of a recording or a list of digests, and some.
pub const MAX_LINE: usize = 128 * 1024;

/// Longest recording taken, in bytes: a day of work is some ten megabytes.
pub const MAX_RECORDING: usize = 1024 * 1024 * 1024;

/// Longest grant, certificate and list of facts, in bytes.
const MAX_SMALL: usize = 64 * 1024;

/// Checkpoints of before, at most.
const MAX_BEFORE: usize = 1024;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The format's number, 1. The first line.
    BelayEvidence(u32),
    /// The log's key, [`crate::audit::VerifierKey`] as text.
    Vkey(String),
    /// [`super::Manifest`] as a signed note.
    Manifest(String),
    /// The checkpoint of the manifest's size.
    Checkpoint(String),
    /// A checkpoint from before that this one goes on from.
    Before(Before),
    /// What the relay says of the session: a JSON object as text.
    Facts(String),
    /// The deployment CA's certificate: DER in base64.
    Ca(String),
    /// A grant as its device was sent it ([`crate::grant::SignedGrant`]), in base64.
    Grant(String),
    /// Numbers of entries and the hashes of their leaves, in order: those the manifest lists.
    Listed(Vec<(u64, Digest)>),
    /// An entry of the log, and the proof that it has it.
    Entry(LogProven),
    /// The next bytes of the recording's file, in base64.
    Recording(String),
}

/// A checkpoint of before, and the proof (RFC 6962 §2.1.2) that the bundle's log begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The signed note.
    pub note: String,
    /// The proof.
    pub hashes: Vec<Digest>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// See [`Part`].
    pub vkey: String,
    /// See [`Part`].
    pub manifest: String,
    /// See [`Part`].
    pub checkpoint: String,
    /// See [`Part`].
    pub before: Vec<Before>,
    /// See [`Part`].
    pub facts: String,
    /// DER.
    pub ca: Vec<u8>,
    /// Each as sent.
    pub grants: Vec<Vec<u8>>,
    /// See [`Part`].
    pub listed: Vec<(u64, Digest)>,
    /// See [`Part`].
    pub entries: Vec<LogProven>,
    /// The file; empty when there is none.
    pub recording: Vec<u8>,
}

/// A file is no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBundle {
    /// The first line.
    #[error("it does not begin as one")]
    Beginning,
    /// A format of a later build.
    #[error("it has format {0}; this build knows {FORMAT}")]
    Format(u32),
    /// Something stands there twice.
    #[error("it has two of what there is one of")]
    Twice,
    /// Base64.
    #[error("it has a part that cannot be read")]
    Unreadable,
    /// Larger than any.
    #[error("it has more than any bundle")]
    TooMuch,
}

impl Bundle {
    /// Takes the next line. `first` says that it is the first one.
    ///
    /// # Errors
    /// [`NoBundle`].
    pub fn take(&mut self, part: Part, first: bool) -> Result<(), NoBundle> {
        if first {
            let Part::BelayEvidence(format) = part else { return Err(NoBundle::Beginning) };
            return if format == FORMAT { Ok(()) } else { Err(NoBundle::Format(format)) };
        }
        match part {
            Part::BelayEvidence(_) => Err(NoBundle::Twice),
            Part::Vkey(text) => once(&mut self.vkey, text, MAX_NOTE),
            Part::Manifest(text) => once(&mut self.manifest, text, MAX_NOTE),
            Part::Checkpoint(text) => once(&mut self.checkpoint, text, MAX_NOTE),
            Part::Facts(text) => once(&mut self.facts, text, MAX_SMALL),
            Part::Before(before) => {
                let bounded = before.note.len() <= MAX_NOTE && before.hashes.len() <= 128;
                push(&mut self.before, before, if bounded { MAX_BEFORE } else { 0 })
            }
            Part::Ca(text) => {
                if !self.ca.is_empty() {
                    return Err(NoBundle::Twice);
                }
                self.ca = bytes(&text, MAX_SMALL)?;
                Ok(())
            }
            Part::Grant(text) => push(&mut self.grants, bytes(&text, MAX_SMALL)?, MAX_ENTRIES),
            Part::Listed(mut list) => {
                self.listed.append(&mut list);
                if self.listed.len() > MAX_ENTRIES { Err(NoBundle::TooMuch) } else { Ok(()) }
            }
            Part::Entry(entry) => {
                let bounded = entry.entry.len() <= 2 * MAX_ENTRY && entry.hashes.len() <= 64;
                push(&mut self.entries, entry, if bounded { 2 * MAX_ENTRIES } else { 0 })
            }
            Part::Recording(text) => {
                let piece = bytes(&text, MAX_LINE)?;
                if self.recording.len() + piece.len() > MAX_RECORDING {
                    return Err(NoBundle::TooMuch);
                }
                self.recording.extend_from_slice(&piece);
                Ok(())
            }
        }
    }

    /// The lines, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let head = [
            Part::BelayEvidence(FORMAT),
            Part::Vkey(self.vkey.clone()),
            Part::Manifest(self.manifest.clone()),
            Part::Checkpoint(self.checkpoint.clone()),
        ];
        let recording = self.recording.chunks(RECORDING_PIECE);
        head.into_iter()
            .chain(self.before.iter().cloned().map(Part::Before))
            .chain([Part::Facts(self.facts.clone()), Part::Ca(base64(&self.ca))])
            .chain(self.grants.iter().map(|grant| Part::Grant(base64(grant))))
            .chain(self.listed.chunks(LISTED_PIECE).map(|list| Part::Listed(list.to_vec())))
            .chain(self.entries.iter().cloned().map(Part::Entry))
            .chain(recording.map(|piece| Part::Recording(base64(piece))))
    }
}

/// Bytes as they stand in a bundle and in the relay's answers.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The other way round; `None` when it is no base64.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn bytes(text: &str, most: usize) -> Result<Vec<u8>, NoBundle> {
    if text.len() > 2 * most {
        return Err(NoBundle::TooMuch);
    }
    from_base64(text).ok_or(NoBundle::Unreadable)
}

fn once(slot: &mut String, text: String, most: usize) -> Result<(), NoBundle> {
    if !slot.is_empty() {
        return Err(NoBundle::Twice);
    }
    if text.len() > most {
        return Err(NoBundle::TooMuch);
    }
    *slot = text;
    Ok(())
}

fn push<T>(list: &mut Vec<T>, one: T, most: usize) -> Result<(), NoBundle> {
    if list.len() >= most {
        return Err(NoBundle::TooMuch);
    }
    list.push(one);
    Ok(())
}
