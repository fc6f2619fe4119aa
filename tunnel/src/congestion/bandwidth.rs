//! What the path delivers: the greatest rate of the last rounds.
//!
//! Law: a round that did not keep the path full may raise the estimate and never lowers it. Time
//! alone never does.

/// Rounds in one half of the memory.
const HALF: u8 = 8;

/// The estimate.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidth {
    /// Greatest of the half under way, and of the one before.
    current: f64,
    previous: f64,
    /// Of the last full round.
    last: f64,
    /// Of when the rounds began to be late.
    marked: f64,
    rounds: u8,
    doubted: bool,
}

impl Bandwidth {
    /// Bytes a second; 0 when nothing is known.
    pub(super) const fn get(&self) -> f64 {
        self.current.max(self.previous)
    }

    /// A full round's rate.
    pub(super) const fn full(&mut self, rate: f64) {
        self.doubted = false;
        self.last = rate;
        self.current = self.current.max(rate);
        self.rounds += 1;
        if self.rounds >= HALF {
            self.rounds = 0;
            self.previous = self.current;
            self.current = rate;
        }
    }

    /// A full round's rate, when round trips say that the estimate is too high: only the last two
    /// rounds count.
    pub(super) const fn full_and_late(&mut self, rate: f64) {
        self.previous = self.last;
        self.current = rate;
        self.last = rate;
        self.rounds = 0;
        self.doubted = false;
    }

    /// The rate of a round that was not full.
    pub(super) const fn idle(&mut self, rate: f64) {
        self.current = self.current.max(rate);
    }

    /// Remembers the estimate for `restore`.
    pub(super) const fn mark(&mut self) {
        self.marked = self.get();
    }

    /// The rounds since `mark` were slow for another reason than the path's rate.
    pub(super) const fn restore(&mut self) {
        self.current = self.current.max(self.marked);
        self.marked = 0.0;
    }

    /// The path was away and may come back as another: half of what is known is believed, once,
    /// until a full round says more.
    pub(super) const fn doubt(&mut self) {
        if !self.doubted {
            self.doubted = true;
            self.current *= 0.5;
            self.previous *= 0.5;
            self.last *= 0.5;
        }
    }
}
