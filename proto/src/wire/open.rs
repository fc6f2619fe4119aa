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
    /// Take this session up again instead of opening one. The relay then asks its own record for
    /// device, kind and login; what stands here must not differ.
    #[n(3)]
    pub resume: Option<Resume>,
    /// The new session joins a terminal of another one. The relay asks its own record of that one
    /// for device and login; what stands here must not differ.
    #[n(4)]
    pub join: Option<Join>,
    /// A new session that is opened even if it cannot be recorded as it must be, and why
    /// ([`crate::policy::BreakGlass`]). Who asks for it is on record and raises an alarm.
    #[n(5)]
    pub break_glass: Option<String>,
}

/// Which terminal a session joins, and how.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Join {
    /// The session that has it.
    #[n(0)]
    pub session: SessionId,
    /// Which of its terminals, from 1; absent: the only one.
    #[n(1)]
    pub terminal: Option<u32>,
    /// Only looks on: what is typed goes nowhere.
    #[n(2)]
    pub read_only: Option<bool>,
}

impl Join {
    /// Whether it may type.
    pub fn may_type(&self) -> bool {
        self.read_only != Some(true)
    }
}

/// A session that lost its stream, and whose client is back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Resume {
    /// Which.
    #[n(0)]
    pub session: SessionId,
    /// How long the relay may hold the answer back while the device has no line, in seconds; at
    /// most [`crate::limits::RESUME_WAIT`]. The answer then comes the moment the device is back.
    #[n(1)]
    pub wait_seconds: Option<u32>,
    /// This client has nothing of the session's stream: the device is to give it a fresh one, and
    /// whoever had the old one loses it. Only a session with a terminal can be had so.
    #[n(2)]
    pub anew: Option<bool>,
    /// Which of the session's streams the client has, as [`Opened::stream`] said; absent is 0, the
    /// first. The relay refuses any but the latest.
    #[n(3)]
    pub stream: Option<u32>,
}

/// How long a session may be without a client before the device ends it, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ResumeWindows {
    /// While it has a terminal.
    #[n(0)]
    pub interactive: u32,
    /// While it has none.
    #[n(1)]
    pub other: u32,
}

impl Default for ResumeWindows {
    /// A laptop that slept over night; a transfer whose network is being repaired.
    fn default() -> Self {
        Self { interactive: 24 * 3600, other: 3600 }
    }
}

impl ResumeWindows {
    /// Whether every session, whatever is in it, waits a while for its client.
    pub const fn all_may_come_back(self) -> bool {
        self.interactive > 0 && self.other > 0
    }
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
    /// How long it may be taken up again after its stream broke. Absent: not at all.
    #[n(4)]
    pub windows: Option<ResumeWindows>,
    /// The number of the stream that begins or goes on here. Absent from a relay that knows no
    /// fresh streams: there is only the first.
    #[n(5)]
    pub stream: Option<u32>,
    /// With [`Open::break_glass`]: who was told, in one line. Absent from a relay that does not know it:
    /// there the session is like any other.
    #[n(7)]
    pub break_glass: Option<String>,
}

/// Relay to device: the first frame of a stream the relay opens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deliver {
    /// [`crate::grant::SignedGrant`], encoded.
    #[n(0)]
    pub grant: ByteVec,
    /// Why its user broke the glass, for the device's log. It obliges to nothing.
    #[n(1)]
    pub break_glass: Option<String>,
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
