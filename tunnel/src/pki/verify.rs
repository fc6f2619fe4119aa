//! What TLS asks about certificates: chain, usage, possession, name. Not dates.
//!
//! A date can only be judged with a clock both sides believe, and a refusal inside a TLS handshake
//! is an alert number nobody can act on. So an expired or not-yet-valid certificate of our own CA
//! passes the handshake, and the relay refuses it (or, for a device, lets it renew and nothing
//! else) at `Hello`, with a line and a record. A device whose clock says 1970 can still prove the
//! relay, and takes its time from it.

use std::sync::{Arc, Mutex, PoisonError};

use belay_proto::ids::DeviceId;
use belay_proto::time::UnixTime;
use belay_proto::token::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime as PkiTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyUsage};

use super::identity::{Identity, PeerCertificate};

/// Chains are leaf and CA: more is not looked at.
const MAX_CHAIN: usize = 3;

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn unknown_issuer() -> Error {
    Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn anchor_of<'a>(ca: &'a CertificateDer<'_>) -> Result<TrustAnchor<'a>, Error> {
    webpki::anchor_from_trusted_cert(ca).map_err(|_| unknown_issuer())
}

/// Checks the chain to `ca` at a time inside the leaf's own dates.
fn verify_chain(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    usage: impl ExtendedKeyUsageValidator,
    now: UnixTime,
) -> Result<PeerCertificate, Error> {
    let peer = PeerCertificate::from_der(leaf).map_err(other)?;
    let at = UnixTime(now.0.clamp(peer.not_before.0, peer.not_after.0.max(peer.not_before.0)));
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| bad_encoding())?;
    end_entity
        .verify_for_usage(
            algorithms().all,
            &[anchor_of(ca)?],
            &[],
            PkiTime::since_unix_epoch(std::time::Duration::from_secs(at.0)),
            usage,
            None,
            None,
        )
        .map_err(judge)?;
    Ok(peer)
}

/// Which device of this CA a certificate was issued to, whenever that was.
pub(super) fn issued_device(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
) -> Result<DeviceId, Error> {
    match verify_chain(leaf, ca, KeyUsage::client_auth(), UnixTime(0))?.identity {
        Identity::Device(id) => Ok(id),
        Identity::User { .. } | Identity::Relay { .. } => {
            Err(Error::InvalidCertificate(CertificateError::InvalidPurpose))
        }
    }
}

fn bad_encoding() -> Error {
    Error::InvalidCertificate(CertificateError::BadEncoding)
}

fn judge(error: webpki::Error) -> Error {
    let certificate_error = if matches!(error, webpki::Error::UnknownIssuer) {
        CertificateError::UnknownIssuer
    } else if matches!(error, webpki::Error::InvalidSignatureForPublicKey) {
        CertificateError::BadSignature
    } else {
        CertificateError::Other(OtherError(Arc::new(error)))
    };
    Error::InvalidCertificate(certificate_error)
}

macro_rules! signatures {
    () => {
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
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

/// The relay's question about a dialler: is this one of our certificates, and theirs?
#[derive(Debug)]
pub struct ClientVerifier {
    ca: CertificateDer<'static>,
    hints: Vec<DistinguishedName>,
    mandatory: bool,
}

impl ClientVerifier {
    /// Every dialler must show a certificate (carriers).
    pub fn required(ca: CertificateDer<'static>) -> Arc<Self> {
        Arc::new(Self { ca, hints: Vec::new(), mandatory: true })
    }

    /// A dialler may show a certificate (HTTPS: enrolment and login come without one).
    pub fn optional(ca: CertificateDer<'static>) -> Arc<Self> {
        Arc::new(Self { ca, hints: Vec::new(), mandatory: false })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: PkiTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = UnixTime(now.as_secs());
        let peer = verify_chain(leaf, &self.ca, KeyUsage::client_auth(), now)?;
        match peer.identity {
            Identity::Device(_) | Identity::User { .. } => Ok(ClientCertVerified::assertion()),
            Identity::Relay { .. } => {
                Err(Error::InvalidCertificate(CertificateError::InvalidPurpose))
            }
        }
    }

    signatures!();
}

/// A dialler's question about the relay it enrolled with or logged in to.
#[derive(Debug)]
pub struct RelayVerifier {
    ca: CertificateDer<'static>,
    floor: UnixTime,
}

impl RelayVerifier {
    /// Believes the pinned CA. A relay certificate that had ended before `floor`, the last time an
    /// authenticated relay told us, is refused: an old stolen key does not come back by turning
    /// our clock back.
    pub fn pinned(ca: CertificateDer<'static>, floor: UnixTime) -> Arc<Self> {
        Arc::new(Self { ca, floor })
    }
}

impl ServerCertVerifier for RelayVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: PkiTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_relay(leaf, &self.ca, name, UnixTime(now.as_secs()), self.floor)
    }

    signatures!();
}

fn verify_relay(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
    floor: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let peer = verify_chain(leaf, ca, KeyUsage::server_auth(), now)?;
    if !matches!(peer.identity, Identity::Relay { .. }) {
        return Err(Error::InvalidCertificate(CertificateError::InvalidPurpose));
    }
    if peer.not_after < floor {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    EndEntityCert::try_from(leaf)
        .map_err(|_| bad_encoding())?
        .verify_is_valid_for_subject_name(name)
        .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
    Ok(ServerCertVerified::assertion())
}

/// The very first question: does the relay show the CA whose fingerprint the invitation carries?
#[derive(Debug)]
pub struct FirstContactVerifier {
    fingerprint: Fingerprint,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl FirstContactVerifier {
    /// Believes only this CA.
    pub fn new(fingerprint: Fingerprint) -> Arc<Self> {
        Arc::new(Self { fingerprint, found: Mutex::new(None) })
    }

    /// The CA certificate, once a handshake has succeeded.
    pub fn ca(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for FirstContactVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: PkiTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = chain
            .iter()
            .take(MAX_CHAIN)
            .find(|ca| Fingerprint::of_certificate(ca) == self.fingerprint)
            .ok_or_else(unknown_issuer)?;
        let verified = verify_relay(leaf, ca, name, UnixTime(now.as_secs()), UnixTime(0))?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    signatures!();
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
