//! A better line while one is held: QUIC, when the line is on the fallback.
//!
//! Its law: the line that is held stays until the relay has welcomed the other one.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::picker::quic_again;

use super::Agent;
use super::line::{self, Line, LineError};

/// A line that is being dialled or greeted.
pub(super) type Coming = Pin<Box<dyn Future<Output = Result<Line, LineError>> + Send>>;

/// How far it is.
pub(super) enum Better {
    /// There is none.
    Nothing,
    /// Looking for QUIC.
    Looking(Pin<Box<dyn Future<Output = Carrier> + Send>>),
    /// QUIC is there, and the relay is asked for a welcome.
    Greeting(Coming),
}

impl Better {
    /// What this line wants.
    pub(super) fn than(line: &Line, agent: &Arc<Agent>, relay: &RelayAddress) -> Self {
        if !line.carrier.is_fallback() {
            return Self::Nothing;
        }
        let (agent, relay) = (Arc::clone(agent), relay.clone());
        Self::Looking(Box::pin(quic_again(move || match line::wanted(&agent, &relay) {
            Ok(wanted) => Some(wanted),
            Err(error) => {
                tracing::warn!(error = %belay_proto::error_line::one_line(&error), "cannot look for QUIC");
                None
            }
        })))
    }

    /// Waits for the other line, or why it is not welcome. Cancelling loses nothing.
    pub(super) async fn next(&mut self, agent: &Arc<Agent>) -> Result<Line, LineError> {
        loop {
            match self {
                Self::Nothing => return pending().await,
                Self::Looking(looking) => {
                    let carrier = looking.await;
                    tracing::debug!("QUIC again; asking the relay for a welcome");
                    let agent = Arc::clone(agent);
                    *self =
                        Self::Greeting(Box::pin(async move { Line::over(&agent, carrier).await }));
                }
                Self::Greeting(greeting) => {
                    let greeted = greeting.await;
                    *self = Self::Nothing;
                    return greeted;
                }
            }
        }
    }

    /// Whether the relay may know of it already, so that a goodbye on the line that is held may
    /// mean that this one took its place.
    pub(super) const fn is_greeting(&self) -> bool {
        matches!(self, Self::Greeting(_))
    }
}
