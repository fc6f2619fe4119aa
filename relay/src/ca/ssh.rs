//! OpenSSH certificates (PROTOCOL.certkeys of OpenSSH): for people on devices, for devices as
//! hosts. Two CAs, so that neither kind can stand in for the other.

use std::time::Duration;

use aws_lc_rs::rand;
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::limits::CERT_BACKDATE;
use belay_proto::names::{DeviceName, UserName};
use belay_proto::time::UnixTime;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Algorithm, EcdsaCurve, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// Longest public key looked at, in bytes. An Ed25519 key with a comment has about 100.
const MAX_KEY: usize = 1024;

/// Also known under this domain, which `ssh_config` blocks match on.
const DOMAIN: &str = "belay";

/// What a person's certificate may be used for. The grant narrows it; `permit-user-rc` is left out
/// so that nobody's `~/.ssh/rc` runs.
const EXTENSIONS: [&str; 3] = ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// An SSH key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Not a key, or not of a kind we certify.
    #[error("the SSH public key must be ssh-ed25519 or ecdsa-sha2-nistp256, in one-line form")]
    Key,
    /// A stored CA key cannot be read.
    #[error("the SSH CA key is damaged")]
    Damaged(#[source] ssh_key::Error),
    /// Issuing failed.
    #[error("cannot issue an SSH certificate")]
    Issue(#[source] ssh_key::Error),
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

/// Both SSH CAs.
pub(super) struct SshAuthority {
    users: PrivateKey,
    hosts: PrivateKey,
    user_ca: String,
    host_ca: String,
}

impl SshAuthority {
    /// From two keys in OpenSSH's private form.
    pub(super) fn load(users: &str, hosts: &str) -> Result<Self, SshError> {
        let users = PrivateKey::from_openssh(users).map_err(SshError::Damaged)?;
        let hosts = PrivateKey::from_openssh(hosts).map_err(SshError::Damaged)?;
        let line = |key: &PrivateKey| key.public_key().to_openssh().map_err(SshError::Damaged);
        let (user_ca, host_ca) = (line(&users)?, line(&hosts)?);
        Ok(Self { users, hosts, user_ca, host_ca })
    }

    pub(super) fn user_ca(&self) -> &str {
        &self.user_ca
    }

    pub(super) fn host_ca(&self) -> &str {
        &self.host_ca
    }

    pub(super) fn user(
        &self,
        id: UserId,
        name: &UserName,
        public: &str,
        now: UnixTime,
        life: Duration,
    ) -> Result<String, SshError> {
        let mut builder = builder(public, now, life)?;
        let certificate = (|| {
            builder.cert_type(CertType::User)?.key_id(format!("{name} {id}"))?;
            builder.valid_principal(name.as_str())?;
            for extension in EXTENSIONS {
                builder.extension(extension, "")?;
            }
            builder.comment(name.as_str())?;
            builder.sign(&self.users)?.to_openssh()
        })();
        certificate.map_err(SshError::Issue)
    }

    pub(super) fn host(
        &self,
        id: DeviceId,
        name: &DeviceName,
        public: &str,
        now: UnixTime,
        life: Duration,
    ) -> Result<String, SshError> {
        let mut builder = builder(public, now, life)?;
        let certificate = (|| {
            builder.cert_type(CertType::Host)?.key_id(format!("{name} {id}"))?;
            for principal in [
                name.to_string(),
                format!("{name}.{DOMAIN}"),
                id.to_string(),
                format!("{id}.{DOMAIN}"),
            ] {
                builder.valid_principal(principal)?;
            }
            builder.comment(name.as_str())?;
            builder.sign(&self.hosts)?.to_openssh()
        })();
        certificate.map_err(SshError::Issue)
    }
}

/// Makes a CA key, in OpenSSH's private form.
pub(super) fn generate(comment: &str) -> Result<Zeroizing<String>, SshError> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(seed.as_mut_slice()).map_err(|_| SshError::Random)?;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment(comment);
    key.to_openssh(LineEnding::LF).map_err(SshError::Issue)
}

/// Reads a public key of a kind we certify.
pub(super) fn key(line: &str) -> Result<PublicKey, SshError> {
    let key = (line.len() <= MAX_KEY).then(|| PublicKey::from_openssh(line.trim()).ok()).flatten();
    let key = key.ok_or(SshError::Key)?;
    let certified = [Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }];
    if certified.contains(&key.algorithm()) { Ok(key) } else { Err(SshError::Key) }
}

fn builder(public: &str, now: UnixTime, life: Duration) -> Result<Builder, SshError> {
    let public = key(public)?;
    let mut nonce = [0; 32];
    let mut serial = [0; 8];
    rand::fill(&mut nonce).map_err(|_| SshError::Random)?;
    rand::fill(&mut serial).map_err(|_| SshError::Random)?;
    let (from, to) = (now.minus(CERT_BACKDATE).0, now.plus(life).0);
    let mut builder =
        Builder::new(nonce, public.key_data().clone(), from, to).map_err(SshError::Issue)?;
    builder.serial(u64::from_be_bytes(serial)).map_err(SshError::Issue)?;
    Ok(builder)
}
