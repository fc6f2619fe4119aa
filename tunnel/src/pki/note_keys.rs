//! Ed25519 (RFC 8032) for the audit log's checkpoints: the relay signs, anybody verifies.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use belay_proto::audit::{VerifierKey, WitnessKey};
use belay_proto::grant::VerifySignature;
use zeroize::Zeroizing;

/// The log's key could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteKeyError {
    /// The generator failed.
    #[error("cannot make the audit log's key")]
    Make,
    /// The stored key is damaged.
    #[error("the audit log's key is damaged")]
    Read,
}

/// The relay's side.
pub struct NoteSigner(Ed25519KeyPair);

impl NoteSigner {
    /// Makes a key; returns its PKCS#8 DER.
    ///
    /// # Errors
    /// [`NoteKeyError::Make`].
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, NoteKeyError> {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| NoteKeyError::Make)?;
        Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// [`NoteKeyError::Read`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, NoteKeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| NoteKeyError::Read)
    }

    /// The public half.
    ///
    /// # Errors
    /// [`NoteKeyError::Read`] when it has not 32 bytes.
    pub fn public_key(&self) -> Result<[u8; 32], NoteKeyError> {
        self.0.public_key().as_ref().try_into().map_err(|_| NoteKeyError::Read)
    }

    /// Signs a note's text.
    ///
    /// # Errors
    /// [`NoteKeyError::Read`] when the signature has not 64 bytes.
    pub fn sign(&self, text: &str) -> Result<[u8; 64], NoteKeyError> {
        self.0.sign(text.as_bytes()).as_ref().try_into().map_err(|_| NoteKeyError::Read)
    }
}

/// Everybody's side: checks with one log's key, or one witness's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteVerifier([u8; 32]);

impl From<&VerifierKey> for NoteVerifier {
    fn from(key: &VerifierKey) -> Self {
        Self(*key.key())
    }
}

impl From<&WitnessKey> for NoteVerifier {
    fn from(key: &WitnessKey) -> Self {
        Self(*key.key())
    }
}

impl VerifySignature for NoteVerifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}
