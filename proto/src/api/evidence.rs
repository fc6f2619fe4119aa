//! Evidence of one session: what the audit log has of it, and what makes up a bundle.

use serde::{Deserialize, Serialize};

use crate::audit::Digest;
use crate::ids::{DeviceId, SessionId, UserId};
use crate::names::{DeviceName, UserName};
use crate::time::UnixTime;

/// Most entries in one [`LogSession`]: with a proof each, under 2 MB.
pub const MAX_SESSION_PAGE: u32 = 256;

/// Asks for a session's entries of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSessionRequest {
    /// Which session.
    pub session: SessionId,
    /// Those behind this entry; 0 for all.
    pub after: u64,
    /// Entries of the log they are to be proven in: those behind it are left out.
    pub size: u64,
}

/// Entries of the audit log that name one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSession {
    /// Up to which entry of the log this goes: where to ask on from. There are no more when it is the
    /// size that was asked for.
    pub upto: u64,
    /// In the log's order.
    pub entries: Vec<LogProven>,
}

/// One entry and the proof that the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProven {
    /// The line whose bytes are the leaf.
    pub entry: String,
    /// The audit path of RFC 6962 §2.1.1.
    pub hashes: Vec<Digest>,
}

/// Asks for what makes up a bundle of evidence, but for entries and recording, which are read by
/// themselves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// Which session.
    pub session: SessionId,
}

/// What the relay signs of a session, and the smaller parts of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// [`crate::audit::VerifierKey`] as text.
    pub vkey: String,
    /// [`crate::evidence::Manifest`] as a signed note.
    pub manifest: String,
    /// The checkpoint it names.
    pub checkpoint: String,
    /// The deployment CA's certificate: DER in base64.
    pub ca: String,
    /// [`SessionFacts`] as JSON, byte for byte as the manifest has its digest.
    pub facts: String,
    /// The grants as their devices were sent them, in base64.
    pub grants: Vec<String>,
}

/// What the relay's store says of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Id.
    pub session: SessionId,
    /// Whose.
    pub user: UserId,
    /// Their name when this was asked.
    pub user_name: Option<UserName>,
    /// On which device.
    pub device: DeviceId,
    /// Its name when this was asked.
    pub device_name: Option<DeviceName>,
    /// As which account there.
    pub login: String,
    /// What it carried, [`crate::wire::open::kind`].
    pub kind: String,
    /// What was granted.
    pub actions: Vec<String>,
    /// When it was opened.
    pub opened: UnixTime,
    /// When it had to end at the latest.
    pub ends: UnixTime,
    /// When it ended.
    pub closed: Option<UnixTime>,
    /// Why.
    pub why: Option<String>,
    /// How often a client was attached.
    pub attachments: u64,
    /// Bytes to the device.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
}
