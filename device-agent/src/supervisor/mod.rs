//! The supervisor: holds the line, checks grants, starts a worker for every session.
//!
//! Its law: it never touches a session's plaintext, and it never gives up. A line that ends is
//! dialled again for ever, with jitter, soon. What it is not: it speaks no SSH and drops no
//! privileges; workers do.

mod backoff;
mod line;
mod renewal;
mod replay;
mod session;
mod status;
mod utmp;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Context as _;
use belay_proto::grant::{Grant, GrantError, SignedGrant, Verified};
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use belay_tunnel::pki::GrantVerifier;
use tokio_util::sync::CancellationToken;

use crate::state::{Enrolment, State};
use backoff::Backoff;
use line::Line;
use replay::Seen;
use status::Status;
pub use status::StatusFile;

/// What every part of the supervisor shares.
struct Agent {
    state: State,
    enrolment: Enrolment,
    grant_keys: GrantVerifier,
    /// Seconds to add to the local clock to get the relay's.
    correction: AtomicI64,
    seen: Seen,
    status: Status,
    stop: CancellationToken,
}

impl Agent {
    /// The relay's time, as well as this device knows it.
    fn now(&self) -> UnixTime {
        clock::now().corrected(self.correction.load(Ordering::Relaxed))
    }

    /// The relay told its time.
    fn told_time(&self, relay: UnixTime) {
        self.correction.store(relay.correction_from(clock::now()), Ordering::Relaxed);
        if let Err(error) = self.state.set_relay_time(relay) {
            tracing::warn!(%error, "cannot keep the relay's time");
        }
    }

    fn verify(&self, grant: &[u8]) -> Result<Verified<Grant>, GrantError> {
        SignedGrant::verify(grant, &self.grant_keys, self.enrolment.device, self.now())
    }
}

/// Holds the line until `stop`.
///
/// # Errors
/// Only for what no waiting mends: not enrolled, damaged state, another agent running.
pub async fn run(state: State, stop: CancellationToken) -> anyhow::Result<()> {
    let enrolment = state.enrolment()?;
    let _lock = state.lock()?;
    let relay = enrolment.relay_address()?;
    let agent = Arc::new(Agent {
        grant_keys: enrolment.grant_verifier()?,
        // A clock that is behind the last time a relay told us is wrong by at least that much.
        correction: AtomicI64::new(state.relay_time().correction_from(clock::now()).max(0)),
        seen: Seen::default(),
        status: Status::new(state.clone(), &enrolment),
        state,
        enrolment,
        stop,
    });
    tracing::info!(
        device = %agent.enrolment.device, name = %agent.enrolment.name, %relay, "agent started"
    );
    let mut backoff = Backoff::default();
    loop {
        let line = tokio::select! {
            line = Line::connect(&agent, &relay) => line,
            () = agent.stop.cancelled() => break,
        };
        let ended = match line {
            Ok(line) => {
                backoff.connected();
                // Sees a stop by itself, and says goodbye to the relay.
                Ok(line.hold(&agent).await)
            }
            Err(error) => Err(error),
        };
        if agent.stop.is_cancelled() {
            break;
        }
        let why = match ended {
            Ok(why) => why,
            Err(error) => belay_proto::error_line::one_line(&error),
        };
        let wait = backoff.next().context("no randomness for the back-off")?;
        tracing::warn!(why, retry_in_ms = wait.as_millis(), "no line");
        agent.status.down(&why);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = agent.stop.cancelled() => break,
        }
    }
    agent.status.down("the agent was stopped");
    tracing::info!("agent stopped");
    Ok(())
}
