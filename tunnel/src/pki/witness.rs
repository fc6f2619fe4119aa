//! Who answers in the relay's place: looked at, and refused.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime as PkiTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Refuses every certificate, and remembers who issued it. No connection comes of it.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Option<String>>);

impl Witness {
    /// One that has seen nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Who issued the certificate that was shown, made printable; `None` when none was.
    pub fn issuer(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: PkiTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Ok((_, certificate)) = X509Certificate::from_der(leaf) {
            let issuer = belay_proto::error_line::printable(&certificate.issuer().to_string());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(issuer);
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("a witness believes nobody".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
