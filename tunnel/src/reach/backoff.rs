//! `proto::reconnect` with a clock and chance.

use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use belay_proto::reconnect;

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random numbers")]
pub struct NoRandomness;

/// A dialler's waits between its attempts.
#[derive(Debug)]
pub struct Backoff {
    start: Instant,
    waits: reconnect::Backoff,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { start: Instant::now(), waits: reconnect::Backoff::default() }
    }
}

impl Backoff {
    /// A line was admitted.
    pub fn connected(&mut self) {
        self.waits.connected(self.start.elapsed());
    }

    /// The relay said when to dial again, or did not.
    pub fn told(&mut self, wait: Option<Duration>) {
        if let Some(wait) = wait {
            self.waits.told(wait);
        }
    }

    /// The relay is there and took nobody.
    pub const fn turned_away(&mut self) {
        self.waits.turned_away();
    }

    /// The wait before the next attempt.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn wait(&mut self) -> Result<Duration, NoRandomness> {
        let mut chance = [0; 4];
        rand::fill(&mut chance).map_err(|_| NoRandomness)?;
        Ok(self.waits.next(self.start.elapsed(), u32::from_le_bytes(chance)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn no_two_devices_wait_alike() {
        let first = || Backoff::default().wait().unwrap();
        let distinct: std::collections::HashSet<_> = (0..50).map(|_| first()).collect();
        assert!(distinct.len() > 40, "{distinct:?}");
    }
}
