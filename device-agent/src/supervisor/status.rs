//! What `belay-agent status` shows, left in the state directory by the running agent.

use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use serde::{Deserialize, Serialize};

use crate::state::{Enrolment, State};

/// The agent's last word about its line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusFile {
    /// Device id.
    pub device: String,
    /// Device name.
    pub name: String,
    /// The relay it dials.
    pub relay: String,
    /// Whether the line was up when this was written.
    pub online: bool,
    /// When this was written, by the device's own clock.
    pub since: UnixTime,
    /// Why there is no line.
    pub reason: Option<String>,
    /// Process that wrote it.
    pub pid: u32,
    /// How far the device's clock is behind the relay's, in seconds.
    pub clock_behind_s: Option<i64>,
}

pub(super) struct Status {
    state: State,
    plain: StatusFile,
}

impl Status {
    pub(super) fn new(state: State, enrolment: &Enrolment) -> Self {
        let plain = StatusFile {
            device: enrolment.device.to_string(),
            name: enrolment.name.to_string(),
            relay: enrolment.relay.clone(),
            online: false,
            since: clock::now(),
            reason: None,
            pid: std::process::id(),
            clock_behind_s: None,
        };
        Self { state, plain }
    }

    pub(super) fn up(&self, clock_behind_s: i64) {
        self.leave(StatusFile {
            online: true,
            since: clock::now(),
            clock_behind_s: Some(clock_behind_s),
            ..self.plain.clone()
        });
    }

    pub(super) fn down(&self, why: &str) {
        let reason = Some(why.to_owned());
        self.leave(StatusFile { since: clock::now(), reason, ..self.plain.clone() });
    }

    fn leave(&self, mut status: StatusFile) {
        // The relay may have given this device another name since.
        if let Ok(enrolment) = self.state.enrolment() {
            status.name = enrolment.name.to_string();
        }
        let written = serde_json::to_vec(&status)
            .map_err(anyhow::Error::from)
            .and_then(|json| Ok(self.state.set_status(&json)?));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot leave a word for `belay-agent status`");
        }
    }
}
