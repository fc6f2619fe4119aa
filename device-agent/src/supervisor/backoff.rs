//! How long to wait before dialling again: soon, never long, never all at once.
//!
//! Full jitter over a window that doubles from 1 s to 30 s, so that a site that is back is
//! reachable within a minute and ten thousand devices do not dial in the same second.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A line that held this long was a good one: the next wait starts small again.
const HELD: Duration = Duration::from_secs(60);

/// Least wait, so that a relay that refuses at once is not asked in a loop.
const LEAST: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Backoff {
    window: Duration,
    connected: Option<Instant>,
}

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random numbers")]
pub(super) struct NoRandomness;

impl Default for Backoff {
    fn default() -> Self {
        Self { window: FIRST, connected: None }
    }
}

impl Backoff {
    /// A line was admitted.
    pub(super) fn connected(&mut self) {
        self.connected = Some(Instant::now());
    }

    /// The wait before the next attempt.
    pub(super) fn next(&mut self) -> Result<Duration, NoRandomness> {
        if self.connected.take().is_some_and(|since| since.elapsed() >= HELD) {
            self.window = FIRST;
        }
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| NoRandomness)?;
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        let wait = LEAST + self.window.mul_f64(share);
        self.window = (self.window * 2).min(LONGEST);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn waits_grow_but_stay_within_half_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..50).map(|_| backoff.next().unwrap()).collect();
        assert!(waits.iter().all(|wait| *wait >= LEAST && *wait <= LEAST + LONGEST));
        assert!(waits.first().unwrap() <= &(LEAST + FIRST));
        let distinct: std::collections::HashSet<_> = waits.iter().collect();
        assert!(distinct.len() > 40, "jittered");
    }

    #[test]
    fn a_line_that_broke_at_once_does_not_shorten_the_wait() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.connected();
            backoff.next().unwrap();
        }
        assert_eq!(backoff.window, LONGEST);
    }
}
