//! How long a round trip takes when nothing of ours waits in a queue.
//!
//! The least seen, until it is [`STALE`] old; then the sender steps back to half of what the path
//! holds until a few packets have gone through the empty queue, and believes those. Law: a round
//! trip is believed as the base only if it is the least, or if the packet left while we stepped
//! back.

use std::time::{Duration, Instant};

/// Age at which the base is looked at anew.
const STALE: Duration = Duration::from_secs(5);

/// Age in round trips below which it is not, so that a long path does not step back all the time.
const STALE_ROUNDS: f64 = 16.0;

/// A round trip within this of the base confirms it, in parts of the base and in seconds.
const NEAR: (f64, f64) = (0.03, 0.0005);

/// Rounds in one half of the recent past.
const HALF: u8 = 8;

/// What the recent past may say above the least, in parts of it.
const MOST: f64 = 1.15;

/// A path this much longer than before is another path.
const LONGER: f64 = 1.3;

#[derive(Debug, Clone)]
enum Look {
    /// No.
    No,
    /// Waiting for our own queue to drain.
    Draining,
    /// Packets sent since then count; the least so far.
    Clear(Instant, f64),
}

/// The base round trip.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The least.
    seconds: f64,
    /// Least of the rounds under way, and of those before.
    recent: f64,
    before: f64,
    rounds: u8,
    seen: Instant,
    look: Look,
}

impl Base {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            seconds: f64::INFINITY,
            recent: f64::INFINITY,
            before: f64::INFINITY,
            rounds: 0,
            seen: now,
            look: Look::No,
        }
    }

    /// Seconds; infinite when nothing is known.
    pub(super) fn get(&self) -> f64 {
        self.recent.min(self.before).clamp(self.seconds, self.seconds * MOST)
    }

    /// The least of all, in seconds; infinite when nothing is known.
    pub(super) const fn least(&self) -> f64 {
        self.seconds
    }

    /// A full round is over.
    pub(super) const fn round(&mut self) {
        self.rounds += 1;
        if self.rounds >= HALF {
            self.rounds = 0;
            self.before = self.recent;
            self.recent = f64::INFINITY;
        }
    }

    /// Whether to hold back now.
    pub(super) const fn looking(&self) -> bool {
        !matches!(self.look, Look::No)
    }

    /// Old enough to be looked at anew.
    pub(super) fn stale(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.seen);
        age > STALE && age.as_secs_f64() > STALE_ROUNDS * self.seconds
    }

    /// Starts to step back.
    pub(super) const fn look(&mut self) {
        if !self.looking() {
            self.look = Look::Draining;
        }
    }

    /// While draining: what is in flight is now no more than was stepped back to.
    pub(super) const fn drained(&mut self, now: Instant) {
        if matches!(self.look, Look::Draining) {
            self.look = Look::Clear(now, f64::INFINITY);
        }
    }

    /// A round trip of a packet. Says whether a look has shown that the path became longer.
    pub(super) fn seen(&mut self, now: Instant, sent: Instant, rtt: f64) -> bool {
        if rtt <= self.seconds * (1.0 + NEAR.0) + NEAR.1 {
            self.seen = now;
        }
        self.seconds = self.seconds.min(rtt);
        self.recent = self.recent.min(rtt);
        if let Look::Clear(since, least) = &mut self.look
            && sent >= *since
        {
            *least = least.min(rtt);
            let heard = sent.saturating_duration_since(*since).as_secs_f64();
            if heard > *least / 4.0 {
                let longer = *least > self.seconds * LONGER;
                self.seconds = *least;
                self.seen = now;
                self.look = Look::No;
                return longer;
            }
        }
        false
    }

    /// The path was away: what is looked for may never come.
    pub(super) const fn give_up(&mut self, now: Instant) {
        self.look = Look::No;
        self.seen = now;
    }
}
