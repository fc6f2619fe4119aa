//! What the HTTPS side asks about live lines. The registry answers; nothing here holds state.

use belay_proto::api;
use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::time::UnixTime;

use crate::store::Passed;

/// A device's line at this moment.
#[derive(Debug, Clone)]
pub struct Present {
    /// As the interface shows it.
    pub line: api::Line,
    /// When the device last answered a probe.
    pub last_seen: UnixTime,
}

/// Knows which devices hold a line, and which sessions have a client.
pub trait Presence: Send + Sync + 'static {
    /// The device's line; `None` when it holds none. Must not block: the list of devices asks once
    /// a device.
    fn line(&self, device: DeviceId) -> Option<Present>;

    /// Whether the device holds a line. Asks the device nothing.
    fn holds_line(&self, device: DeviceId) -> bool;

    /// What has passed over a session's present attachment; `None` when it has no client now.
    fn attached(&self, session: SessionId) -> Option<Passed>;
}

/// No device holds a line: for a relay without its QUIC side, in tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NobodyPresent;

impl Presence for NobodyPresent {
    fn line(&self, _: DeviceId) -> Option<Present> {
        None
    }

    fn holds_line(&self, _: DeviceId) -> bool {
        false
    }

    fn attached(&self, _: SessionId) -> Option<Passed> {
        None
    }
}
