//! The private key behind a TLS certificate: ECDSA on P-256, made where it is used.

use std::fmt;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// A key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator failed.
    #[error("cannot make a key")]
    Make(#[source] rcgen::Error),
    /// The stored key is damaged.
    #[error("the key file is damaged")]
    Read(#[source] rcgen::Error),
    /// A request could not be made.
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
}

/// A private key.
pub struct TlsKey(KeyPair);

impl TlsKey {
    /// Makes one.
    ///
    /// # Errors
    /// [`KeyError::Make`].
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate().map(Self).map_err(KeyError::Make)
    }

    /// Reads PKCS#8 PEM (RFC 5958, RFC 7468).
    ///
    /// # Errors
    /// [`KeyError::Read`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pem(pem).map(Self).map_err(KeyError::Read)
    }

    /// PKCS#8 PEM, for a private file.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// For rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// A certificate request (PKCS #10, RFC 2986) in DER. It proves possession and asks for
    /// nothing: what the certificate says, the relay decides.
    ///
    /// # Errors
    /// [`KeyError::Request`].
    pub fn request_der(&self) -> Result<Vec<u8>, KeyError> {
        let request =
            CertificateParams::default().serialize_request(&self.0).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// The same in PEM.
    ///
    /// # Errors
    /// [`KeyError::Request`].
    pub fn request_pem(&self) -> Result<String, KeyError> {
        CertificateParams::default()
            .serialize_request(&self.0)
            .and_then(|request| request.pem())
            .map_err(KeyError::Request)
    }

    pub(super) const fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey(***)")
    }
}

/// A certificate in PEM (RFC 7468), as files hold it.
pub fn certificate_to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
