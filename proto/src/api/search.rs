//! Searching what was recorded.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, SessionId};
use crate::names::{DeviceName, UserName};
use crate::time::UnixTime;

/// Longest text searched for, in bytes.
pub const MAX_SEARCH_TEXT: usize = 256;

/// Most hits in one answer.
pub const MAX_SEARCH_HITS: u32 = 1000;

/// Most recordings in one [`SealedPage`].
pub const MAX_SEALED_PAGE: u32 = 1000;

/// Asks which recordings show a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// The text, as it stands in one line; small and capital letters are the same. Where it begins with a
    /// letter or digit, a word must begin there.
    pub text: String,
    /// Nothing older.
    pub since: Option<UnixTime>,
    /// Only on this device: name or id.
    pub device: Option<String>,
    /// Only this person's sessions: name.
    pub user: Option<String>,
    /// How many at most, 1 to [`MAX_SEARCH_HITS`]: the newest.
    pub limit: u32,
}

/// One line that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchHit {
    /// In which session's recording.
    pub session: SessionId,
    /// Whose session, by their name now.
    pub user: Option<UserName>,
    /// On which device, by its name now.
    pub device: Option<DeviceName>,
    /// As which account there.
    pub login: Option<String>,
    /// Which terminal or command.
    pub track: u32,
    /// When it was shown, by the relay's clock as the device knew it.
    pub at: UnixTime,
    /// The same in milliseconds since the track began: where to play from.
    pub offset_ms: u64,
    /// `output`, `command` (what was run), `fact` (a file moved, a channel opened, …), or `screen` (what a
    /// full-screen program drew). Later versions may know more.
    pub kind: String,
    /// The line. Device-supplied, made printable.
    pub line: String,
    /// The command whose output it is, where that is known. Device-supplied, made printable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchAnswer {
    /// The newest first.
    pub hits: Vec<SearchHit>,
    /// Whether there are no others: neither beyond the limit nor beyond the time a search has.
    pub complete: bool,
    /// Recordings that are in the index.
    pub searched: u64,
    /// Recordings that are not yet: new ones, and all of them after the index was lost.
    pub waiting: u64,
    /// Recordings that go on, or have ended this moment: their last lines are not in the index.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub growing: u64,
    /// Recordings the relay cannot read: they are sealed to the auditors.
    pub sealed: u64,
    /// Recordings that are not what their device signed.
    pub damaged: u64,
    /// Recordings of which only the beginning is in the index: they are too long.
    pub cut: u64,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Asks which recordings are sealed: the relay cannot search them, whoever has a key can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRequest {
    /// Behind this session, in the order of their ids.
    pub after: Option<SessionId>,
    /// How many at most, 1 to [`MAX_SEALED_PAGE`].
    pub count: u32,
}

/// A recording that is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRecording {
    /// Of which session.
    pub session: SessionId,
    /// Whose session, by their name now.
    pub user: Option<UserName>,
    /// On which device, by its name now.
    pub device: Option<DeviceName>,
    /// The device.
    pub device_id: Option<DeviceId>,
    /// As which account there.
    pub login: Option<String>,
    /// Bytes of its file, when the relay looked last.
    pub bytes: u64,
}

/// Recordings that are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPage {
    /// In the order of their ids.
    pub recordings: Vec<SealedRecording>,
    /// Whether there are others behind them.
    pub more: bool,
}
