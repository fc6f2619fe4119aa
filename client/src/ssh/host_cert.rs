//! Is this the device? Decided by its host certificate alone: there is no trust on first use.
//!
//! The SSH library proves possession of the key (the exchange is signed with it) and nothing else.
//! Everything the certificate says is checked here, in the order of PROTOCOL.certkeys: type, CA,
//! signature, time, principals, critical options.

use belay_proto::time::UnixTime;
use russh::keys::PublicKeyOrCertificate;
use ssh_key::certificate::CertType;
use ssh_key::{Algorithm, Certificate, Fingerprint, HashAlg, PublicKey};

use crate::device_ref::SUFFIX;

/// Whom to believe, about what.
#[derive(Debug, Clone)]
pub struct HostTrust {
    /// Host CA keys of the login.
    pub cas: Vec<PublicKey>,
    /// Names the certificate may be for: what was asked for, and the id it stands for. Without
    /// the `.belay` domain.
    pub names: Vec<String>,
    /// The relay's time.
    pub now: UnixTime,
}

/// Why it is not the device, or cannot be shown to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostCertError {
    /// A bare key.
    #[error("the device showed a key without a certificate")]
    NoCertificate,
    /// A user certificate.
    #[error("the device showed a certificate that is not for a host")]
    NotForAHost,
    /// Not Ed25519.
    #[error("the device's certificate is for a key of a kind that is not used here")]
    Algorithm,
    /// Signed by somebody else.
    #[error("the device's certificate is not signed by this relay's host CA")]
    ForeignCa,
    /// The signature is wrong.
    #[error("the signature on the device's certificate is wrong")]
    Signature,
    /// Its time has not begun.
    #[error("the device's certificate begins only in {0} s; check this machine's clock")]
    NotYet(u64),
    /// Its time is over.
    #[error("the device's certificate ended {0} s ago; it renews when the device is next online")]
    Expired(u64),
    /// It names nobody, which would mean everybody.
    #[error("the device's certificate names no host")]
    NoPrincipals,
    /// It names others.
    #[error("the certificate shown is for {0}, not for the device asked for")]
    OtherHost(String),
    /// It has a condition nobody here knows.
    #[error("the device's certificate has the unknown condition \"{0}\"")]
    CriticalOption(String),
}

impl HostTrust {
    /// Judges what the device showed.
    ///
    /// # Errors
    /// [`HostCertError`] when it proves nothing.
    pub fn judge(&self, shown: &PublicKeyOrCertificate) -> Result<(), HostCertError> {
        match shown {
            PublicKeyOrCertificate::Certificate(certificate) => self.judge_certificate(certificate),
            PublicKeyOrCertificate::PublicKey { .. } => Err(HostCertError::NoCertificate),
        }
    }

    fn judge_certificate(&self, certificate: &Certificate) -> Result<(), HostCertError> {
        if certificate.cert_type() != CertType::Host {
            return Err(HostCertError::NotForAHost);
        }
        if certificate.algorithm() != Algorithm::Ed25519 {
            return Err(HostCertError::Algorithm);
        }
        let signer = certificate.signature_key();
        if !self.cas.iter().any(|ca| ca.key_data() == signer) {
            return Err(HostCertError::ForeignCa);
        }
        if self.now.0 < certificate.valid_after() {
            return Err(HostCertError::NotYet(certificate.valid_after() - self.now.0));
        }
        if self.now.0 >= certificate.valid_before() {
            return Err(HostCertError::Expired(self.now.0 - certificate.valid_before()));
        }
        // Signature, CA and time once more, by the library's own rules.
        let fingerprints: Vec<Fingerprint> =
            self.cas.iter().map(|ca| ca.fingerprint(HashAlg::Sha256)).collect();
        certificate.validate_at(self.now.0, &fingerprints).map_err(|_| HostCertError::Signature)?;
        let principals = certificate.valid_principals();
        if principals.is_empty() {
            return Err(HostCertError::NoPrincipals);
        }
        let for_us = |principal: &String| {
            let bare = principal.strip_suffix(SUFFIX).unwrap_or(principal);
            self.names.iter().any(|name| name == bare)
        };
        if !principals.iter().any(for_us) {
            return Err(HostCertError::OtherHost(principals.join(", ")));
        }
        // No critical option is defined for host certificates (PROTOCOL.certkeys).
        if let Some((option, _)) = certificate.critical_options().iter().next() {
            return Err(HostCertError::CriticalOption(option.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "host_cert_tests.rs"]
mod tests;
