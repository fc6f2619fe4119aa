//! One direction of a simulated link: a drop-tail queue, a wire with a rate, a delay that may
//! jitter but never reorders, and loss that strikes packets already on the wire.
//!
//! Law: everything it does follows from its seed and the times it is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

/// IPv4 and UDP headers, which a link carries and QUIC does not see.
const HEADERS: u64 = 28;

/// What a link is like. All of it may change while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bits a second.
    pub(crate) rate: u64,
    /// One way.
    pub(crate) delay: Duration,
    /// Share of packets that vanish after the queue.
    pub(crate) loss: f64,
    /// Bytes that may wait; one more packet is dropped.
    pub(crate) queue: u64,
    /// Greatest extra delay, evenly spread.
    pub(crate) jitter: Duration,
    /// Nothing gets through.
    pub(crate) cut: bool,
}

impl Shape {
    /// A line of `mbit` Mbit/s and a round trip of `rtt` ms, that loses the share `loss` each way
    /// and queues `bdp` bandwidth-delay products.
    pub(crate) fn line(mbit: u64, rtt: u64, loss: f64, bdp: f64) -> Self {
        let rate = mbit * 1_000_000;
        let product = rate as f64 / 8.0 * rtt as f64 / 1_000.0;
        Self {
            rate,
            delay: Duration::from_millis(rtt) / 2,
            loss,
            queue: ((product * bdp) as u64).max(2 * 1_500),
            jitter: Duration::ZERO,
            cut: false,
        }
    }

    /// With up to `ms` more delay each way.
    pub(crate) fn jittery(self, ms: u64) -> Self {
        Self { jitter: Duration::from_millis(ms), ..self }
    }

    /// How long `bytes` take at this rate.
    pub(crate) fn lasts(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate as f64)
    }
}

/// A datagram under way.
pub(crate) struct Parcel {
    /// Whose it is.
    pub(crate) flow: usize,
    /// What the receiver sees.
    pub(crate) data: BytesMut,
}

impl Parcel {
    fn size(&self) -> u64 {
        self.data.len() as u64 + HEADERS
    }
}

/// One direction.
pub(crate) struct Link {
    /// As it is now.
    pub(crate) shape: Shape,
    /// Waiting time each arriving packet found, in seconds, with its arrival.
    pub(crate) waits: Vec<(Instant, f32)>,
    /// Packets the full queue turned away.
    pub(crate) overflowed: u64,
    /// Packets that came.
    pub(crate) offered: u64,
    dice: Dice,
    queue: VecDeque<Parcel>,
    queued: u64,
    departs: Option<Instant>,
    flying: VecDeque<(Instant, Parcel)>,
}

impl Link {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            waits: Vec::new(),
            overflowed: 0,
            offered: 0,
            dice: Dice(seed),
            queue: VecDeque::new(),
            queued: 0,
            departs: None,
            flying: VecDeque::new(),
        }
    }

    pub(crate) fn send(&mut self, now: Instant, parcel: Parcel) {
        self.offered += 1;
        self.waits.push((now, self.shape.lasts(self.queued).as_secs_f32()));
        if self.queued + parcel.size() > self.shape.queue {
            self.overflowed += 1;
            return;
        }
        self.queued += parcel.size();
        if self.departs.is_none() {
            self.departs = Some(now + self.shape.lasts(parcel.size()));
        }
        self.queue.push_back(parcel);
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let arrival = self.flying.front().map(|(at, _)| *at);
        self.departs.into_iter().chain(arrival).min()
    }

    /// Lets time pass until `now`; gives the next datagram that has arrived by then.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<Parcel> {
        while let Some(at) = self.departs.filter(|at| *at <= now) {
            self.depart(at);
        }
        let due = self.flying.front().is_some_and(|(at, _)| *at <= now);
        if due { self.flying.pop_front().map(|(_, parcel)| parcel) } else { None }
    }

    fn depart(&mut self, now: Instant) {
        let Some(parcel) = self.queue.pop_front() else {
            self.departs = None;
            return;
        };
        self.queued -= parcel.size();
        self.departs = self.queue.front().map(|next| now + self.shape.lasts(next.size()));
        let lost = self.dice.roll() < self.shape.loss;
        let extra = self.shape.jitter.mul_f64(self.dice.roll());
        if lost || self.shape.cut {
            return;
        }
        let at = now + self.shape.delay + extra;
        let at = self.flying.back().map_or(at, |(last, _)| at.max(*last));
        self.flying.push_back((at, parcel));
    }
}

/// SplitMix64, as Vigna published it.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
