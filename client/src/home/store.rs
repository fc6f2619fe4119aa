//! Keeping a new login.

use std::sync::Arc;

use belay_proto::api::LoginAnswer;
use belay_proto::time::UnixTime;
use belay_tunnel::pki::TlsKey;
use ssh_key::{Certificate, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::login::LAYOUT;
use super::{File, Home, LoginRecord};
use crate::failure::Failure;
use belay_tunnel::address::RelayAddress;

/// SSH key and certificate of one login.
#[derive(Clone)]
pub struct SshIdentity {
    /// The key.
    pub key: Arc<PrivateKey>,
    /// Its certificate.
    pub certificate: Certificate,
}

impl SshIdentity {
    pub(super) fn load(home: &Home) -> Result<Self, Failure> {
        let damaged = |file: File, e: ssh_key::Error| {
            Failure::new("home-damaged", format!("{} is damaged: {e}", home.path(file).display()))
                .remedy("run: belay login")
        };
        let pem = Zeroizing::new(home.read(File::SshKey)?);
        let key = PrivateKey::from_openssh(pem.as_bytes()).map_err(|e| damaged(File::SshKey, e))?;
        let certificate = Certificate::from_openssh(&home.read(File::SshCertificate)?)
            .map_err(|e| damaged(File::SshCertificate, e))?;
        if certificate.public_key() != key.public_key().key_data() {
            return Err(Failure::new(
                "home-damaged",
                "the SSH key and certificate are of two logins; the last one was cut short",
            )
            .remedy("run: belay login"));
        }
        Ok(Self { key: Arc::new(key), certificate })
    }
}

/// Everything one login brought.
pub struct NewLogin<'a> {
    /// Where.
    pub relay: &'a RelayAddress,
    /// The key behind the X.509 certificate.
    pub tls_key: &'a TlsKey,
    /// The key behind the SSH certificate.
    pub ssh_key: &'a PrivateKey,
    /// What the relay answered.
    pub answer: &'a LoginAnswer,
    /// This machine's clock when it did.
    pub local_clock: UnixTime,
}

impl Home {
    /// Keeps a login; what was kept before is gone. `login.json` comes last, so a login cut short
    /// is found out by its mismatched keys.
    ///
    /// # Errors
    /// When the answer holds something unusable, or a file cannot be written.
    pub fn keep(&self, new: &NewLogin<'_>) -> Result<LoginRecord, Failure> {
        let answer = new.answer;
        let bad = |what: &str| {
            Failure::new("protocol", format!("the relay answered with {what}"))
                .remedy("check that relay and client are of compatible versions")
        };
        let certificate = Certificate::from_openssh(&answer.ssh_certificate)
            .map_err(|_| bad("an unreadable SSH certificate"))?;
        if certificate.public_key() != new.ssh_key.public_key().key_data() {
            return Err(bad("an SSH certificate for another key"));
        }
        let cas = answer
            .ssh_host_cas
            .iter()
            .map(|line| PublicKey::from_openssh(line).map_err(|_| bad("an unreadable SSH CA key")))
            .collect::<Result<Vec<_>, _>>()?;
        if cas.is_empty() {
            return Err(bad("no SSH host CA"));
        }
        let private = new
            .ssh_key
            .to_openssh(LineEnding::LF)
            .map_err(|e| Failure::new("internal", format!("cannot encode the SSH key: {e}")))?;
        let public = new
            .ssh_key
            .public_key()
            .to_openssh()
            .map_err(|e| Failure::new("internal", format!("cannot encode the SSH key: {e}")))?;
        let record = LoginRecord {
            layout: LAYOUT,
            relay: new.relay.to_string(),
            user: answer.user.clone(),
            user_id: answer.user_id,
            expires: answer.expires,
            clock: answer.clock,
            clock_correction_s: answer.clock.correction_from(new.local_clock),
            ssh_host_cas: answer.ssh_host_cas.clone(),
        };
        let tls = Zeroizing::new(format!("{}{}", *new.tls_key.to_pem(), answer.certificate));
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|e| Failure::new("internal", format!("cannot encode the login: {e}")))?;
        self.create()?;
        self.write(File::Ca, answer.ca.as_bytes())?;
        self.write(File::Tls, tls.as_bytes())?;
        self.write(File::SshKey, private.as_bytes())?;
        self.write(File::SshPublicKey, format!("{public}\n").as_bytes())?;
        let certificate_line = format!("{}\n", answer.ssh_certificate.trim_end());
        self.write(File::SshCertificate, certificate_line.as_bytes())?;
        self.write(File::KnownHosts, known_hosts(&cas)?.as_bytes())?;
        self.write(File::Login, &json)?;
        Ok(record)
    }
}

/// Only certificates of these CAs, and only for the `.belay` names (sshd(8), SSH_KNOWN_HOSTS).
fn known_hosts(cas: &[PublicKey]) -> Result<String, Failure> {
    let mut text = String::new();
    for ca in cas {
        let mut ca = ca.clone();
        ca.set_comment("");
        let line = ca
            .to_openssh()
            .map_err(|e| Failure::new("internal", format!("cannot encode an SSH CA key: {e}")))?;
        text.push_str(&format!("@cert-authority *.belay {}\n", line.trim_end()));
    }
    Ok(text)
}
