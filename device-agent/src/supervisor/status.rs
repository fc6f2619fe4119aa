//! What `belay-agent status` shows, left in the state directory by the running agent.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// What the line runs over: `quic` or `websocket`.
    pub carrier: Option<String>,
    /// The last time since its start that the agent had no line, and why.
    pub last_loss: Option<Loss>,
    /// Process that wrote it.
    pub pid: u32,
    /// How far the device's clock is behind the relay's, in seconds.
    pub clock_behind_s: Option<i64>,
}

/// A line that ended, or did not come up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loss {
    /// When, by the device's own clock.
    pub at: UnixTime,
    /// Why.
    pub reason: String,
}

pub(super) struct Status {
    state: State,
    plain: StatusFile,
    last_loss: Mutex<Option<Loss>>,
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
            carrier: None,
            last_loss: None,
            pid: std::process::id(),
            clock_behind_s: None,
        };
        Self { state, plain, last_loss: Mutex::default() }
    }

    fn last_loss(&self) -> MutexGuard<'_, Option<Loss>> {
        self.last_loss.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn up(&self, carrier: &str, clock_behind_s: i64) {
        let last_loss = self.last_loss().clone();
        self.leave(StatusFile {
            online: true,
            since: clock::now(),
            carrier: Some(carrier.to_owned()),
            last_loss,
            clock_behind_s: Some(clock_behind_s),
            ..self.plain.clone()
        });
    }

    pub(super) fn down(&self, why: &str) {
        let loss = Loss { at: clock::now(), reason: why.to_owned() };
        let last_loss = Some(loss.clone());
        *self.last_loss() = last_loss.clone();
        let Loss { at: since, reason } = loss;
        self.leave(StatusFile { since, reason: Some(reason), last_loss, ..self.plain.clone() });
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
