//! Cosignatures of witnesses (C2SP [tlog-cosignature](https://c2sp.org/tlog-cosignature), Ed25519): who
//! signs one says that up to then it has seen one history of the log, and when.
//!
//! ```text
//! signed:  cosignature/v1
//!          time SECONDS
//!          the checkpoint's text
//! in the note:  — NAME BASE64(key number || seconds, 8 bytes || Ed25519 signature)
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::digest::short;
use super::note::{BadKey, NoteError, VerifierKey, parts};
use crate::grant::VerifySignature;
use crate::time::UnixTime;

/// Timestamped Ed25519 cosignatures, in verifier keys.
const COSIGNATURE: u8 = 4;

/// A witness's name and public key, as a *vkey* of its own kind: `NAME+NUMBER+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    key: [u8; 32],
}

impl WitnessKey {
    /// The key of a witness of this name.
    ///
    /// # Errors
    /// [`BadKey`] when the name is empty, long, or has a space, a plus or a control character.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, BadKey> {
        let checked = VerifierKey::new(name, key)?;
        Ok(Self { name: checked.name().to_owned(), key })
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The key's number: what tells keys of one name apart.
    pub fn number(&self) -> u32 {
        short(&[self.name.as_bytes(), b"\n", &[COSIGNATURE], &self.key])
    }

    /// When this witness cosigned a note; `None` when it did not. The note's own signature is not
    /// looked at.
    ///
    /// # Errors
    /// [`NoteError`]: it is no note, or a cosignature with this key's name and number is wrong.
    pub fn cosigned(
        &self,
        note: &str,
        check: &impl VerifySignature,
    ) -> Result<Option<UnixTime>, NoteError> {
        let (text, signatures) = parts(note)?;
        let mine = |(name, bytes): &(&str, Vec<u8>)| {
            *name == self.name && bytes.starts_with(&self.number().to_be_bytes())
        };
        let Some((_, bytes)) = signatures.into_iter().find(mine) else { return Ok(None) };
        let bytes = bytes.get(4..).unwrap_or_default();
        let (time, signature) = bytes.split_first_chunk::<8>().ok_or(NoteError::Signature)?;
        let time = UnixTime(u64::from_be_bytes(*time));
        if check.verify(cosigned_text(time, text).as_bytes(), signature) {
            Ok(Some(time))
        } else {
            Err(NoteError::Signature)
        }
    }

    /// The line of a note that says that this witness signed [`cosigned_text`].
    pub fn line(&self, time: UnixTime, signature: &[u8; 64]) -> String {
        let number = self.number().to_be_bytes();
        let signed = [number.as_slice(), &time.0.to_be_bytes(), signature].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(signed))
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[COSIGNATURE], self.key.as_slice()].concat());
        write!(f, "{}+{:08x}+{key}", self.name, self.number())
    }
}

impl FromStr for WitnessKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(BadKey);
        let (name, number, key) = (part()?, part()?, part()?);
        let key = STANDARD.decode(key).map_err(|_| BadKey)?;
        let Some((&COSIGNATURE, key)) = key.split_first() else { return Err(BadKey) };
        let key = Self::new(name, key.try_into().map_err(|_| BadKey)?)?;
        if format!("{:08x}", key.number()) != number {
            return Err(BadKey);
        }
        Ok(key)
    }
}

/// What a witness signs at this time for a note with this text.
pub fn cosigned_text(time: UnixTime, text: &str) -> String {
    format!("cosignature/v1\ntime {}\n{text}", time.0)
}

/// A note with more signatures below those it has; one that is there already is not repeated.
///
/// # Errors
/// [`NoteError`] when it would be no note.
pub fn with_signatures(note: &str, lines: &str) -> Result<String, NoteError> {
    let mut signed = note.to_owned();
    for line in lines.split_inclusive('\n') {
        if !signed.split_inclusive('\n').any(|had| had == line) {
            signed.push_str(line);
        }
    }
    parts(&signed)?;
    Ok(signed)
}

/// Who signed a note, as it says: names, in their order.
///
/// # Errors
/// [`NoteError`] when it is no note.
pub fn signers(note: &str) -> Result<Vec<String>, NoteError> {
    let (_, signatures) = parts(note)?;
    Ok(signatures.into_iter().map(|(name, _)| name.to_owned()).collect())
}
