//! The supervisor: holds the line, checks grants, starts a worker for every session.
//!
//! Its law: it never touches a session's plaintext, and it never gives up. A line that ends is
//! dialled again for ever, with jitter, soon. Sessions belong to the device, not to a line nor to
//! this process: they go on when either ends. What it is not: it speaks no SSH and drops no
//! privileges; workers do.
//!
//! `line` makes a line, `hold` holds it and `better` looks for a better one; `session` serves each stream the relay opens on it.
//! `sessions` is what there is, `keeper` keeps one, `adopt` takes over what was left running. `spool`
//! keeps what was recorded, and `upload` brings it to the relay.

mod adopt;
mod attachment;
mod better;
mod certificate;
mod eager;
mod hold;
mod keeper;
mod line;
mod mapping;
mod networks;
mod renewal;
mod replay;
mod session;
mod sessions;
mod spool;
mod status;
mod tell;
mod upload;
mod utmp;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Context as _;
use belay_proto::grant::{Grant, GrantError, SignedGrant, Verified};
use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;
use belay_proto::wire::control::Run;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::picker::{History, Trouble};
use belay_tunnel::clock;
use belay_tunnel::pki::GrantVerifier;
use belay_tunnel::reach::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::session_dir::SessionDir;
use crate::state::{Enrolment, State};
use hold::Outcome;
use line::{Line, LineError};
pub(crate) use networks::known_nat;
use replay::Seen;
use sessions::Sessions;
use spool::Spool;
use status::Status;
pub use status::{Loss, StatusFile};

/// What every part of the supervisor shares.
struct Agent {
    state: State,
    enrolment: Enrolment,
    grant_keys: GrantVerifier,
    /// Seconds to add to the local clock to get the relay's.
    correction: AtomicI64,
    seen: Seen,
    sessions: Arc<Sessions>,
    status: Status,
    /// Where recordings wait for the relay; `None` where the disk has no place for them.
    spool: Option<Arc<Spool>>,
    /// What was seen of the carriers, over all lines.
    history: Arc<History>,
    run: Option<Run>,
    stop: CancellationToken,
}

impl Agent {
    /// The relay's time, as well as this device knows it.
    fn now(&self) -> UnixTime {
        clock::now().corrected(self.correction.load(Ordering::Relaxed))
    }

    /// The relay's time in milliseconds.
    fn now_ms(&self) -> u64 {
        self.now().0.saturating_mul(1000)
    }

    /// A recording whose worker is gone has ended, whether it was ended or not.
    async fn cut_recording(&self, session: SessionId) {
        let Some(spool) = self.spool.clone() else { return };
        let now = self.now_ms();
        let cut = tokio::task::spawn_blocking(move || spool.cut(session, now)).await;
        match cut {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = belay_proto::error_line::one_line(&error);
                tracing::error!(%session, error, "a recording cannot be ended");
            }
            Err(error) => tracing::error!(%session, %error, "ending a recording failed"),
        }
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
    let sessions = SessionDir::open(state.dir()).context("cannot make the sessions' directory")?;
    // A disk that takes nothing must not keep the device away; only copies go unnoticed then.
    let run = state
        .begin_run()
        .inspect_err(|error| tracing::warn!(%error, "cannot keep which run this is"))
        .ok();
    let agent = Arc::new(Agent {
        run,
        grant_keys: enrolment.grant_verifier()?,
        // A clock that is behind the last time a relay told us is wrong by at least that much.
        correction: AtomicI64::new(state.relay_time().correction_from(clock::now()).max(0)),
        seen: Seen::default(),
        sessions: Arc::new(Sessions::new(sessions)),
        status: Status::new(state.clone(), &enrolment),
        spool: open_spool(&state, &enrolment),
        history: Arc::default(),
        state,
        enrolment,
        stop,
    });
    tracing::info!(
        device = %agent.enrolment.device, name = %agent.enrolment.name, %relay, "agent started"
    );
    adopt::adopt_all(&agent).await.context("cannot look for running sessions")?;
    let syncing = TaskTracker::new();
    let sync_until = CancellationToken::new();
    if let Some(spool) = &agent.spool {
        syncing.spawn(Arc::clone(spool).keep_synced(sync_until.clone()));
    }
    let held = hold_lines(&agent, &relay).await;
    // The keepers see the stop too, and leave their workers running.
    agent.stop.cancel();
    agent.sessions.keepers.close();
    agent.sessions.keepers.wait().await;
    syncing.close();
    sync_until.cancel();
    syncing.wait().await;
    held?;
    agent.status.down("the agent was stopped");
    tracing::info!("agent stopped");
    Ok(())
}

/// Where recordings wait. Without it the device says that it cannot record, and works.
fn open_spool(state: &State, enrolment: &Enrolment) -> Option<Arc<Spool>> {
    let opened = state.key().map_err(anyhow::Error::from).and_then(|key| {
        Spool::open(state.dir(), key, enrolment.device).context("cannot open the spool")
    });
    opened
        .inspect_err(|error| {
            let error = format!("{error:#}");
            tracing::error!(error, "no place for recordings; sessions that need one are refused");
        })
        .ok()
        .map(Arc::new)
}

/// One line after another, until the agent is to stop.
async fn hold_lines(agent: &Arc<Agent>, relay: &RelayAddress) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    let mut lost = Instant::now();
    loop {
        let eager_until = (!agent.sessions.is_empty()).then_some(lost + eager::EAGER_FOR);
        let line = tokio::select! {
            line = connect(agent, relay, eager_until) => line,
            () = agent.stop.cancelled() => return Ok(()),
        };
        let (why, told) = match line {
            Ok(mut line) => {
                backoff.connected();
                // Sees a stop by itself, and says goodbye to the relay.
                let ended = loop {
                    match hold::hold(line, agent, relay).await {
                        Outcome::Moved(next) => line = *next,
                        Outcome::Lost(lost) => break (lost.why, lost.told_to_wait),
                    }
                };
                lost = Instant::now();
                ended
            }
            Err(error) => {
                if matches!(&error, LineError::Unreached(why) if why.finds(Trouble::Busy)) {
                    backoff.turned_away();
                }
                (belay_proto::error_line::one_line(&error), error.told_to_wait())
            }
        };
        backoff.told(told);
        if agent.stop.is_cancelled() {
            return Ok(());
        }
        // Somebody waits; but a relay that gave a slot knows that, and when it takes anybody.
        let waited_for = !agent.sessions.is_empty() && lost.elapsed() < eager::EAGER_FOR;
        let eager = waited_for && told.is_none();
        let wait = if eager {
            eager::EAGER
        } else {
            backoff.wait().context("no randomness for the back-off")?
        };
        agent.status.down(&why);
        tracing::warn!(why, retry_in_ms = wait.as_millis(), "no line");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = agent.stop.cancelled() => return Ok(()),
        }
    }
}

/// A line; while somebody waits, with attempts that do not wait for each other.
async fn connect(
    agent: &Arc<Agent>,
    relay: &RelayAddress,
    eager_until: Option<Instant>,
) -> Result<Line, LineError> {
    if let Some(until) = eager_until.filter(|until| *until > Instant::now()) {
        let eager =
            eager::dial(Arc::clone(agent), relay.clone(), |agent, why| agent.status.down(why));
        if let Ok(line) = tokio::time::timeout_at(until, eager).await {
            return line;
        }
    }
    Line::connect(agent, relay).await
}
