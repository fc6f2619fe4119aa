//! Opening a stream: client to relay, relay to device. One request, one answer, then bytes.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{DeviceId, SessionId};
use crate::names::Login;
use crate::refusal::Refused;

/// Stream kinds by name; a kind no one knows is refused.
pub mod kind {
    /// An SSH connection (RFC 4253) between the client and the device.
    pub const SSH: &str = "ssh";
}

/// Client to relay: the first frame of a stream. Bytes of the session may follow at once, before
/// the answer; the relay holds them back until the device has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Open {
    /// Device, by name or UUID.
    #[n(0)]
    pub device: Option<String>,
    /// What the stream carries, [`kind`].
    #[n(1)]
    pub kind: Option<String>,
    /// The account wanted on the device.
    #[n(2)]
    pub login: Option<Login>,
}

/// Relay to client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenAnswer {
    /// The session is open: everything after this frame is the session's bytes.
    #[n(0)]
    pub opened: Option<Opened>,
    /// It is not; the stream ends.
    #[n(1)]
    pub refused: Option<Refused>,
}

/// An open session, to the client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opened {
    /// The session's id, as it stands in the store.
    #[n(0)]
    pub session: SessionId,
    /// The device the name resolved to.
    #[n(1)]
    pub device: DeviceId,
    /// Its present name.
    #[n(2)]
    pub device_name: Option<String>,
    /// The signed grant the device was given ([`crate::grant::SignedGrant`], encoded).
    #[n(3)]
    pub grant: Option<ByteVec>,
}

/// Relay to device: the first frame of a stream the relay opens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deliver {
    /// [`crate::grant::SignedGrant`], encoded.
    #[n(0)]
    pub grant: ByteVec,
}

/// Device to relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeliverAnswer {
    /// Taken: everything after this frame is the session's bytes.
    #[n(0)]
    pub accepted: Option<Accepted>,
    /// Refused; the stream ends.
    #[n(1)]
    pub refused: Option<Refused>,
}

/// The device has a worker for the session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accepted {}
