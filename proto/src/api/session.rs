//! Sessions: what is listed of them, and how one is ended.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::names::{DeviceName, UserName};
use crate::time::UnixTime;

/// One open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Id.
    pub id: SessionId,
    /// Whose.
    pub user: UserName,
    /// On which device.
    pub device: DeviceName,
    /// As which account there.
    pub login: String,
    /// What it carries, [`crate::wire::open::kind`].
    pub kind: String,
    /// When it was opened.
    pub opened: UnixTime,
    /// When it ends at the latest.
    pub ends: UnixTime,
    /// Whether a client is attached to it now. One that is not waits for it.
    pub attached: bool,
    /// How often one was.
    pub attachments: u64,
    /// Bytes to the device, as far as attachments have ended.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
}

/// Ends a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Why: for the record, and for whoever is in the session. 1 to [`super::MAX_REASON`] bytes.
    pub reason: String,
}

/// A session that is ended: on record, and being ended wherever it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Which.
    pub session: SessionId,
    /// Whose it was.
    pub user: UserName,
    /// On which device.
    pub device: DeviceName,
    /// As which account there.
    pub login: String,
    /// Whether the device holds a line. One that does not ends its programs when it is back.
    pub device_online: bool,
}
