//! The way between one end and the relay: a delay that jitters, a rate, and times at which nothing
//! gets through.
//!
//! Its law: nothing is lost here. What a path swallows while it is down, the carriers on it send
//! again when it is back, so it is late and in order. What kills a carrier is not the path's doing
//! (see [`super::carrier`]), but for one that is down for longer than a carrier's patience.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::carrier::Carrier;
use crate::chance::Chance;

/// Longest wait between two repetitions of a handshake: QUIC and TCP double it up to some such.
const REPEATS_WITHIN: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// One way.
    pub(super) delay: Duration,
    /// Greatest extra delay, evenly spread; nothing is reordered.
    pub(super) jitter: Duration,
    /// Bytes a second each way, for all that is on the path.
    pub(super) rate: u64,
    /// Bytes of one stream that may be under way each way.
    pub(super) room: usize,
}

impl Shape {
    pub(super) fn any(chance: &mut Chance) -> Self {
        let delay = Duration::from_millis(chance.scale(1, 300) as u64);
        let jitter = delay * chance.below(4) as u32 / 4;
        let rate = chance.scale(20 << 10, 8 << 20) as u64;
        Self { delay, jitter, rate, room: chance.scale(8 << 10, 512 << 10) }
    }

    /// The longest round trip of a few bytes.
    pub(super) fn round_trip(&self) -> Duration {
        (self.delay + self.jitter) * 2
    }

    /// Bytes a second one stream gets at least.
    pub(super) fn speed(&self) -> u64 {
        let trip = (self.delay + self.jitter).as_millis().max(1) as u64;
        self.rate.min(self.room as u64 * 1000 / trip)
    }
}

pub(super) struct Path {
    pub(super) shape: Shape,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    chance: Chance,
    /// Blackouts may overlap.
    down: u32,
    fell: Option<Instant>,
    rose: Option<Instant>,
    /// Until then, what was there before it rose is still repeating at long intervals.
    late_until: Instant,
    /// When each direction has sent all it was given.
    busy: [Instant; 2],
    carriers: Vec<Weak<Carrier>>,
    idle: JoinSet<()>,
}

/// Whether what should have come by now has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    Open,
    Until(Instant),
    Shut,
}

impl Path {
    pub(super) fn new(shape: Shape, chance: Chance) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            chance,
            down: 0,
            fell: None,
            rose: None,
            late_until: now,
            busy: [now; 2],
            carriers: Vec::new(),
            idle: JoinSet::new(),
        };
        Arc::new(Self { shape, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(super) fn enter(&self, carrier: &Arc<Carrier>) -> Chance {
        let mut state = self.state.lock().unwrap();
        state.carriers.retain(|carrier| carrier.strong_count() > 0);
        state.carriers.push(Arc::downgrade(carrier));
        state.chance.fork()
    }

    pub(super) fn carriers(&self) -> Vec<Arc<Carrier>> {
        self.state.lock().unwrap().carriers.iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn is_down(&self) -> bool {
        self.state.lock().unwrap().down > 0
    }

    /// When `bytes` sent now by `from` are at the other side, if the path stays up.
    pub(super) fn arrival(&self, from: usize, bytes: usize) -> Instant {
        let mut state = self.state.lock().unwrap();
        let sending = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.shape.rate);
        state.busy[from] = state.busy[from].max(Instant::now()) + sending;
        let jitter = state.chance.time(0, self.shape.jitter.as_millis() as u64);
        state.busy[from] + self.shape.delay + jitter
    }

    /// Whether a carrier of that age gets what was due at `due`.
    pub(super) fn gate(&self, born: Instant, due: Instant) -> Gate {
        let (state, now) = (self.state.lock().unwrap(), Instant::now());
        if due > now {
            return Gate::Until(due);
        }
        let before = state.fell.is_some_and(|fell| due <= fell);
        let late = state.rose.is_some_and(|rose| born < rose) && now < state.late_until;
        match (before, state.down > 0, late) {
            (true, _, _) | (_, false, false) => Gate::Open,
            (_, true, _) => Gate::Shut,
            (_, _, true) => Gate::Until(state.late_until),
        }
    }

    /// One small thing of a handshake to the other side, repeated until it is there.
    pub(super) async fn trip(&self) {
        let began = Instant::now();
        loop {
            let jitter = {
                let mut state = self.state.lock().unwrap();
                state.chance.time(0, self.shape.jitter.as_millis() as u64)
            };
            sleep(self.shape.delay + jitter).await;
            if !self.is_down() {
                return;
            }
            self.risen().await;
            let longest = began.elapsed().min(REPEATS_WITHIN).as_millis() as u64;
            let pause = self.state.lock().unwrap().chance.time(0, longest);
            sleep(pause).await;
        }
    }

    async fn risen(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_down() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn fall(&self) {
        let mut state = self.state.lock().unwrap();
        state.down += 1;
        if state.down == 1 {
            state.fell = Some(Instant::now());
        }
    }

    /// Back up. What was there before comes to it some time later, up to as long as the path was
    /// down: carriers double the time between their repetitions.
    pub(super) fn rise(&self) {
        let mut state = self.state.lock().unwrap();
        state.down -= 1;
        if state.down > 0 {
            return;
        }
        let now = Instant::now();
        let long = state.fell.map_or(Duration::ZERO, |fell| now - fell).min(REPEATS_WITHIN);
        let late = match state.chance.below(2) {
            0 => Duration::ZERO,
            _ => state.chance.time(0, long.as_millis() as u64),
        };
        state.rose = Some(now);
        state.late_until = now + self.shape.delay * 2 + late;
        drop(state);
        self.changed.notify_waiters();
        self.carriers().iter().for_each(|carrier| carrier.announce());
    }

    /// Does something at that time, unless the world is over by then.
    pub(super) fn later(&self, at: Instant, what: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().idle.spawn(async move {
            sleep_until(at).await;
            what();
        });
    }
}
