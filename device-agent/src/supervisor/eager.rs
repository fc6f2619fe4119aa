//! Dialling while somebody waits: a session is held, and its line is gone.

use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::address::RelayAddress;
use belay_tunnel::reach::insist;

use super::Agent;
use super::line::{Line, LineError};

/// Between two attempts: with the handshake and the way to the worker it is a second.
pub(super) const EAGER: Duration = Duration::from_millis(500);

/// For so long after a loss. Then the network is not coming back soon, and attempts cost data.
pub(super) const EAGER_FOR: Duration = Duration::from_secs(15 * 60);

/// Attempts under way at once: a handshake over a satellite takes longer than [`EAGER`].
const ATTEMPTS: usize = 8;

/// A new attempt every half second, until one is welcomed or one is answered in a way that the next
/// one would be too.
pub(super) async fn dial(agent: Arc<Agent>, relay: RelayAddress) -> Result<Line, LineError> {
    let attempt = || {
        let (agent, relay) = (Arc::clone(&agent), relay.clone());
        async move { Line::connect(&agent, &relay).await }
    };
    insist(EAGER, ATTEMPTS, attempt, LineError::is_an_answer).await
}
