//! The window from the model, and quinn's calls into it.

use std::any::Any;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::Controller;

use super::bandwidth::Bandwidth;
use super::base::Base;
use super::headroom::Headroom;
use super::luck::Luck;
use super::round::{Round, Sample};

/// RFC 9002 §7.2: ten datagrams, at most 14,720 bytes.
const INITIAL_DATAGRAMS: u64 = 10;
const INITIAL_BYTES: u64 = 14_720;

/// Least window, in datagrams: two acknowledgements' worth.
const LEAST_DATAGRAMS: u64 = 4;

/// Added to every window of the model, in datagrams: rounding must not hold a small flow down, and
/// what is equal for all brings unequal flows together.
const EXTRA_DATAGRAMS: u64 = 3;

/// Time added to the base round trip, in seconds: what two hosts' timers and schedulers take.
const SLACK: f64 = 0.002;

/// Windows in parts of what the path holds. `START` must leave room to double, and bounds what
/// the start can lose: quinn gives up a stream with more than 1,024 gaps.
const START: f64 = 2.5;
const PROBE: f64 = 1.5;
const DRAIN: f64 = 1.0;
const CRUISE: f64 = 1.25;
const STEP_BACK: f64 = 0.5;

/// Rounds in a cycle: one probing, one draining, the rest cruising. The first after the start
/// drains what the start has queued.
const CYCLE: u8 = 8;
const AFTER_START: u8 = 1;

/// Growth of the rate below which a round of the start has found the path's end, and how many such
/// rounds are proof (as in BBR, draft-ietf-ccwg-bbr §5.3.1.2).
const STILL_GROWING: f64 = 1.25;
const PROOF: u8 = 3;

/// Growth of the rate over all that is known, in a full round in which nothing waited, that shows a path which
/// holds more than the model says: the start was over before there was much to send, or others have left. After
/// so many in a cycle there is another start; by the model it would be a quarter every other round.
const CLIMBING: f64 = 1.1;
const CLIMBED: u8 = 2;

/// Share of unusual losses, in a round that waited, at which the start is over at once.
const OVERFLOWING: f64 = 0.05;

/// Round trips up to this many bases show no queue; above it, one.
const CLEAR: f64 = 1.1;

/// A round whose least round trip is this many bases is not explained by our own window: the path
/// became slower or longer, or someone else fills it. After this many, it is looked at.
const LATE: f64 = 1.6;
const LATE_ROUNDS: u8 = 3;

#[derive(Debug, Clone)]
enum Phase {
    /// Doubling each round until the rate no longer follows.
    Start { best: f64, flat: u8 },
    /// By the model; the round of the cycle.
    Cruise(u8),
}

/// The controller of one path.
#[derive(Debug, Clone)]
pub(super) struct Belay {
    window: u64,
    mtu: u64,
    phase: Phase,
    round: Round,
    bandwidth: Bandwidth,
    base: Base,
    luck: Luck,
    headroom: Headroom,
    /// Acknowledged in the batch under way.
    batch: u64,
    /// Full rounds in a row that were late.
    late: u8,
    /// Rounds of this cycle that climbed, since one waited.
    climbing: u8,
    /// Nothing is in flight.
    empty: bool,
}

