//! A process that is stopped for a while: nothing of it runs, and the world goes on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Poll, Waker};

#[derive(Default)]
pub(super) struct Suspension(Mutex<State>);

#[derive(Default)]
struct State {
    frozen: bool,
    waiting: Vec<Waker>,
    thawed: u32,
}

impl Suspension {
    pub(super) fn freeze(&self) {
        self.0.lock().unwrap().frozen = true;
    }

    pub(super) fn thaw(&self) {
        let mut state = self.0.lock().unwrap();
        state.frozen = false;
        let mut waiting = std::mem::take(&mut state.waiting);
        state.thawed += 1;
        // Every second time, who came last goes first.
        if !state.thawed.is_multiple_of(2) {
            waiting.reverse();
        }
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.0.lock().unwrap().frozen
    }

    /// Runs a part of the process.
    pub(super) async fn through<F: Future>(&self, part: F) -> F::Output {
        let mut part = pin!(part);
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if state.frozen {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
            drop(state);
            part.as_mut().poll(cx)
        })
        .await
    }
}
