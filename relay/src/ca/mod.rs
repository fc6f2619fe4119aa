//! Every private key of the deployment, and the only code that uses one.
//!
//! Its law: keys are made once by `init` and lie in files of their owner (0600); whatever is
//! issued is issued here, with lifetimes set here. What it is not: it does not decide who gets
//! something. The rest of the relay sees [`Authority`] alone, so that it can become another
//! process or a hardware module without anybody noticing.

mod audit_key;
mod files;
mod relay_certificate;
mod ssh;

use std::path::Path;
use std::time::Duration;

use belay_proto::grant::Grant;
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::limits::SESSION_MAX;
use belay_proto::names::{DeviceName, UserName};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::token::Fingerprint;
use belay_tunnel::pki::{
    AuthorityError, CertificateAuthority, GrantKeyError, GrantSigner, Identity, KeyError,
    PeerCertificate, PeerCertificateError,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

pub use audit_key::AuditKey;
pub use files::FilesError;
pub use relay_certificate::{RelayCertificate, RelayCertificateError};
use ssh::SshAuthority;
pub use ssh::SshError;

/// Life of a device's certificates. They renew at two thirds: a device may be off for a month.
pub const DEVICE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Life of a person's certificates: a working day.
pub const USER_LIFE: Duration = SESSION_MAX;

/// Life of the relay's own certificate.
pub const RELAY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Something was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// X.509.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    /// What was issued does not read back.
    #[error("the certificate just issued cannot be read")]
    ReadBack(#[from] PeerCertificateError),
    /// The relay's own key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// OpenSSH.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl From<&IssueError> for Refused {
    fn from(error: &IssueError) -> Self {
        match error {
            IssueError::Certificate(AuthorityError::Request) | IssueError::Ssh(SshError::Key) => {
                Self::new(Code::BadRequest, error.to_string(), "make the key and the request anew")
            }
            IssueError::Certificate(_)
            | IssueError::ReadBack(_)
            | IssueError::Key(_)
            | IssueError::Ssh(_) => Self::new(
                Code::Internal,
                "the relay cannot issue a certificate",
                "ask the relay's operator to look at its log",
            ),
        }
    }
}

/// What a device or a person gets.
#[derive(Debug, Clone)]
pub struct Issued {
    /// X.509, DER.
    pub certificate: CertificateDer<'static>,
    /// OpenSSH certificate, one-line form.
    pub ssh_certificate: String,
    /// Last second of both.
    pub expires: UnixTime,
}

/// The deployment's keys.
pub struct Authority {
    name: String,
    deployment: CertificateAuthority,
    ssh: SshAuthority,
    grants: GrantSigner,
    quic_reset: Zeroizing<[u8; files::RESET_KEY]>,
}

impl Authority {
    /// Makes every key of a new deployment in `DATA/keys`, for a relay of this name.
    ///
    /// # Errors
    /// [`FilesError`]; refuses when there are keys.
    pub fn make(data: &Path, name: &str, now: UnixTime) -> Result<Self, FilesError> {
        files::make(data, name, now)
    }

    /// Loads them.
    ///
    /// # Errors
    /// [`FilesError`] names the file.
    pub fn load(data: &Path, name: &str) -> Result<Self, FilesError> {
        files::load(data, name)
    }

    /// What invitations carry.
    pub fn fingerprint(&self) -> Fingerprint {
        self.deployment.fingerprint()
    }

    /// The deployment CA's certificate in DER.
    pub const fn ca(&self) -> &CertificateDer<'static> {
        self.deployment.certificate()
    }

    /// The deployment CA's certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        self.deployment.certificate_pem()
    }

    /// SSH user CA public keys, OpenSSH one-line form.
    pub fn ssh_user_cas(&self) -> Vec<String> {
        vec![self.ssh.user_ca().to_owned()]
    }

    /// SSH host CA public keys, OpenSSH one-line form.
    pub fn ssh_host_cas(&self) -> Vec<String> {
        vec![self.ssh.host_ca().to_owned()]
    }

    /// Keys devices verify grants with.
    pub fn grant_keys(&self) -> Vec<[u8; 32]> {
        vec![self.grants.public_key()]
    }

    /// The one of them that signs now.
    pub fn grant_key(&self) -> [u8; 32] {
        self.grants.public_key()
    }

    /// Certificates for a device: X.509 for the key of `request` (PKCS #10, DER), and an SSH host
    /// certificate for `ssh_host_key` with the device's name and id as principals, each also under
    /// `.belay`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_device(
        &self,
        id: DeviceId,
        name: &DeviceName,
        request: &[u8],
        ssh_host_key: &str,
        now: UnixTime,
    ) -> Result<Issued, IssueError> {
        let identity = Identity::Device(id);
        let certificate =
            self.deployment.issue_for_request(request, &identity, now, DEVICE_LIFE)?;
        let ssh_certificate = self.ssh.host(id, name, ssh_host_key, now, DEVICE_LIFE)?;
        Ok(Issued { certificate, ssh_certificate, expires: now.plus(DEVICE_LIFE) })
    }

    /// An SSH host certificate alone, for a device that was renamed.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_host(
        &self,
        id: DeviceId,
        name: &DeviceName,
        ssh_host_key: &str,
        now: UnixTime,
    ) -> Result<String, IssueError> {
        Ok(self.ssh.host(id, name, ssh_host_key, now, DEVICE_LIFE)?)
    }

    /// The day's certificates for a person: X.509 for the key of `request`, and an SSH user
    /// certificate for `ssh_key` with their name as its only principal.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_user(
        &self,
        id: UserId,
        name: &UserName,
        request: &[u8],
        ssh_key: &str,
        now: UnixTime,
    ) -> Result<Issued, IssueError> {
        let identity = Identity::User { id, name: name.clone() };
        let certificate = self.deployment.issue_for_request(request, &identity, now, USER_LIFE)?;
        let ssh_certificate = self.ssh.user(id, name, ssh_key, now, USER_LIFE)?;
        Ok(Issued { certificate, ssh_certificate, expires: now.plus(USER_LIFE) })
    }

    /// Whether an SSH public key is of a kind that is certified here.
    ///
    /// # Errors
    /// [`SshError::Key`].
    pub fn check_ssh_key(key: &str) -> Result<(), SshError> {
        ssh::key(key).map(drop)
    }

    /// What makes this deployment's stateless resets (RFC 9000 §10.3): the same after a restart, so
    /// that a device whose relay was killed learns it with its next packet.
    pub fn quic_reset_key(&self) -> &[u8] {
        self.quic_reset.as_slice()
    }

    /// Signs a grant; returns the encoded [`belay_proto::grant::SignedGrant`].
    ///
    /// # Errors
    /// [`GrantKeyError`].
    pub fn sign_grant(&self, grant: &Grant) -> Result<Vec<u8>, GrantKeyError> {
        self.grants.sign(grant)
    }

    /// A certificate for the relay's own listeners, for a key made now and never stored.
    fn issue_relay(&self, now: UnixTime) -> Result<OwnCertificate, IssueError> {
        let key = belay_tunnel::pki::TlsKey::generate()?;
        let identity = Identity::Relay { name: self.name.clone() };
        let certificate = self.deployment.issue_for_key(&key, &identity, now, RELAY_LIFE)?;
        let ends = PeerCertificate::from_der(&certificate)?.not_after;
        Ok(OwnCertificate { key, certificate, ends })
    }
}

struct OwnCertificate {
    key: belay_tunnel::pki::TlsKey,
    certificate: CertificateDer<'static>,
    ends: UnixTime,
}

/// Reads a certificate request in PEM, as the HTTPS interface carries it, to DER.
///
/// # Errors
/// [`AuthorityError::Request`].
pub fn request_from_pem(pem: &str) -> Result<Vec<u8>, AuthorityError> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map(|request| request.as_ref().to_vec())
        .map_err(|_| AuthorityError::Request)
}

/// A certificate in PEM (RFC 7468).
pub fn certificate_to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests;
