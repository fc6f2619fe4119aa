//! The order: all a worker is told about its session, once, at its start.
//!
//! Unknown fields are ignored, so a newer supervisor may add some; an
//! obligation is the exception. Whoever writes one demands that it be met, so a
//! worker that does not know it refuses the session.

use std::fmt;

use belay_proto::recording::obligation;
use belay_proto::wire::open::{Join, ResumeWindows};
use minicbor::{Decode, Encode};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::limits::CONTROL_FRAME_MAX;

/// What the supervisor tells a worker. The private key masks itself in `Debug`
/// and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerOrder {
    /// The session's id, in every log line and in `BELAY_SESSION`.
    pub session: Uuid,
    /// The engineer. The certificate must carry this principal.
    pub user: String,
    /// The one login of the device that was granted.
    pub login: String,
    /// Allowed actions: `shell`, `exec`, `sftp`, `forward`, `reverse`, `agent`; or `join` alone.
    /// A token this version does not know allows nothing.
    pub actions: Vec<String>,
    /// The host key, as an OpenSSH private key file.
    pub host_key: Zeroizing<Vec<u8>>,
    /// The host certificate, as one OpenSSH line.
    pub host_certificate: Option<String>,
    /// The trusted SSH user authorities, one OpenSSH public key line each.
    pub user_cas: Vec<String>,
    /// Seconds to add to this machine's wall clock to get the relay's.
    pub clock_correction: i64,
    /// End of the session in Unix seconds of the relay's clock.
    pub expires_at: u64,
    /// What must be done for this session ([`obligation`]).
    pub obligations: Vec<String>,
    /// More variables for the session's environment.
    pub env: Vec<(String, String)>,
    /// How long the session may be without a client. Zero: it ends with its
    /// first attachment.
    pub windows: ResumeWindows,
    /// The auditors what is recorded is sealed to.
    pub recipients: Vec<String>,
    /// It joins a terminal of this session, whose worker's socket comes behind the order.
    pub joins: Option<Join>,
}

/// Why an order could not be read or is refused.
#[derive(Debug, Error)]
pub enum OrderError {
    #[error("the order is {0} bytes, more than the {CONTROL_FRAME_MAX} a worker reads")]
    TooLong(usize),
    #[error("the order cannot be decoded: {0}")]
    Decode(#[from] minicbor::decode::Error),
    #[error("the order cannot be encoded")]
    Encode,
    #[error("the order has no {0}")]
    Missing(&'static str),
    #[error("the order's {0} is not valid")]
    Invalid(&'static str),
    #[error(
        "the session demands `{0}`, which this agent cannot do: update the agent or drop the demand"
    )]
    Obligation(String),
}

#[derive(Encode, Decode, Default)]
#[cbor(map)]
struct Wire {
    #[cbor(n(0), with = "minicbor::bytes")]
    session: Option<Vec<u8>>,
    #[n(1)]
    user: Option<String>,
    #[n(2)]
    login: Option<String>,
    #[n(3)]
    actions: Option<Vec<String>>,
    #[cbor(n(4), with = "minicbor::bytes")]
    host_key: Option<Vec<u8>>,
    #[n(5)]
    host_certificate: Option<String>,
    #[n(6)]
    user_cas: Option<Vec<String>>,
    #[n(7)]
    clock_correction: Option<i64>,
    #[n(8)]
    expires_at: Option<u64>,
    #[n(9)]
    obligations: Option<Vec<String>>,
    #[n(10)]
    env: Option<Vec<(String, String)>>,
    #[n(11)]
    windows: Option<ResumeWindows>,
    #[n(12)]
    recipients: Option<Vec<String>>,
    #[n(13)]
    joins: Option<Join>,
}

impl WorkerOrder {
    /// The order as CBOR, without the length prefix.
    ///
    /// # Errors
    /// [`OrderError::TooLong`] past [`CONTROL_FRAME_MAX`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, OrderError> {
        let mut wire = Wire {
            session: Some(self.session.as_bytes().to_vec()),
            user: Some(self.user.clone()),
            login: Some(self.login.clone()),
            actions: Some(self.actions.clone()),
            host_key: Some(self.host_key.to_vec()),
            host_certificate: self.host_certificate.clone(),
            user_cas: Some(self.user_cas.clone()),
            clock_correction: Some(self.clock_correction),
            expires_at: Some(self.expires_at),
            obligations: Some(self.obligations.clone()),
            env: Some(self.env.clone()),
            windows: Some(self.windows),
            recipients: (!self.recipients.is_empty()).then(|| self.recipients.clone()),
            joins: self.joins.clone(),
        };
        // Sized first, so that no reallocation leaves a copy of the key behind.
        let mut out = Zeroizing::new(Vec::with_capacity(CONTROL_FRAME_MAX));
        let result = minicbor::encode(&wire, &mut *out).map_err(|_| OrderError::Encode);
        drop(wire.host_key.take().map(Zeroizing::new));
        result?;
        if out.len() > CONTROL_FRAME_MAX {
            return Err(OrderError::TooLong(out.len()));
        }
        Ok(out)
    }

