//! The control stream: the first stream of a carrier, opened by the one who dialled.
//!
//! Dialler: `Hello`. Relay: `Welcome` and the stream stays, or `Refused` and the carrier closes.
//! After that each frame is one [`Control`], in which exactly one field is set; a frame in which
//! no known field is set is a message of a newer peer and is ignored.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{DeviceId, Epoch, RunId, SessionId};
use crate::names::DeviceName;
use crate::refusal::Refused;
use crate::time::UnixTime;

/// Optional features, as they stand in [`Hello::capabilities`].
pub mod capability {
    /// A device that gives a session with a terminal to another client of the same person
    /// ([`crate::grant::Grant::anew`]).
    pub const ATTACH: &str = "attach";
    /// A device that records sessions ([`crate::recording`]), and a relay that takes recordings.
    pub const RECORD: &str = "record";
    /// A device that seals what it records ([`crate::recording::obligation::SEAL`]).
    pub const SEAL: &str = "seal";
    /// A device that records what is typed
    /// ([`crate::recording::obligation::RECORD_INPUT`]).
    pub const RECORD_INPUT: &str = "record-input";
    /// A device that lets a session join a terminal of another ([`crate::grant::Grant::joins`]).
    pub const JOIN: &str = "join";
}

/// The dialler's first message. Who it is stands in its certificate, not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Newest protocol version the dialler speaks. Absent means 0, which no relay speaks.
    #[n(0)]
    pub newest: Option<u16>,
    /// Oldest protocol version it speaks.
    #[n(1)]
    pub oldest: Option<u16>,
    /// Its wall clock.
    #[n(2)]
    pub clock: Option<UnixTime>,
    /// Its software, `belay-agent/0.1.0`. Peer-supplied text.
    #[n(3)]
    pub software: Option<String>,
    /// Its host name. Peer-supplied text.
    #[n(4)]
    pub hostname: Option<String>,
    /// Operating system and architecture, `linux/aarch64`. Peer-supplied text.
    #[n(5)]
    pub platform: Option<String>,
    /// Optional features by name. Unknown ones are ignored.
    #[n(6)]
    pub capabilities: Option<Vec<String>>,
    /// The name in its SSH host certificate (devices). The relay sends another certificate when
    /// the device was renamed.
    #[n(7)]
    pub name: Option<String>,
    /// The sessions it still has, with or without a client (devices); at most
    /// [`crate::limits::DEVICE_SESSIONS`]. The relay closes the others in its record.
    #[n(10)]
    pub sessions: Option<Vec<SessionId>>,
    /// Which run of the agent this is (devices). Two runs that live at once are two machines.
    #[n(11)]
    pub run: Option<Run>,
    /// The device keeps its NAT's mapping by itself: the relay asks so many seconds after each
    /// answer, until another number comes (devices). Absent: the relay chooses, and what it sends
    /// keeps the mapping.
    #[n(12)]
    pub ask_seconds: Option<u32>,
}

/// Which run of an agent this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    /// This one.
    #[n(0)]
    pub this: RunId,
    /// The one before it in the same state directory.
    #[n(1)]
    pub before: Option<RunId>,
}

/// The relay's answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The version both speak from here on.
    #[n(0)]
    pub version: u16,
    /// The relay's wall clock, which the dialler may trust over its own.
    #[n(1)]
    pub clock: UnixTime,
    /// This connection's epoch (devices).
    #[n(2)]
    pub epoch: Option<Epoch>,
    /// Seconds between the relay's probes. Silence for three of them means the line is gone.
    #[n(3)]
    pub probe_seconds: Option<u32>,
    /// The certificate has expired: the relay takes a renewal and nothing else (devices).
    #[n(4)]
    pub renew_only: Option<bool>,
    /// What the device must trust now, when it is not what it enrolled with.
    #[n(5)]
    pub trust: Option<Trust>,
    /// The relay's features by name.
    #[n(6)]
    pub capabilities: Option<Vec<String>>,
}

/// What the relay answers to `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HelloAnswer {
    /// Admitted.
    #[n(0)]
    pub welcome: Option<Welcome>,
    /// Not admitted; the carrier closes.
    #[n(1)]
    pub refused: Option<Refused>,
}

/// Keys a device pins. Sent at enrolment and again when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Trust {
    /// SSH user CA public keys, OpenSSH one-line form.
    #[n(0)]
    pub ssh_user_cas: Option<Vec<String>>,
    /// Grant verification keys: raw Ed25519 public keys (RFC 8032), 32 bytes each.
    #[n(1)]
    pub grant_keys: Option<Vec<ByteVec>>,
}

/// One frame on the control stream after the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Control {
    /// Either side: answer with `pong` of the same number.
    #[n(0)]
    pub ping: Option<u64>,
    /// The answer.
    #[n(1)]
    pub pong: Option<u64>,
    /// Device: asks for a new certificate.
    #[n(2)]
    pub renew: Option<Renew>,
    /// Relay: the new certificate.
    #[n(3)]
    pub renewed: Option<Renewed>,
    /// Relay: why the carrier is about to close.
    #[n(4)]
    pub goodbye: Option<Refused>,
    /// Relay: new keys to pin.
    #[n(5)]
    pub trust: Option<Trust>,
    /// Relay to client: a session over this carrier was ended, and why; its stream is reset after
    /// this. Relay to device: end this session. Device to relay: it has ended, and why.
    #[n(6)]
    pub ended: Option<Ended>,
    /// Relay: the device has another name now.
    #[n(7)]
    pub renamed: Option<Renamed>,
    /// Device: from now on ask so many seconds after each answer, this one first.
    #[n(8)]
    pub ask_seconds: Option<u32>,
}

/// A device's new name, and the SSH host certificate that says it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renamed {
    /// The name.
    #[n(0)]
    pub name: DeviceName,
    /// OpenSSH one-line form.
    #[n(1)]
    pub ssh_host_certificate: String,
}

/// A session that ended or is to end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ended {
    /// Which.
    #[n(0)]
    pub session: SessionId,
    /// Why.
    #[n(1)]
    pub reason: Refused,
}

/// A certificate request (PKCS #10, RFC 2986) for a key the device already holds or has just made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renew {
    /// DER.
    #[n(0)]
    pub csr: ByteVec,
    /// The SSH host public key to certify, OpenSSH one-line form.
    #[n(1)]
    pub ssh_host_key: Option<String>,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewed {
    /// The device this is for.
    #[n(0)]
    pub device: DeviceId,
    /// X.509 certificate, DER.
    #[n(1)]
    pub certificate: ByteVec,
    /// SSH host certificate, OpenSSH one-line form.
    #[n(2)]
    pub ssh_host_certificate: Option<String>,
}
