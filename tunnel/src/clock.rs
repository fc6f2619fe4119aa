//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use belay_proto::time::UnixTime;

/// The local wall clock. A clock before 1970 reads as 1970.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
