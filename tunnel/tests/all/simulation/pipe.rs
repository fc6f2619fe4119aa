//! One direction of one stream.
//!
//! Its law: bytes come in the order they were given, each once, cut anywhere; what is given and not
//! yet taken at the other side has a bound, so who does not read stops whoever writes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use belay_tunnel::stream::{Sink, Source};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::carrier::{Carrier, Gone};
use super::path::Gate;
use super::waiting::{Asked, wait_for};
use crate::chance::Chance;

/// Longest piece on the way.
const PIECE: usize = 16 << 10;

pub(super) struct Pipe {
    carrier: Arc<Carrier>,
    from: usize,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    chance: Chance,
    queue: VecDeque<(Instant, Item)>,
    /// Given and not yet taken.
    under_way: usize,
    last: Instant,
    /// Nothing more comes onto the queue, and what is on it is there.
    settled: bool,
    /// When the writer hears that the reader takes no more.
    stopped: Option<Instant>,
}

enum Item {
    Data(Bytes),
    End,
    Reset,
}

impl Pipe {
    pub(super) fn new(carrier: &Arc<Carrier>, from: usize) -> Arc<Self> {
        let chance = carrier.chance();
        let (now, carrier) = (Instant::now(), Arc::clone(carrier));
        let state = State {
            chance,
            queue: VecDeque::new(),
            under_way: 0,
            last: now,
            settled: false,
            stopped: None,
        };
        Arc::new(Self { carrier, from, state: Mutex::new(state), changed: Notify::new() })
    }

    /// The carrier is reset: of what was under way any part arrives, from the front.
    pub(super) fn cut(&self, chance: &mut Chance) {
        let mut state = self.state.lock().unwrap();
        if !std::mem::replace(&mut state.settled, true) {
            state.cut(chance);
        }
    }

    /// The carrier is deaf: what has not arrived never does.
    pub(super) fn lose(&self) {
        let mut state = self.state.lock().unwrap();
        if !std::mem::replace(&mut state.settled, true) {
            state.queue.retain(|(due, _)| self.carrier.gate(*due) == Gate::Open);
        }
    }

    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
    }

    fn push(&self, item: Item, bytes: usize) {
        self.carrier.count(self.from, bytes.max(1));
        let due = self.carrier.path.arrival(self.from, bytes);
        let mut state = self.state.lock().unwrap();
        state.under_way += bytes;
        state.last = state.last.max(due);
        if !state.settled && !self.carrier.is_deaf() {
            let due = state.last;
            state.queue.push_back((due, item));
        }
        drop(state);
        self.announce();
    }

    /// Whether the writer knows that nobody reads.
    fn is_stopped(&self) -> Asked<()> {
        if self.carrier.is_gone(self.from) {
            return Asked::Done(());
        }
        let Some(due) = self.state.lock().unwrap().stopped else { return Asked::Later };
        match self.carrier.gate(due) {
            _ if self.carrier.is_deaf() => Asked::Later,
            Gate::Open => Asked::Done(()),
            Gate::Until(at) => Asked::At(at),
            Gate::Shut => Asked::Later,
        }
    }

    fn take(&self, pieces: &mut [Bytes]) -> Asked<Result<Option<usize>, Gone>> {
        let gone = self.carrier.is_gone(1 - self.from);
        let mut state = self.state.lock().unwrap();
        let mut filled = 0;
        let asked = loop {
            let settled = state.settled;
            let Some((due, item)) = state.queue.front_mut() else {
                break if gone { Asked::Done(Err(Gone)) } else { Asked::Later };
            };
            let gate = self.carrier.gate(*due);
            match (settled, gate) {
                (true, _) | (false, Gate::Open) => {}
                (false, Gate::Until(at)) => break Asked::At(at),
                (false, Gate::Shut) => break Asked::Later,
            }
            match (item, pieces.get_mut(filled)) {
                (Item::Data(bytes), Some(piece)) => {
                    *piece = std::mem::take(bytes);
                    state.under_way = state.under_way.saturating_sub(piece.len());
                    filled += 1;
                    state.queue.pop_front();
                }
                (Item::Data(_), None) => break Asked::Later,
                (Item::End, _) => break Asked::Done(Ok(None)),
                (Item::Reset, _) => break Asked::Done(Err(Gone)),
            }
        };
        drop(state);
        if filled == 0 {
            return asked;
        }
        self.announce();
        Asked::Done(Ok(Some(filled)))
    }
}

