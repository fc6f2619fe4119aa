//! The deployment CA: makes itself once, then issues to keys that prove possession.

use std::time::Duration;

use aws_lc_rs::rand;
use belay_proto::limits::CERT_BACKDATE;
use belay_proto::time::UnixTime;
use belay_proto::token::Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKey, SanType,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;

use super::identity::Identity;
use super::key::{KeyError, TlsKey};

/// The CA's own life. A device that slept for years must still find it valid.
const CA_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Certificate requests above this many bytes are not parsed; ours have under 300.
const MAX_REQUEST: usize = 4096;

/// A certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's own files are damaged.
    #[error("the CA's certificate or key is damaged")]
    Damaged(#[source] rcgen::Error),
    /// Making the CA failed.
    #[error("cannot make the CA")]
    Make(#[source] rcgen::Error),
    /// The CA's key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request is not one, or does not prove possession of its key.
    #[error("the certificate request is malformed or does not prove possession of its key")]
    Request,
    /// Signing failed.
    #[error("cannot issue a certificate")]
    Issue(#[source] rcgen::Error),
    /// No randomness for a serial number.
    #[error("the system gave no random numbers")]
    Random,
}

/// The deployment CA with its private key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

impl CertificateAuthority {
    /// Makes a CA for a relay of this name. Returns it with its private key to store.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn generate(name: &str, now: UnixTime) -> Result<(Self, TlsKey), AuthorityError> {
        let key = TlsKey::generate()?;
        let mut params = params_for(&format!("Belay CA of {name}"), now, CA_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(key.pair()).map_err(AuthorityError::Make)?;
        let ca = Self::load(&certificate.pem(), &key.to_pem())?;
        Ok((ca, key))
    }

    /// Loads it from PEM.
    ///
    /// # Errors
    /// [`AuthorityError::Damaged`], [`AuthorityError::Key`].
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Damaged)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| AuthorityError::Damaged(rcgen::Error::CouldNotParseCertificate))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Damaged)?;
        Ok(Self { issuer, certificate, certificate_pem: certificate_pem.to_owned() })
    }

    /// Its certificate in DER.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What invitations carry.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_certificate(&self.certificate)
    }

    /// Issues to the key of a request; nothing else of the request is believed.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] when it does not prove possession.
    pub fn issue_for_request(
        &self,
        request: &[u8],
        identity: &Identity,
        now: UnixTime,
        life: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let key = requested_key(request)?;
        self.issue(&key, identity, now, life)
    }

    /// Issues to a key held in this process: the relay's own.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue_for_key(
        &self,
        key: &TlsKey,
        identity: &Identity,
        now: UnixTime,
        life: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        self.issue(key.pair(), identity, now, life)
    }

    fn issue(
        &self,
        key: &impl rcgen::PublicKeyData,
        identity: &Identity,
        now: UnixTime,
        life: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let uri = identity.to_uri();
        let mut params = params_for(&common_name(identity), now, life)?;
        let uri = uri.try_into().map_err(AuthorityError::Issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity {
            Identity::Device(_) | Identity::User { .. } => ExtendedKeyUsagePurpose::ClientAuth,
            Identity::Relay { name } => {
                params.subject_alt_names.push(match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => {
                        SanType::DnsName(name.as_str().try_into().map_err(AuthorityError::Issue)?)
                    }
                });
                ExtendedKeyUsagePurpose::ServerAuth
            }
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(AuthorityError::Issue)?;
        Ok(certificate.der().clone())
    }
}

/// SHA-256 over the SubjectPublicKeyInfo of a request's key: what [`super::PeerCertificate`] will
/// say of the certificate issued for it.
pub fn requested_key_digest(request: &[u8]) -> Result<[u8; 32], AuthorityError> {
    use rcgen::PublicKeyData as _;
    let spki = requested_key(request)?.subject_public_key_info();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    digest.as_ref().try_into().map_err(|_| AuthorityError::Request)
}

fn requested_key(request: &[u8]) -> Result<PublicKey, AuthorityError> {
    if request.len() > MAX_REQUEST {
        return Err(AuthorityError::Request);
    }
    // Parsing verifies the request's own signature.
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
        .map(|request| request.public_key)
        .map_err(|_| AuthorityError::Request)
}

fn common_name(identity: &Identity) -> String {
    match identity {
        Identity::Device(id) => id.to_string(),
        Identity::User { name, .. } => name.to_string(),
        Identity::Relay { name } => name.clone(),
    }
}

fn params_for(
    common_name: &str,
    now: UnixTime,
    life: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    // X.520 bounds a common name at 64 characters (RFC 5280, upper bound ub-common-name).
    subject.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name = subject;
    params.not_before = date(now.minus(CERT_BACKDATE));
    params.not_after = date(now.plus(life));
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // RFC 5280 §4.1.2.2: positive. Clearing the top bit keeps it so.
    let [first, ..] = &mut serial;
    *first &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn date(at: UnixTime) -> OffsetDateTime {
    // X.509 dates end with the year 9999.
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(at.0).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
