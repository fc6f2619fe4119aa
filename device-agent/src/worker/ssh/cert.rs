//! Is this certificate good for this session? One pure function.
//!
//! The SSH library has proved that the peer holds the certified key. Everything
//! else is judged here: who signed, for whom, what for, until when.
//! PROTOCOL.certkeys of OpenSSH is the source of the fields' meaning.

use russh::keys::ssh_key::certificate::Certificate;
use russh::keys::ssh_key::{Algorithm, HashAlg, PublicKey};
use thiserror::Error;

/// What a session demands of a certificate.
pub(crate) struct Demand<'a> {
    /// Trusted user authorities. The host authority is never among them.
    pub(crate) authorities: &'a [PublicKey],
    /// The engineer the grant names: must be a principal, letter for letter.
    pub(crate) user: &'a str,
    /// The granted login: must be the SSH user name.
    pub(crate) login: &'a str,
    /// Unix seconds by the relay's clock.
    pub(crate) now: u64,
}

/// What a good certificate says, and the restrictions it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) fingerprint: String,
    pub(crate) key_id: String,
    pub(crate) serial: u64,
    pub(crate) rights: Rights,
}

/// A certificate's extensions: absence restricts (PROTOCOL.certkeys).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) terminal: bool,
    pub(crate) forwarding: bool,
    pub(crate) agent: bool,
}

impl Rights {
    /// Of a plain key, which has no extensions to restrict it.
    pub(crate) const ALL: Self = Self { terminal: true, forwarding: true, agent: true };
}

/// Why a certificate is refused: cause and remedy, for the engineer to read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error(
        "the grant is for login `{granted}`, not `{asked}`: connect as `{granted}` or ask for a grant for `{asked}`"
    )]
    Login { granted: String, asked: String },
    #[error("the certificate is a host's, not an engineer's: run `belay login`")]
    NotUser,
    #[error(
        "the certificate is signed by an authority this device does not trust ({0}): run `belay login` at this device's relay"
    )]
    Authority(String),
    #[error("the certificate's signature is wrong: run `belay login`")]
    Signature,
    #[error(
        "the certificate is for a key of type {0}: use ed25519 or ECDSA, as `belay login` makes"
    )]
    KeyType(String),
    #[error(
        "the certificate demands `{0}`, which this device cannot do: get one without it, by `belay login`"
    )]
    CriticalOption(String),
    #[error("the certificate names no engineer: run `belay login`")]
    NoPrincipals,
    #[error(
        "the certificate is for {certified}, the grant for `{granted}`: log in as `{granted}` with `belay login`"
    )]
    User { certified: String, granted: String },
    #[error(
        "the certificate is not valid yet, for {0} more: check the clock of the machine that issued it"
    )]
    NotYet(String),
    #[error("the certificate expired {0} ago: run `belay login`")]
    Expired(String),
}

/// Judges `certificate`, whose holder asks to be `ssh_user`.
pub(crate) fn check(
    certificate: &Certificate,
    ssh_user: &str,
    demand: &Demand<'_>,
) -> Result<Verified, Refusal> {
    if ssh_user != demand.login {
        return Err(Refusal::Login { granted: demand.login.into(), asked: shown(ssh_user) });
    }
    if !certificate.cert_type().is_user() {
        return Err(Refusal::NotUser);
    }
    let signer = certificate.signature_key();
    if !demand.authorities.iter().any(|authority| authority.key_data() == signer) {
        return Err(Refusal::Authority(signer.fingerprint(HashAlg::Sha256).to_string()));
    }
    certificate.verify_signature().map_err(|_| Refusal::Signature)?;
    let algorithm = certificate.public_key().algorithm();
    if !matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
        return Err(Refusal::KeyType(shown(algorithm.as_str())));
    }
    // We know no critical option, and an unknown one means refusal.
    if let Some(option) = certificate.critical_options().keys().next() {
        return Err(Refusal::CriticalOption(shown(option)));
    }
    let principals = certificate.valid_principals();
    if principals.is_empty() {
        return Err(Refusal::NoPrincipals);
    }
    if !principals.iter().any(|principal| principal == demand.user) {
        let certified: Vec<String> =
            principals.iter().take(3).map(|name| format!("`{}`", shown(name))).collect();
        return Err(Refusal::User { certified: certified.join(", "), granted: demand.user.into() });
    }
    if demand.now < certificate.valid_after() {
        return Err(Refusal::NotYet(span(certificate.valid_after() - demand.now)));
    }
    // PROTOCOL.certkeys: valid while now < valid before.
    if demand.now >= certificate.valid_before() {
        return Err(Refusal::Expired(span(demand.now - certificate.valid_before())));
    }
    let extends = |name: &str| certificate.extensions().contains_key(name);
    Ok(Verified {
        fingerprint: certificate.public_key().fingerprint(HashAlg::Sha256).to_string(),
        key_id: shown(certificate.key_id()),
        serial: certificate.serial(),
        rights: Rights {
            terminal: extends("permit-pty"),
            forwarding: extends("permit-port-forwarding"),
            agent: extends("permit-agent-forwarding"),
        },
    })
}

/// A peer's text, fit for a log line and a terminal: short, no control
/// characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 128;
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(LONGEST).collect()
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "cert_tests.rs"]
mod tests;
