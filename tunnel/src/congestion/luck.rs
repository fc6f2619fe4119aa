//! What the path usually loses, whatever is sent.
//!
//! Law: it is only compared with. Were the window raised to make up for losses, a full queue's
//! would raise it further.

/// Weight of one more round.
const WEIGHT: f64 = 0.125;

/// Losses beyond the usual, in parts of the usual, that chance explains.
const CHANCE: f64 = 0.5;

/// Share of bytes lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Luck(f64);

impl Luck {
    /// The most that is still usual.
    pub(super) const fn usual(&self) -> f64 {
        self.0 * (1.0 + CHANCE)
    }

    /// A round lost this share.
    pub(super) const fn round(&mut self, lost: f64) {
        self.0 += (lost - self.0) * WEIGHT;
    }
}
