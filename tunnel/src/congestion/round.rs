//! One round trip's worth of acknowledgements, and the delivery rate over it.
//!
//! A round begins at a batch of acknowledgements and ends when a packet sent after that moment has
//! been acknowledged. Law: bytes acknowledged by the batch that begins a round are not counted in
//! it, so that acknowledgements that arrive in clumps do not raise the rate.

use std::time::{Duration, Instant};

/// Shortest round: on a fast local path a round trip is one clump, and says nothing.
const SHORTEST: Duration = Duration::from_millis(2);

/// What a round showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes a second delivered.
    pub(super) rate: f64,
    /// Share of the bytes that was lost.
    pub(super) lost: f64,
    /// Least round trip seen, in seconds.
    pub(super) rtt: f64,
    /// Greatest.
    pub(super) worst: f64,
    /// The path was kept full: the rate is the path's, not the application's.
    pub(super) full: bool,
}

/// The round under way.
#[derive(Debug, Clone)]
pub(super) struct Round {
    began: Instant,
    /// When the newest packet acknowledged at the beginning was sent.
    sent_at_begin: Instant,
    newest_sent: Instant,
    acked: u64,
    lost: u64,
    rtt: f64,
    /// Least of the batch under way: older packets whose acknowledgement was lost look slow.
    batch_rtt: f64,
    worst: f64,
    idle: bool,
    was_idle: bool,
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            sent_at_begin: now,
            newest_sent: now,
            acked: 0,
            lost: 0,
            rtt: f64::INFINITY,
            batch_rtt: f64::INFINITY,
            worst: 0.0,
            idle: true,
            was_idle: true,
        }
    }

    /// The first packet after nothing was in flight: what was not sent before says nothing.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// A packet was acknowledged. Gives its round trip, in seconds.
    pub(super) fn acked(&mut self, now: Instant, sent: Instant, bytes: u64) -> f64 {
        self.acked += bytes;
        self.newest_sent = self.newest_sent.max(sent);
        let rtt = now.saturating_duration_since(sent).as_secs_f64();
        self.rtt = self.rtt.min(rtt);
        self.batch_rtt = self.batch_rtt.min(rtt);
        rtt
    }

    pub(super) const fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// There was a moment at which the sender could have sent more and did not.
    pub(super) const fn idle(&mut self) {
        self.idle = true;
    }

    /// At the end of a batch: the round's sample, if it ends here.
    pub(super) fn end(&mut self, now: Instant) -> Option<Sample> {
        if self.batch_rtt.is_finite() {
            self.worst = self.worst.max(self.batch_rtt);
        }
        self.batch_rtt = f64::INFINITY;
        let took = now.saturating_duration_since(self.began);
        if self.acked == 0 || self.newest_sent < self.began || took < SHORTEST {
            return None;
        }
        let sending = self.newest_sent.saturating_duration_since(self.sent_at_begin);
        let seconds = took.max(sending).as_secs_f64();
        let all = self.acked + self.lost;
        let sample = Sample {
            rate: self.acked as f64 / seconds,
            lost: if all == 0 { 0.0 } else { self.lost as f64 / all as f64 },
            rtt: self.rtt,
            worst: self.worst,
            full: !self.idle && !self.was_idle,
        };
        self.began = now;
        self.sent_at_begin = self.newest_sent;
        self.acked = 0;
        self.lost = 0;
        self.rtt = f64::INFINITY;
        self.worst = 0.0;
        self.was_idle = self.idle;
        self.idle = false;
        Some(sample)
    }
}
