//! Ed25519 (RFC 8032) for grants: the relay signs, devices verify with pinned keys.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use belay_proto::grant::{Grant, SignedGrant, VerifySignature, signed_bytes};
use zeroize::Zeroizing;

/// A grant key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum GrantKeyError {
    /// The generator failed.
    #[error("cannot make a grant key")]
    Make,
    /// The stored key is damaged.
    #[error("the grant key file is damaged")]
    Read,
    /// A public key has not 32 bytes.
    #[error("a grant key has 32 bytes; this one has {0}")]
    Length(usize),
    /// The grant does not encode.
    #[error("cannot encode a grant: {0}")]
    Encode(String),
}

/// The relay's side.
pub struct GrantSigner(Ed25519KeyPair);

impl GrantSigner {
    /// Makes a key; returns its PKCS#8 DER.
    ///
    /// # Errors
    /// [`GrantKeyError::Make`].
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, GrantKeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| GrantKeyError::Make)?;
        Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// [`GrantKeyError::Read`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, GrantKeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| GrantKeyError::Read)
    }

    /// The key devices pin.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        for (slot, byte) in key.iter_mut().zip(self.0.public_key().as_ref()) {
            *slot = *byte;
        }
        key
    }

    /// Signs a grant; returns the encoded [`SignedGrant`].
    ///
    /// # Errors
    /// [`GrantKeyError::Encode`].
    pub fn sign(&self, grant: &Grant) -> Result<Vec<u8>, GrantKeyError> {
        let encoded = minicbor::to_vec(grant).map_err(|e| GrantKeyError::Encode(e.to_string()))?;
        let signature = self.0.sign(&signed_bytes(&encoded)).as_ref().to_vec();
        minicbor::to_vec(SignedGrant { grant: encoded.into(), signature: signature.into() })
            .map_err(|e| GrantKeyError::Encode(e.to_string()))
    }
}

/// The device's side.
#[derive(Debug, Clone, Default)]
pub struct GrantVerifier(Vec<[u8; 32]>);

impl GrantVerifier {
    /// Trusts these raw public keys.
    ///
    /// # Errors
    /// [`GrantKeyError::Length`].
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, GrantKeyError> {
        keys.into_iter()
            .map(|key| {
                let key = key.as_ref();
                key.try_into().map_err(|_| GrantKeyError::Length(key.len()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl VerifySignature for GrantVerifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0
            .iter()
            .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok())
    }
}
