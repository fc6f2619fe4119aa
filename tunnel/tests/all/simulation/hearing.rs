//! When an end last heard anything: what a watcher from outside can know.

use std::io;
use std::sync::{Arc, Mutex};

use belay_tunnel::stream::Source;
use bytes::Bytes;
use tokio::time::Instant;

/// Of one end, over all its attachments.
#[derive(Clone)]
pub(super) struct Hearing(Arc<Mutex<State>>);

#[derive(Clone, Copy)]
pub(super) struct State {
    number: u64,
    /// When its newest attachment began.
    pub(super) attached: Instant,
    /// When anything came on that one.
    pub(super) heard: Option<Instant>,
}

impl Hearing {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { number: 0, attached: Instant::now(), heard: None })))
    }

    pub(super) fn now(&self) -> State {
        *self.0.lock().unwrap()
    }

    /// An attachment's bytes; it begins now.
    pub(super) fn on<S: Source>(&self, source: S) -> Heard<S> {
        let mut state = self.0.lock().unwrap();
        let number = state.number + 1;
        *state = State { number, attached: Instant::now(), heard: None };
        drop(state);
        Heard { source, hearing: self.clone(), number }
    }
}

pub(super) struct Heard<S> {
    source: S,
    hearing: Hearing,
    number: u64,
}

impl<S: Source> Source for Heard<S> {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        let received = self.source.receive(pieces).await;
        let mut state = self.hearing.0.lock().unwrap();
        if matches!(received, Ok(Some(_))) && state.number == self.number {
            state.heard = Some(Instant::now());
        }
        received
    }
}
