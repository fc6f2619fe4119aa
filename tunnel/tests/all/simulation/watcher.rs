//! Looks at one end of the session all the time, and says what must not be.

use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::stream::{Attacher, Config, Link};
use tokio::time::{Instant, sleep};

use super::hearing::Hearing;
use super::suspension::Suspension;
use super::tally::Tally;

const LOOK: Duration = Duration::from_millis(250);

/// An end asks no later than this for a word when its bytes were all taken but more would not be:
/// `proto/src/resume/silence.rs`, `BLOCKED`.
const BLOCKED: Duration = Duration::from_secs(30);

/// Its patience otherwise: three round trips, within bounds; before one was measured, of a second.
fn patience(round_trip: Option<Duration>) -> Duration {
    let three = round_trip.unwrap_or(Duration::from_secs(1)) * 3;
    three.clamp(Duration::from_secs(2), Duration::from_secs(10))
}

/// One end, and what it has to say in all.
pub(super) struct Watched {
    pub(super) name: &'static str,
    pub(super) attacher: Attacher,
    pub(super) hearing: Hearing,
    pub(super) config: Config,
    pub(super) says: u64,
    pub(super) process: Arc<Suspension>,
}

impl Watched {
    /// Looks until something is wrong; what.
    pub(super) async fn watch(&self, other: &Self, tally: &Tally) -> String {
        let least = belay_proto::resume::LEAST_BUFFER;
        // Twice as much on a long path.
        let replay = 2 * self.config.replay.max(least);
        // Then it never waits for room.
        let roomy = other.config.window.max(least) as u64 >= self.says;
        let (mut waiting_since, mut owed_since) = (Instant::now(), Instant::now());
        let mut was_silent = false;
        loop {
            sleep(LOOK).await;
            let traffic = self.attacher.traffic();
            if traffic.unacknowledged > replay {
                return format!("{} holds {} bytes", self.name, traffic.unacknowledged);
            }
            if let Some(early) = self.closed_early(other) {
                return early;
            }
            let link = *self.attacher.link().borrow();
            let silent = matches!(link, Link::Silent { .. });
            if silent && !was_silent {
                tally.count(|counts| counts.silences += 1);
            }
            was_silent = silent;
            if self.process.is_frozen() {
                (waiting_since, owed_since) = (Instant::now(), Instant::now());
                continue;
            }
            if self.attacher.detached_for().is_some() {
                if link == Link::Up {
                    return format!("{} has no attachment and does not say so", self.name);
                }
                (waiting_since, owed_since) = (Instant::now(), Instant::now());
                continue;
            }
            let hearing = self.hearing.now();
            let deaf = match link {
                Link::Up => false,
                Link::Silent { since } => hearing.heard > Some(since),
                Link::Down { .. } => hearing.heard.is_some(),
            };
            if deaf {
                return format!("{} hears and says that it does not: {link:?}", self.name);
            }
            if silent || traffic.unacknowledged == 0 {
                waiting_since = Instant::now();
            }
            // What the other end has and did not say is an answer that is due.
            if silent || traffic.acknowledged >= other.attacher.traffic().received {
                owed_since = Instant::now();
            }
            let last = hearing.heard.unwrap_or(hearing.attached);
            let patience = patience(traffic.round_trip);
            let bound = if roomy { patience } else { BLOCKED };
            for (since, bound) in [(waiting_since, bound), (owed_since, patience)] {
                let quiet = since.max(last).elapsed();
                if quiet > bound + LOOK {
                    let name = self.name;
                    return format!("{name} has heard nothing for {quiet:?} and does not say so");
                }
            }
        }
    }

    /// It needs the other no more only when both have everything.
    pub(super) fn closed_early(&self, other: &Self) -> Option<String> {
        let (here, there) = (self.attacher.traffic(), other.attacher.traffic());
        let all = there.received == self.says && here.received == other.says;
        (self.attacher.is_closed() && !all).then(|| {
            format!(
                "{} is closed with {} received, {} at the other",
                self.name, here.received, there.received
            )
        })
    }
}
