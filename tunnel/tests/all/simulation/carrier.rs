//! A carrier on a path: streams between two ends, and the ways in which it dies.
//!
//! - *Reset*: both ends hear of it at once. What was under way is lost from any byte on.
//! - *Vanished*: one end has forgotten it. The other hears nothing more, until its own patience is
//!   over.
//!
//! A close in order is the first where the other side can be reached, and the second where not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::path::{Gate, Path};
use super::pipe::{Pipe, RecvHalf, SendHalf};
use super::waiting::{Asked, wait_for};
use crate::chance::Chance;

/// How long a carrier lives without a word from its other end.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// Who dialled, and who was dialled.
pub(super) const NEAR: usize = 0;
pub(super) const FAR: usize = 1;

/// The carrier is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone;

pub(super) struct Carrier {
    pub(super) path: Arc<Path>,
    pub(super) born: Instant,
    state: Mutex<State>,
    changed: Notify,
}

type Halves = (SendHalf, RecvHalf);

struct State {
    chance: Chance,
    /// Which ends know that it is over.
    gone: [bool; 2],
    /// Since when nothing passes, though an end may not know.
    deaf: Option<Instant>,
    sent: [u64; 2],
    heard: [u64; 2],
    pipes: Vec<Weak<Pipe>>,
    /// For each end, what the other has opened and when it comes.
    opened: [VecDeque<(Instant, Halves)>; 2],
}

impl Carrier {
    pub(super) fn between(path: &Arc<Path>) -> (End, End) {
        let carrier = Arc::new(Self {
            path: Arc::clone(path),
            born: Instant::now(),
            state: Mutex::new(State {
                chance: Chance(0),
                gone: [false; 2],
                deaf: None,
                sent: [0; 2],
                heard: [0; 2],
                pipes: Vec::new(),
                opened: [VecDeque::new(), VecDeque::new()],
            }),
            changed: Notify::new(),
        });
        let chance = path.enter(&carrier);
        carrier.state.lock().unwrap().chance = chance;
        (End { carrier: Arc::clone(&carrier), side: NEAR }, End { carrier, side: FAR })
    }

    pub(super) fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        if state.gone != [false; 2] || state.deaf.is_some() {
            drop(state);
            // Whoever still believed in it hears now.
            self.end();
            return;
        }
        state.gone = [true; 2];
        let mut chance = state.chance.fork();
        for pipe in state.pipes.iter().filter_map(Weak::upgrade) {
            pipe.cut(&mut chance);
        }
        let unopened = std::mem::take(&mut state.opened);
        drop(state);
        drop(unopened);
        self.announce();
    }

    pub(super) fn vanish(self: &Arc<Self>, forgetting: usize) {
        let mut state = self.state.lock().unwrap();
        if state.gone[forgetting] {
            return;
        }
        let now = Instant::now();
        state.gone[forgetting] = true;
        let first = state.deaf.is_none();
        state.deaf.get_or_insert(now);
        if first && state.gone != [true; 2] {
            let carrier = Arc::clone(self);
            self.path.later(now + IDLE, move || carrier.end());
        }
        state.pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.lose());
        let unopened = std::mem::take(&mut state.opened);
        drop(state);
        drop(unopened);
        self.announce();
    }

    /// Both ends give it up: for want of a word from the other, or by its last one, that it knows
    /// nothing of this carrier.
    pub(super) fn end(&self) {
        let mut state = self.state.lock().unwrap();
        state.deaf.get_or_insert(Instant::now());
        state.gone = [true; 2];
        state.pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.lose());
        let unopened = std::mem::take(&mut state.opened);
        drop(state);
        drop(unopened);
        self.announce();
    }

    pub(super) fn is_gone(&self, side: usize) -> bool {
        self.state.lock().unwrap().gone[side]
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.state.lock().unwrap().deaf.is_some()
    }

    /// Whether what was due at `due` gets through.
    pub(super) fn gate(&self, due: Instant) -> Gate {
        self.path.gate(self.born, due)
    }

    pub(super) fn chance(&self) -> Chance {
        self.state.lock().unwrap().chance.fork()
    }

    pub(super) fn count(&self, side: usize, bytes: usize) {
        self.state.lock().unwrap().sent[side] += bytes as u64;
    }

    /// Whatever waits on this carrier looks again.
    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
        let mut state = self.state.lock().unwrap();
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        let pipes: Vec<_> = state.pipes.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        pipes.iter().for_each(|pipe| pipe.announce());
    }
}

/// One end of a carrier. Dropped, it is closed.
pub(super) struct End {
    pub(super) carrier: Arc<Carrier>,
    side: usize,
}

impl End {
    pub(super) fn open(&self) -> Result<Halves, Gone> {
        let (carrier, side) = (&self.carrier, self.side);
        if carrier.is_gone(side) {
            return Err(Gone);
        }
        let (there, back) = (Pipe::new(carrier, side), Pipe::new(carrier, 1 - side));
        let due = carrier.path.arrival(side, 1);
        let mut state = carrier.state.lock().unwrap();
        state.sent[side] += 1;
        state.pipes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
        if state.deaf.is_none() {
            let theirs = (SendHalf::new(&back), RecvHalf::new(&there));
            state.opened[1 - side].push_back((due, theirs));
        }
        drop(state);
        carrier.changed.notify_waiters();
        Ok((SendHalf::new(&there), RecvHalf::new(&back)))
    }

    pub(super) async fn accept(&self) -> Result<Halves, Gone> {
        let carrier = &self.carrier;
        wait_for(&carrier.changed, || {
            let mut state = carrier.state.lock().unwrap();
            if state.gone[self.side] {
                return Asked::Done(Err(Gone));
            }
            let opened = &mut state.opened[self.side];
            let Some((due, _)) = opened.front() else { return Asked::Later };
            match carrier.path.gate(carrier.born, *due) {
                Gate::Open => Asked::Done(opened.pop_front().map(|(_, halves)| halves).ok_or(Gone)),
                Gate::Until(at) => Asked::At(at),
                Gate::Shut => Asked::Later,
            }
        })
        .await
    }

    pub(super) async fn over(&self) {
        wait_for(&self.carrier.changed, || {
            if self.is_over() { Asked::Done(()) } else { Asked::Later }
        })
        .await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.carrier.is_gone(self.side)
    }

    /// Sent and heard so far, as `belay_tunnel::reach::Silence` wants it. A transport answers all
    /// it gets, so heard goes on for as long as anything passes.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let (carrier, now) = (&self.carrier, Instant::now());
        let passes = !carrier.is_deaf() && carrier.path.gate(carrier.born, now) == Gate::Open;
        let mut state = carrier.state.lock().unwrap();
        if passes {
            state.heard[self.side] = (now - carrier.born).as_millis() as u64;
        }
        (state.sent[self.side], state.heard[self.side])
    }

    /// Says something small.
    pub(super) fn beat(&self) {
        self.carrier.count(self.side, 1);
    }

    pub(super) fn close(&self) {
        if self.is_over() {
            return;
        }
        if self.carrier.path.is_down() {
            self.carrier.vanish(self.side);
        } else {
            self.carrier.reset();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}
