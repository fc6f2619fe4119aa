//! Waiting for what is asked again whenever something has changed, and at a time of its own.
//!
//! Its law: what is asked changes nothing unless it is done, so all of this may be dropped at any
//! time.

use std::pin::pin;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub(super) enum Asked<T> {
    Done(T),
    /// Ask again then, or after a change.
    At(Instant),
    /// Ask again after a change.
    Later,
}

impl<T> Asked<T> {
    pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> Asked<U> {
        match self {
            Self::Done(done) => Asked::Done(with(done)),
            Self::At(at) => Asked::At(at),
            Self::Later => Asked::Later,
        }
    }
}

pub(super) async fn wait_for<T>(changed: &Notify, mut ask: impl FnMut() -> Asked<T>) -> T {
    loop {
        let mut change = pin!(changed.notified());
        // What changes while we ask is not missed.
        change.as_mut().enable();
        match ask() {
            Asked::Done(done) => return done,
            Asked::Later => change.await,
            Asked::At(at) => {
                tokio::select! {
                    biased;
                    () = change => {}
                    () = sleep_until(at) => {}
                }
            }
        }
    }
}
