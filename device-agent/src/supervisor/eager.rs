//! Dialling while somebody waits: a session is held, and its line is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::reach::insist;
use tokio::time::timeout;

use super::Agent;
use super::line::{Line, LineError};

/// Between two attempts: with the handshake and the way to the worker it is a second.
pub(super) const EAGER: Duration = Duration::from_millis(500);

/// For so long after a loss. Then the network is not coming back soon, and attempts cost data.
pub(super) const EAGER_FOR: Duration = Duration::from_secs(15 * 60);

/// Attempts under way at once: a handshake over a satellite takes longer than [`EAGER`].
const ATTEMPTS: usize = 8;

/// How long an attempt lets another one greet alone. A relay ends the line before the one it
/// welcomes, and when a network comes back all attempts under way get through to it at once.
const GREETS_ALONE: Duration = Duration::from_secs(1);

/// A new attempt every half second, until one is welcomed or one is answered in a way that the next
/// one would be too.
///
/// Why there is none is logged once and given to `tell`, and again when it is another reason.
pub(super) async fn dial(
    agent: Arc<Agent>,
    relay: RelayAddress,
    tell: impl Fn(&Agent, &str) + Copy + Send + 'static,
) -> Result<Line, LineError> {
    let told = Arc::new(Mutex::new(String::new()));
    let greeting = Arc::new(tokio::sync::Mutex::new(()));
    let attempt = || {
        let (agent, relay, told) = (Arc::clone(&agent), relay.clone(), Arc::clone(&told));
        let greeting = Arc::clone(&greeting);
        async move {
            let line = async {
                let carrier = Line::dial(&agent, &relay).await?;
                let alone = timeout(GREETS_ALONE, greeting.lock_owned()).await;
                // Whose turn it would be now shall not greet any more: the turn goes with the line.
                Line::over(&agent, carrier).await.map(|line| (line, alone))
            };
            let line = line.await;
            if let Err(error) = &line {
                let why = one_line(error);
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if *told != why {
                    tell(&agent, &why);
                    tracing::warn!(why, "no line yet");
                    *told = why;
                }
            }
            line
        }
    };
    let (line, _alone) = insist(EAGER, ATTEMPTS, attempt, LineError::is_an_answer).await?;
    Ok(line)
}
