//! Sessions: what is listed of them, and how one is ended.

use serde::{Deserialize, Serialize};

use super::join::{Guest, Joins};
use crate::ids::SessionId;
use crate::names::{DeviceName, UserName};
use crate::time::UnixTime;

/// Most sessions on one page of [`SessionsPage`].
pub const MAX_SESSIONS: u32 = 500;

/// One session.
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
    /// Bytes to the device so far.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<SessionOver>,
    /// Somebody ends it: who and why, in one line. It is over in a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// Whether its device holds a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_online: Option<bool>,
    /// Its recording as the relay has it: `none`, or one of [`super::Recording::state`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// Why its user broke the glass: it was opened though it might not be recorded as it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
    /// Who looks on now, as its recording grows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched_by: Vec<UserName>,
    /// The session it joins a terminal of, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<Joins>,
    /// Who has joined a terminal of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined_by: Vec<Guest>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOver {
    /// When.
    pub at: UnixTime,
    /// Why, in one line.
    pub why: String,
}

/// Asks for sessions, ended ones too, the newest first. What is absent restricts nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionsRequest {
    /// This person's, by name.
    pub user: Option<String>,
    /// On this device, by name or UUID.
    pub device: Option<String>,
    /// As this account there.
    pub login: Option<String>,
    /// Opened then or later.
    pub since: Option<UnixTime>,
    /// Older than this one: the last of the page before.
    pub before: Option<SessionId>,
    /// So many at most, 1 to [`MAX_SESSIONS`].
    pub count: u32,
}

/// Sessions, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsPage {
    /// At most as many as were asked for.
    pub sessions: Vec<Session>,
    /// Whether there are older ones.
    pub more: bool,
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
