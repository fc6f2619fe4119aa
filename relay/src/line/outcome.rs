//! How a session's two directions ended, in words for the record.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use belay_tunnel::carrier::{ResetCode, StreamError};

/// Bytes passed each way so far.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

impl Passed {
    pub(super) fn count_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is recorded when a session closes.
pub(super) struct Closing<'a> {
    pub(super) up: Result<(), StreamError>,
    pub(super) down: Result<(), StreamError>,
    /// The client said that it is done, and went.
    pub(super) client_left: bool,
    pub(super) passed: &'a Passed,
    pub(super) seconds: u64,
}

impl fmt::Display for Closing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (&self.up, &self.down) {
            (_, Ok(())) => "ended",
            _ if self.client_left => "ended by the client",
            // It stopped reading with that word, and goes next.
            (_, Err(StreamError::Reset(ResetCode::DONE))) => "ended by the client",
            (Err(StreamError::Carrier), _) | (_, Err(StreamError::Carrier)) => "a line was lost",
            (_, Err(StreamError::Reset(_))) => "broken off",
        };
        write!(
            f,
            "{how} after {} s; {} bytes to the device, {} from it",
            self.seconds,
            self.passed.up.load(Ordering::Relaxed),
            self.passed.down.load(Ordering::Relaxed)
        )
    }
}
