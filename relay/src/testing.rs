//! Chance for tests that cut the power.
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::time::{SystemTime, UNIX_EPOCH};

/// A number from the environment.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Xorshift (Marsaglia 2003).
pub(crate) struct Chance(u64);

impl Chance {
    /// Another series each time, or that of `BELAY_SEED`; says which.
    pub(crate) fn from_environment() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = number("BELAY_SEED", u64::from(now.subsec_nanos()));
        println!("BELAY_SEED={seed}");
        Self(seed | 1)
    }

    /// Less than this.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    /// What a disk may have, after a power cut, of what was written from a place on and not brought to it: all of
    /// it, a beginning, or all with garbage or zeros in some blocks. Whether anything of it is not as written.
    pub(crate) fn tears(&mut self, bytes: &mut Vec<u8>, from: usize) -> bool {
        let tail = bytes.len() - from;
        let place = |chance: &mut Self| from + chance.below(tail as u64 + 1) as usize;
        match self.below(4) {
            0 => return false,
            1 => {
                let end = place(self);
                bytes.truncate(end);
            }
            kind => {
                let (one, other) = (place(self), place(self));
                for byte in &mut bytes[one.min(other)..one.max(other)] {
                    *byte = if kind == 2 { 0 } else { self.below(256) as u8 };
                }
            }
        }
        true
    }
}
