//! Milliseconds since the world began, and which of them are whose.
//!
//! `tokio::select!` asks its branches in an order of its own chance, not the seed's. In
//! `belay_tunnel::reach::insist` that matters when an attempt ends in the very millisecond of a
//! beat; so beats are even here and ends of attempts odd.

use std::time::Duration;

use tokio::time::{Instant, sleep};

#[derive(Clone, Copy)]
pub(super) struct Beat(Instant);

impl Beat {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(super) fn ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    pub(super) fn at(self, after: Duration) -> Instant {
        self.0 + after
    }

    pub(super) async fn even(self) {
        while !self.ms().is_multiple_of(2) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn odd(self) {
        while self.ms().is_multiple_of(2) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
