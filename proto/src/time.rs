//! Wall-clock time as the protocol carries it.

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX.1-2017 §4.16).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct UnixTime(#[n(0)] pub u64);

impl UnixTime {
    /// This time and `by`, whole seconds, saturating.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }

    /// This time less `by`, whole seconds, saturating at 1970.
    #[must_use]
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_secs()))
    }

    /// How far two times are apart, either way round.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_secs(self.0.abs_diff(other.0))
    }

    /// Seconds to add to `local` to get this time: the correction for a clock that is wrong.
    pub fn correction_from(self, local: Self) -> i64 {
        let ahead = i128::from(self.0) - i128::from(local.0);
        i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
    }

    /// This time with a correction from [`UnixTime::correction_from`] applied.
    #[must_use]
    pub const fn corrected(self, correction: i64) -> Self {
        Self(self.0.saturating_add_signed(correction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_brings_a_wrong_clock_to_the_right_time() {
        let relay = UnixTime(1_800_000_000);
        for local in [0, 1, 1_799_999_000, 1_800_000_001, 4_102_444_800] {
            let local = UnixTime(local);
            assert_eq!(local.corrected(relay.correction_from(local)), relay);
        }
    }
}
