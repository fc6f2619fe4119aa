//! Legal holds, and recordings that are deleted.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::names::UserName;
use crate::time::UnixTime;

/// Asks that what concerns one session, one device or one person is not deleted. Exactly one of
/// the three is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// One session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// All sessions on a device, past and to come: its name or UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// All sessions of a person, past and to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Why, 1 to [`super::MAX_REASON`] bytes.
    pub reason: String,
}

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its number.
    pub id: u64,
    /// `session`, `device` or `user`.
    pub what: String,
    /// The id of what is held.
    pub target: String,
    /// Its name now: of a device or a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why it was placed.
    pub reason: String,
    /// When it was.
    pub placed: UnixTime,
    /// By whom.
    pub placed_by: Option<UserName>,
    /// How it ended, when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<HoldRelease>,
}

/// How a hold ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRelease {
    /// When.
    pub at: UnixTime,
    /// By whom.
    pub by: Option<UserName>,
    /// Why.
    pub reason: String,
}

/// Why something is released or deleted, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// 1 to [`super::MAX_REASON`] bytes.
    pub reason: String,
}

/// What was there of a recording that is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingDeleted {
    /// Of which session.
    pub session: SessionId,
    /// When.
    pub at: UnixTime,
    /// By which rule, or by whom and why.
    pub why: String,
    /// The number of its last segment.
    pub last_segment: Option<u64>,
    /// SHA-256 of that, in hexadecimal: the head of its chain.
    pub head: Option<String>,
    /// Bytes of its file.
    pub bytes: u64,
    /// `whole`, `cut` or `unfinished`.
    pub state: String,
}