    /// Reads and checks an order.
    ///
    /// # Errors
    /// Anything missing, malformed or not to be obeyed by this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, OrderError> {
        if bytes.len() > CONTROL_FRAME_MAX {
            return Err(OrderError::TooLong(bytes.len()));
        }
        let wire: Wire = minicbor::decode(bytes)?;
        let session = wire.session.ok_or(OrderError::Missing("session id"))?;
        let order = Self {
            session: Uuid::from_slice(&session).map_err(|_| OrderError::Invalid("session id"))?,
            user: wire.user.ok_or(OrderError::Missing("user"))?,
            login: wire.login.ok_or(OrderError::Missing("login"))?,
            actions: wire.actions.unwrap_or_default(),
            host_key: Zeroizing::new(wire.host_key.ok_or(OrderError::Missing("host key"))?),
            host_certificate: wire.host_certificate,
            user_cas: wire.user_cas.unwrap_or_default(),
            clock_correction: wire.clock_correction.unwrap_or_default(),
            expires_at: wire.expires_at.ok_or(OrderError::Missing("expiry"))?,
            obligations: wire.obligations.unwrap_or_default(),
            env: wire.env.unwrap_or_default(),
            windows: wire.windows.unwrap_or(ResumeWindows { interactive: 0, other: 0 }),
            recipients: wire.recipients.unwrap_or_default(),
            joins: wire.joins,
        };
        order.check()?;
        Ok(order)
    }

    fn check(&self) -> Result<(), OrderError> {
        if self.user.is_empty() || has_control(&self.user) {
            return Err(OrderError::Invalid("user"));
        }
        if self.login.is_empty() || has_control(&self.login) || self.login.contains(':') {
            return Err(OrderError::Invalid("login"));
        }
        if self.user_cas.is_empty() {
            return Err(OrderError::Missing("user authority"));
        }
        let bad_name = |name: &str| name.is_empty() || name.contains('=') || name.contains('\0');
        if self.env.iter().any(|(name, value)| bad_name(name) || value.contains('\0')) {
            return Err(OrderError::Invalid("environment"));
        }
        let is_unknown = |named: &&String| !obligation::KNOWN.contains(&named.as_str());
        match self.obligations.iter().find(is_unknown) {
            Some(unknown) => Err(OrderError::Obligation(unknown.clone())),
            None => Ok(()),
        }
    }
}

/// Names go into the environment, the log and other people's terminals.
fn has_control(name: &str) -> bool {
    name.chars().any(char::is_control)
}

impl fmt::Debug for WorkerOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerOrder")
            .field("session", &self.session)
            .field("user", &self.user)
            .field("login", &self.login)
            .field("actions", &self.actions)
            .field("host_key", &"***")
            .field("clock_correction", &self.clock_correction)
            .field("expires_at", &self.expires_at)
            .field("obligations", &self.obligations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn order() -> WorkerOrder {
        WorkerOrder {
            session: Uuid::from_bytes([7; 16]),
            user: "ada".into(),
            login: "root".into(),
            actions: vec!["shell".into()],
            host_key: Zeroizing::new(b"secret".to_vec()),
            host_certificate: None,
            user_cas: vec!["ssh-ed25519 AAAA".into()],
            clock_correction: -5,
            expires_at: 1_700_000_000,
            obligations: vec![],
            env: vec![("A".into(), "b".into())],
            windows: ResumeWindows::default(),
            recipients: vec![],
            joins: None,
        }
    }

    #[test]
    fn an_order_survives_the_wire() {
        let sent = order();
        assert_eq!(WorkerOrder::decode(&sent.encode().unwrap()).unwrap(), sent);
    }

    #[test]
    fn an_obligation_this_version_does_not_know_refuses_the_session() {
        let sent = WorkerOrder { obligations: vec!["record".into(), "sing".into()], ..order() };
        let refusal = WorkerOrder::decode(&sent.encode().unwrap()).unwrap_err();
        assert!(matches!(refusal, OrderError::Obligation(name) if name == "sing"));
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored() {
        let mut bytes = order().encode().unwrap().to_vec();
        // A definite map of 12 (one field, the certificate, is absent: 11).
        assert_eq!(bytes[0], 0xab);
        bytes[0] = 0xac;
        bytes.extend_from_slice(&[0x18, 99, 0x63, b'n', b'e', b'w']);
        assert_eq!(WorkerOrder::decode(&bytes).unwrap(), order());
    }

    #[test]
    fn what_is_missing_is_named() {
        let refusal = WorkerOrder::decode(&[0xa0]).unwrap_err();
        assert_eq!(refusal.to_string(), "the order has no session id");
    }

    #[test]
    fn names_with_control_characters_are_refused() {
        for login in ["ro\not", "", "a:b"] {
            let sent = WorkerOrder { login: login.into(), ..order() };
            assert!(WorkerOrder::decode(&sent.encode().unwrap()).is_err(), "{login:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", order()).contains("115, 101"));
    }
}
