//! Grants as the audit log has them: by their digest, before their device hears of them.

use sha2::{Digest as _, Sha256};

use super::ended::{from_hex, hex};
use crate::audit::Entry;
use crate::error_line::one_line;
use crate::grant::{Grant, SignedGrant, VerifySignature, signed_bytes};
use crate::wire::frame::decode_payload;

/// The kind of entry that says so.
const KIND: &str = "grant-issued";

/// What an entry `grant-issued` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// SHA-256 of the [`SignedGrant`] as sent.
    pub digest: [u8; 32],
    /// The key that signed it: Ed25519, and pinned by the device.
    pub key: [u8; 32],
}

impl Issued {
    /// Of a grant as it is sent, signed by this key.
    pub fn new(signed: &[u8], key: [u8; 32]) -> Self {
        Self { digest: Sha256::digest(signed).into(), key }
    }

    /// What its entry says.
    pub fn detail(&self) -> String {
        format!("SHA-256 {}, by the grant key {}", hex(&self.digest), hex(&self.key))
    }

    /// Of an entry; `None` when it is of another kind, or cannot be read.
    pub fn of(entry: &Entry) -> Option<Self> {
        let detail = entry.detail.as_deref().filter(|_| entry.kind == KIND)?;
        let (of, key) = detail.strip_prefix("SHA-256 ")?.split_once(", by the grant key ")?;
        Some(Self { digest: from_hex(of)?, key: from_hex(key)? })
    }
}

/// Reads a grant that this key signed. That it is over does not matter here.
///
/// # Errors
/// One line that says why it is none.
pub fn read_grant(signed: &[u8], key: &impl VerifySignature) -> Result<Grant, String> {
    let signed: SignedGrant = decode_payload(signed).map_err(|e| one_line(&e))?;
    if !key.verify(&signed_bytes(&signed.grant), &signed.signature) {
        return Err("it is not signed by the key that the log names".to_owned());
    }
    decode_payload(&signed.grant).map_err(|e| one_line(&e))
}
