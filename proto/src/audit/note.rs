//! Signed notes (C2SP signed-note): a text, and below it who signed it.
//!
//! ```text
//! text, of whole lines
//!
//! — NAME BASE64(key number || Ed25519 signature)
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::digest::short;
use crate::grant::VerifySignature;

/// Longest note read, in bytes: room for a checkpoint and dozens of witnesses' signatures.
pub const MAX_NOTE: usize = 16 * 1024;

/// Longest name of a key, in bytes.
const MAX_NAME: usize = 255;

/// Ed25519, in verifier keys.
const ED25519: u8 = 1;

/// A log's name and public key: what an auditor has to know beforehand. As text, the *vkey* of
/// signed-note: `NAME+NUMBER+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; 32],
}

/// A verifier key cannot be read, or made of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log's key is written NAME+NUMBER+KEY, without spaces, for Ed25519")]
pub struct BadKey;

impl VerifierKey {
    /// The key of a log of this name.
    ///
    /// # Errors
    /// [`BadKey`] when the name is empty, long, or has a space, a plus or a control character.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, BadKey> {
        let acts = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > MAX_NAME || name.contains(acts) {
            return Err(BadKey);
        }
        Ok(Self { name: name.to_owned(), key })
    }

    /// The log's name, which is the checkpoint's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The key's number: what tells keys of one name apart.
    pub fn number(&self) -> u32 {
        short(&[self.name.as_bytes(), b"\n", &[ED25519], &self.key])
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], self.key.as_slice()].concat());
        write!(f, "{}+{:08x}+{key}", self.name, self.number())
    }
}

impl FromStr for VerifierKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(BadKey);
        let (name, number, key) = (part()?, part()?, part()?);
        let key = STANDARD.decode(key).map_err(|_| BadKey)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(BadKey) };
        let key = Self::new(name, key.try_into().map_err(|_| BadKey)?)?;
        if format!("{:08x}", key.number()) != number {
            return Err(BadKey);
        }
        Ok(key)
    }
}

/// A note is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not of the form of a signed note.
    #[error("it is not a signed note")]
    Malformed,
    /// Signed, but not by this key.
    #[error("it is signed by {by}, not by the log's key")]
    OtherKey {
        /// By whom, as it says.
        by: String,
    },
    /// This key's signature is there and wrong.
    #[error("its signature is wrong: it was changed after it was signed, or never signed")]
    Signature,
}

/// A note of a text of whole lines and one signature.
pub fn seal(text: &str, key: &VerifierKey, signature: &[u8; 64]) -> String {
    let signed = [key.number().to_be_bytes().as_slice(), signature].concat();
    format!("{text}\n\u{2014} {} {}\n", key.name, STANDARD.encode(signed))
}

/// Names, and under each the number of its key and what it signed with.
pub(super) type Signatures<'n> = Vec<(&'n str, Vec<u8>)>;

/// Takes a note apart: its text, and who signed it.
pub(super) fn parts(note: &str) -> Result<(&str, Signatures<'_>), NoteError> {
    if note.len() > MAX_NOTE || note.contains(|c: char| c.is_control() && c != '\n') {
        return Err(NoteError::Malformed);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (note.get(..=at), note.get(at + 2..));
    let (Some(text), Some(signatures)) = (text, signatures) else {
        return Err(NoteError::Malformed);
    };
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(NoteError::Malformed);
    }
    let mut all = Vec::new();
    for line in signatures.lines() {
        let line = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed)?;
        let (name, bytes) = line.split_once(' ').ok_or(NoteError::Malformed)?;
        let bytes = STANDARD.decode(bytes).map_err(|_| NoteError::Malformed)?;
        if bytes.len() < 4 {
            return Err(NoteError::Malformed);
        }
        all.push((name, bytes));
    }
    Ok((text, all))
}

/// The text of a note that this key has signed. Other signatures are passed over.
///
/// # Errors
/// [`NoteError`].
pub fn open<'n>(
    note: &'n str,
    key: &VerifierKey,
    check: &impl VerifySignature,
) -> Result<&'n str, NoteError> {
    let (text, signatures) = parts(note)?;
    let mut others = Vec::new();
    for (name, bytes) in signatures {
        let (number, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        let number = u32::from_be_bytes(*number);
        if name == key.name && number == key.number() {
            let good = check.verify(text.as_bytes(), signature);
            return if good { Ok(text) } else { Err(NoteError::Signature) };
        }
        others.push(format!("{name}+{number:08x}"));
    }
    Err(NoteError::OtherKey { by: others.join(", ") })
}

/// The notes of a text with one after the other, as a witness keeps them. Lines between them that
/// are empty do not matter; what is left over at the end, a note cut short, is returned last.
pub fn notes(text: &str) -> Vec<String> {
    let (mut all, mut one, mut signed) = (Vec::new(), String::new(), false);
    for line in text.split_inclusive('\n') {
        let signature = line.starts_with('\u{2014}');
        if signed && !signature {
            all.push(std::mem::take(&mut one));
        }
        signed = signature;
        if !(one.is_empty() && line == "\n") {
            one.push_str(line);
        }
    }
    if !one.is_empty() {
        all.push(one);
    }
    all
}