impl State {
    fn cut(&mut self, chance: &mut Chance) {
        let all = self.queue.iter().map(|(_, item)| item.len()).sum::<usize>();
        let mut left = if chance.one_in(3) { all } else { chance.below(all + 1) };
        let whole = left == all;
        let now = Instant::now();
        self.queue.retain_mut(|(due, item)| {
            *due = now;
            match item {
                Item::Data(bytes) => {
                    bytes.truncate(left);
                    left -= bytes.len();
                    !bytes.is_empty()
                }
                Item::End | Item::Reset => whole,
            }
        });
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

/// Dropped before it was finished, it resets its stream.
pub(super) struct SendHalf {
    pipe: Arc<Pipe>,
    ended: bool,
}

impl SendHalf {
    pub(super) fn new(pipe: &Arc<Pipe>) -> Self {
        Self { pipe: Arc::clone(pipe), ended: false }
    }

    pub(super) async fn send(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        let pipe = &self.pipe;
        while !bytes.is_empty() {
            let most = wait_for(&pipe.changed, || {
                let stopped = pipe.is_stopped();
                if let Asked::Done(()) = stopped {
                    return Asked::Done(Err(Gone));
                }
                let mut state = pipe.state.lock().unwrap();
                match pipe.carrier.path.shape.room.saturating_sub(state.under_way) {
                    0 => stopped.map(|()| Err(Gone)),
                    room => Asked::Done(Ok(state.chance.between(1, PIECE).min(room))),
                }
            })
            .await?;
            let piece = bytes.split_to(most.min(bytes.len()));
            let length = piece.len();
            pipe.push(Item::Data(piece), length);
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.pipe.push(Item::End, 0);
        }
    }

    /// Waits until the reader is known to take no more.
    pub(super) async fn stopped(&self) {
        wait_for(&self.pipe.changed, || self.pipe.is_stopped()).await;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.pipe.state.lock().unwrap();
        if !state.settled {
            let mut chance = state.chance.fork();
            // A reset overtakes what it can.
            let dues: Vec<_> = state.queue.iter().map(|(due, _)| *due).collect();
            state.cut(&mut chance);
            state.queue.iter_mut().zip(dues).for_each(|((due, _), was)| *due = was);
        }
        drop(state);
        self.pipe.push(Item::Reset, 0);
    }
}

/// Dropped, it stops the writer.
pub(super) struct RecvHalf {
    pipe: Arc<Pipe>,
    left: Bytes,
}

impl RecvHalf {
    pub(super) fn new(pipe: &Arc<Pipe>) -> Self {
        Self { pipe: Arc::clone(pipe), left: Bytes::new() }
    }

    pub(super) async fn receive(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, Gone> {
        if !self.left.is_empty() {
            pieces[0] = std::mem::take(&mut self.left);
            return Ok(Some(1));
        }
        wait_for(&self.pipe.changed, || self.pipe.take(pieces)).await
    }

    /// The next byte; those behind it stay.
    pub(super) async fn byte(&mut self) -> Result<u8, Gone> {
        let mut piece = [Bytes::new()];
        self.receive(&mut piece).await?.ok_or(Gone)?;
        let [mut piece] = piece;
        let byte = piece.split_to(1)[0];
        self.left = piece;
        Ok(byte)
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        let due = self.pipe.carrier.path.arrival(1 - self.pipe.from, 1);
        self.pipe.state.lock().unwrap().stopped.get_or_insert(due);
        self.pipe.announce();
    }
}

impl From<Gone> for io::Error {
    fn from(Gone: Gone) -> Self {
        io::ErrorKind::ConnectionReset.into()
    }
}

impl Source for RecvHalf {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        Ok(Self::receive(self, pieces).await?)
    }
}

impl Sink for SendHalf {
    async fn send_all(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.send(std::mem::take(piece)).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        Self::finish(self);
        Ok(())
    }
}
