//! How far beyond what the path holds the window may go.
//!
//! Law: a round that lost clearly more than luck explains, while packets waited, filled the queue:
//! less headroom. Cycles without such a round give it back, slowly.

/// Least share of the headroom: below it, a flow would starve beside one that fills queues.
const LEAST: f64 = 0.4;

/// What a full queue leaves, and what a cycle without one adds.
const CUT: f64 = 0.7;
const GIVE_BACK: f64 = 0.05;

/// Share of losses over luck from which they are the queue's.
const CLEARLY: f64 = 0.03;

/// Share of the headroom in use.
#[derive(Debug, Clone)]
pub(super) struct Headroom {
    share: f64,
    filled: bool,
}

impl Headroom {
    pub(super) const fn new() -> Self {
        Self { share: 1.0, filled: false }
    }

    /// `gain` with the headroom there is.
    pub(super) fn of(&self, gain: f64) -> f64 {
        1.0 + (gain - 1.0) * self.share
    }

    /// A round in which packets waited lost `excess` more than luck.
    pub(super) fn waited(&mut self, excess: f64) {
        if excess > CLEARLY && !self.filled {
            self.filled = true;
            self.share = (self.share * CUT).max(LEAST);
        }
    }

    /// A cycle is over.
    pub(super) fn cycle(&mut self) {
        if !self.filled {
            self.share = (self.share + GIVE_BACK).min(1.0);
        }
        self.filled = false;
    }
}
