//! Recordings of sessions.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::names::{DeviceName, UserName};
use crate::time::UnixTime;

/// A recording of a session, as the relay has it. What it shows is in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// Of which session.
    pub session: SessionId,
    /// Whose session, as the relay's record says.
    pub user: Option<UserName>,
    /// On which device, by its name now.
    pub device: Option<DeviceName>,
    /// As which account there.
    pub login: Option<String>,
    /// When the session was opened.
    pub opened: Option<UnixTime>,
    /// When the last event of the recording happened.
    pub last: UnixTime,
    /// How many segments are there, those included that the device could not keep.
    pub segments: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// `whole`, `cut`, or `unfinished`: the end is still to come, or never will.
    pub state: String,
}
