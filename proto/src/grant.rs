//! The grant: the relay's signed permission for one session on one device.
//!
//! Signed is the grant's own encoding, prefixed by a domain string, so that no signature made for
//! anything else ever passes as a grant. The device verifies with a key it pinned at enrolment.
//! A [`Verified<Grant>`] can only be made by [`SignedGrant::verify`].

use std::ops::Deref;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{DeviceId, SessionId, UserId};
use crate::limits::MAX_GRANT_ITEMS;
use crate::names::{Login, UserName};
use crate::policy::Action;
use crate::recording::{RECIPIENTS_MAX, obligation};
use crate::time::UnixTime;
use crate::wire::frame::{FrameError, decode_payload};
use crate::wire::open::{Join, ResumeWindows};

/// What is signed begins with this; the trailing zero ends the string.
pub const DOMAIN: &[u8] = b"belay grant v1\0";

/// The grant's layout. A device refuses any other.
pub const VERSION: u16 = 1;

/// Who may do what, on which device, as whom, until when.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// [`VERSION`].
    #[n(0)]
    pub version: u16,
    /// Single use: a device accepts a session id once.
    #[n(1)]
    pub session: SessionId,
    /// The only device it is good for.
    #[n(2)]
    pub device: DeviceId,
    /// The person.
    #[n(3)]
    pub user: UserId,
    /// Their name: the SSH certificate inside must have it as a principal.
    #[n(4)]
    pub user_name: UserName,
    /// The account this session runs as.
    #[n(5)]
    pub login: Login,
    /// What the stream carries ([`crate::wire::open::kind`]).
    #[n(6)]
    pub kind: String,
    /// Actions allowed, by [`Action::token`]. One the device does not know allows nothing.
    #[n(7)]
    pub actions: Vec<String>,
    /// When the relay made it.
    #[n(8)]
    pub issued: UnixTime,
    /// Must be opened by then.
    #[n(9)]
    pub open_by: UnixTime,
    /// The session ends by then.
    #[n(10)]
    pub ends: UnixTime,
    /// What the device must do besides ([`obligation`]). One it does not know means refusal.
    #[n(11)]
    pub obligations: Option<Vec<String>>,
    /// The session is open already and is taken up again: the device starts nothing anew, and
    /// refuses when it has no such session of the same person and login.
    #[n(12)]
    pub resume: Option<bool>,
    /// How long the session may be without a client.
    #[n(13)]
    pub windows: Option<ResumeWindows>,
    /// With `resume`: the client has nothing of the session's stream and gets a fresh one, with the
    /// session's terminals as they are. Sent to a device that said it can
    /// ([`crate::wire::control::capability::ATTACH`]).
    #[n(14)]
    pub anew: Option<bool>,
    /// The auditors a recording is sealed to: age X25519 recipients, at most
    /// [`crate::recording::RECIPIENTS_MAX`]. They come with the obligation
    /// [`obligation::SEAL`], so that a device that does not know them refuses.
    #[n(15)]
    pub recipients: Option<Vec<String>>,
    /// The session joins a terminal of another one and does nothing else: [`Action::Join`] is its
    /// only action then, so that a device that knows neither allows nothing. Sent to a device that
    /// said it can ([`crate::wire::control::capability::JOIN`]).
    #[n(16)]
    pub joins: Option<Join>,
}

impl Grant {
    /// The actions this build knows.
    pub fn known_actions(&self) -> impl Iterator<Item = Action> + '_ {
        self.actions.iter().filter_map(|token| Action::from_token(token))
    }

    /// Whoever joins does that alone, and nobody else joins.
    fn joins_rightly(&self) -> bool {
        let join = Action::Join.token();
        match &self.joins {
            Some(_) => self.actions.iter().all(|action| action == join),
            None => !self.actions.iter().any(|action| action == join),
        }
    }
}

/// A grant and its signature, as sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedGrant {
    /// The [`Grant`], encoded. Kept as the bytes that were signed.
    #[n(0)]
    pub grant: ByteVec,
    /// Ed25519 over [`DOMAIN`] and those bytes.
    #[n(1)]
    pub signature: ByteVec,
}

/// A checked value: only a check makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why a grant opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Not a grant at all.
    #[error("the grant cannot be read")]
    Unreadable(#[source] FrameError),
    /// No pinned key made this signature.
    #[error("the grant is not signed by a key this device trusts")]
    Signature,
    /// A layout this build does not know.
    #[error("the grant has version {0}; this device knows {VERSION}")]
    Version(u16),
    /// Made for another device.
    #[error("the grant is for another device")]
    OtherDevice,
    /// Its time has not begun.
    #[error("the grant begins {0} s from now; check the clocks")]
    NotYet(u64),
    /// Its time is over.
    #[error("the grant had to be opened {0} s ago; ask for the session again")]
    TooLate(u64),
    /// It asks for something this build cannot do.
    #[error("the grant demands \"{0}\", which this device cannot do; upgrade its agent")]
    Obligation(String),
    /// Oversized lists, times out of order, or something else beside joining.
    #[error("the grant is malformed")]
    Malformed,
}

/// Checks an Ed25519 signature (RFC 8032) with the keys the caller trusts.
pub trait VerifySignature {
    /// Whether any trusted key made `signature` over `message`.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// The bytes to sign for an encoded grant.
pub fn signed_bytes(encoded: &[u8]) -> Vec<u8> {
    [DOMAIN, encoded].concat()
}

impl SignedGrant {
    /// Reads and checks a grant: signature first, then that it is meant for `device`, now, with
    /// nothing this build cannot honour. `now` is the relay's time as the device knows it.
    ///
    /// # Errors
    /// Every reason of [`GrantError`].
    pub fn verify(
        encoded: &[u8],
        keys: &impl VerifySignature,
        device: DeviceId,
        now: UnixTime,
    ) -> Result<Verified<Grant>, GrantError> {
        let signed: Self = decode_payload(encoded).map_err(GrantError::Unreadable)?;
        if !keys.verify(&signed_bytes(&signed.grant), &signed.signature) {
            return Err(GrantError::Signature);
        }
        let grant: Grant = decode_payload(&signed.grant).map_err(GrantError::Unreadable)?;
        if grant.version != VERSION {
            return Err(GrantError::Version(grant.version));
        }
        if grant.device != device {
            return Err(GrantError::OtherDevice);
        }
        let obligations = grant.obligations.as_deref().unwrap_or_default();
        if grant.actions.len() > MAX_GRANT_ITEMS
            || obligations.len() > MAX_GRANT_ITEMS
            || grant.recipients.as_ref().is_some_and(|named| named.len() > RECIPIENTS_MAX)
            || !grant.joins_rightly()
            || grant.open_by < grant.issued
            || grant.ends < grant.open_by
        {
            return Err(GrantError::Malformed);
        }
        let is_unknown = |obligation: &&String| !obligation::KNOWN.contains(&obligation.as_str());
        if let Some(unknown) = obligations.iter().find(is_unknown) {
            return Err(GrantError::Obligation(unknown.clone()));
        }
        if now.plus(crate::limits::CERT_BACKDATE) < grant.issued {
            return Err(GrantError::NotYet(grant.issued.distance(now).as_secs()));
        }
        if now > grant.open_by {
            return Err(GrantError::TooLate(grant.open_by.distance(now).as_secs()));
        }
        Ok(Verified(grant))
    }
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