impl Belay {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            window: initial(mtu),
            mtu,
            phase: Phase::Start { best: 0.0, flat: 0 },
            round: Round::new(now),
            bandwidth: Bandwidth::default(),
            base: Base::new(now),
            luck: Luck::default(),
            headroom: Headroom::new(),
            batch: 0,
            late: 0,
            climbing: 0,
            empty: true,
        }
    }

    /// Bytes the path holds, `gain` times, and some for the hosts.
    fn model(&self, gain: f64) -> u64 {
        let seconds = self.base.get() * gain + SLACK;
        ((self.bandwidth.get() * seconds) as u64 + EXTRA_DATAGRAMS * self.mtu)
            .max(LEAST_DATAGRAMS * self.mtu)
    }

    /// Bytes to step back to, so that nothing of ours waits.
    fn stepped_back(&self) -> u64 {
        let bytes = self.bandwidth.get() * self.base.least() * STEP_BACK;
        (bytes as u64).max(LEAST_DATAGRAMS * self.mtu)
    }

    fn on_round(&mut self, now: Instant, sample: Sample) {
        let late = sample.rtt > self.base.get() * LATE + 2.0 * SLACK;
        let least = self.base.least();
        let excess = sample.lost - self.luck.usual();
        if sample.worst > least * CLEAR + SLACK && sample.worst < least * LATE + 2.0 * SLACK {
            self.headroom.waited(excess);
        }
        self.luck.round(sample.lost);
        let overflowing = sample.worst > least * LATE + 2.0 * SLACK && excess > OVERFLOWING;
        if matches!(self.phase, Phase::Start { .. }) && (late && sample.full || overflowing) {
            self.phase = Phase::Cruise(AFTER_START);
        }
        if !sample.full {
            self.bandwidth.idle(sample.rate);
            return;
        }
        let waited = sample.worst > least * CLEAR + SLACK;
        let climbs = !waited && sample.rate > self.bandwidth.get() * CLIMBING;
        // The rate is that of the window a round before, so that every second round at best climbs.
        self.climbing = if waited { 0 } else { self.climbing + u8::from(climbs) };
        match &mut self.phase {
            Phase::Cruise(_) if self.climbing >= CLIMBED => {
                self.bandwidth.full(sample.rate);
                self.climbing = 0;
                self.phase = Phase::Start { best: sample.rate, flat: 0 };
            }
            Phase::Start { best, flat } => {
                self.climbing = 0;
                self.bandwidth.full(sample.rate);
                if sample.rate > *best * STILL_GROWING {
                    *best = sample.rate;
                    *flat = 0;
                } else {
                    *flat += 1;
                }
                if *flat >= PROOF {
                    self.phase = Phase::Cruise(AFTER_START);
                }
            }
            Phase::Cruise(round) => {
                *round = (*round + 1) % CYCLE;
                if *round == 0 {
                    self.headroom.cycle();
                    self.climbing = 0;
                }
                self.base.round();
                if late {
                    if self.late == 0 {
                        self.bandwidth.mark();
                    }
                    self.bandwidth.full_and_late(sample.rate);
                    self.late += 1;
                    if self.late >= LATE_ROUNDS {
                        self.late = 0;
                        self.base.look();
                    }
                } else {
                    self.bandwidth.full(sample.rate);
                    self.late = 0;
                }
                if self.base.stale(now) {
                    self.base.look();
                }
            }
        }
    }

    fn set_window(&mut self, app_limited: bool) {
        match self.phase {
            Phase::Start { .. } => {
                if !app_limited {
                    self.window += self.batch;
                    let most = self.model(START);
                    if self.bandwidth.get() > 0.0 {
                        self.window = self.window.min(most.max(initial(self.mtu)));
                    }
                }
            }
            Phase::Cruise(round) => {
                let gain = match round {
                    0 => PROBE,
                    1 => DRAIN,
                    _ => CRUISE,
                };
                self.window = if self.base.looking() {
                    self.stepped_back()
                } else {
                    self.model(self.headroom.of(gain))
                };
            }
        }
    }
}

impl Controller for Belay {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        if self.empty {
            self.empty = false;
            self.round.restart(now);
        }
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        let rtt = self.round.acked(now, sent, bytes);
        if self.base.seen(now, sent, rtt) {
            self.bandwidth.restore();
        }
        self.batch += bytes;
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        let filled = self.bandwidth.get() > 0.0
            && (in_flight + self.batch) as f64 >= self.bandwidth.get() * self.base.get();
        if (app_limited || self.base.looking()) && !filled {
            self.round.idle();
        }
        if in_flight <= self.stepped_back() {
            self.base.drained(now);
        }
        if let Some(sample) = self.round.end(now) {
            self.on_round(now, sample);
        }
        self.set_window(app_limited);
        self.batch = 0;
        self.empty = in_flight == 0;
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.round.lost(lost_bytes);
        if is_persistent_congestion {
            self.bandwidth.doubt();
            self.base.give_up(now);
            self.round.restart(now);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(LEAST_DATAGRAMS * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        initial(self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn initial(mtu: u64) -> u64 {
    (INITIAL_DATAGRAMS * mtu).min(INITIAL_BYTES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;

    /// A relay holds tens of thousands of idle connections.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Belay>() <= 300, "{}", size_of::<Belay>());
    }

    #[test]
    fn nothing_is_undefined_before_anything_is_known() {
        let now = Instant::now();
        let mut belay = Belay::new(now, 1_200);
        belay.on_end_acks(now, 0, false, None);
        belay.on_congestion_event(now, now, true, 0);
        belay.on_end_acks(now + Duration::from_secs(1), 0, true, Some(1));
        assert_eq!(belay.window(), 12_000);
        assert_eq!(belay.model(CRUISE), LEAST_DATAGRAMS * 1_200);
        assert_eq!(belay.stepped_back(), LEAST_DATAGRAMS * 1_200);
    }

    #[test]
    fn a_path_that_goes_away_again_and_again_is_doubted_once() {
        let now = Instant::now();
        let mut belay = Belay::new(now, 1_200);
        belay.bandwidth.full(1e6);
        for _ in 0..20 {
            belay.on_congestion_event(now, now, true, 1_200);
        }
        assert_eq!(belay.bandwidth.get(), 5e5);
    }
}
