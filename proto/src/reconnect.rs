//! When to dial again: soon, never long, never all at once.
//!
//! Two halves of one law. A device that lost its line waits a random part of a window that doubles
//! from 1 s to 30 s, so that a site that is back is reachable within a minute and ten thousand
//! devices do not dial in the same second. A relay that goes away in order knows how many there
//! are, and gives each a slot ([`slot`]), which takes the place of the first wait. One that is there
//! but full is asked again within seconds.
//!
//! Pure: time and chance are arguments. `now` is a monotonic time since any fixed start.

use std::mem;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A line that held this long was a good one: the next wait starts small again.
const HELD: Duration = Duration::from_secs(60);

/// Least wait, so that a relay that refuses at once is not asked in a loop.
const LEAST: Duration = Duration::from_millis(200);

/// However long a relay says to wait, a device waits no longer: no relay can send a fleet away for
/// a day.
pub const LONGEST_SLOT: Duration = Duration::from_secs(60);

/// Longest window of a dialler that a full relay turns away: the relay is there, and takes hundreds
/// a second.
const TURNED_AWAY: Duration = Duration::from_secs(8);

/// Lines a second that a relay surely takes in, four fifths of what it does on two cores that the
/// devices' own handshakes share (`docs/benchmarks.md`). More would cost more than it gains: each
/// attempt that is turned away is work for both, and its device waits again.
const LINES_PER_SECOND: u32 = 500;

/// Lines a second that a relay says goodbye to, on the same two cores. Whoever comes before all are
/// told finds the relay that goes, not the one that follows.
const GOODBYES_PER_SECOND: u32 = 3_000;

/// Over how long slots are spread at most: beyond that nobody's wait gets longer, and the relay's
/// bounds on strangers hold the rest back.
const WIDEST: Duration = Duration::from_secs(30);

/// The wait of the `n`th of `of` diallers that a relay sends away one after the other, the first
/// being 0: until all are told, and then at the rate a relay takes.
pub fn slot(n: usize, of: usize) -> Duration {
    let (n, of) = (n as f64, of.saturating_sub(1) as f64);
    let share = if of > 0.0 { (n / of).clamp(0.0, 1.0) } else { 0.0 };
    let span = |rate: u32| (of / f64::from(rate)).min(WIDEST.as_secs_f64());
    let wait = span(GOODBYES_PER_SECOND) * (1.0 - share) + span(LINES_PER_SECOND) * share;
    // Both spans are bounded, so this is a time.
    Duration::try_from_secs_f64(wait).unwrap_or(WIDEST)
}

/// A dialler's waits between its attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    window: Duration,
    connected: Option<Duration>,
    told: Option<Duration>,
    turned_away: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { window: FIRST, connected: None, told: None, turned_away: false }
    }
}

impl Backoff {
    /// A line was admitted.
    pub const fn connected(&mut self, now: Duration) {
        self.connected = Some(now);
        self.told = None;
    }

    /// The relay said when to dial again. Its word is good for one wait.
    pub fn told(&mut self, wait: Duration) {
        self.told = Some(wait.min(LONGEST_SLOT));
    }

    /// The relay is there and took nobody. Good for one wait.
    pub const fn turned_away(&mut self) {
        self.turned_away = true;
    }

    /// The wait before the next attempt. `chance` is a number drawn anew each time.
    pub fn next(&mut self, now: Duration, chance: u32) -> Duration {
        let turned_away = mem::take(&mut self.turned_away);
        if self.connected.take().is_some_and(|since| now.saturating_sub(since) >= HELD) {
            self.window = FIRST;
        }
        if let Some(slot) = self.told.take() {
            return slot.max(LEAST);
        }
        let longest = if turned_away { TURNED_AWAY } else { LONGEST };
        let window = self.window.min(longest);
        self.window = (window * 2).min(longest);
        let share = f64::from(chance) / f64::from(u32::MAX);
        LEAST + window.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    #[test]
    fn waits_grow_but_stay_within_half_a_minute() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + FIRST);
        for _ in 0..50 {
            let wait = backoff.next(NOW, u32::MAX);
            assert!(wait > LEAST + FIRST && wait <= LEAST + LONGEST);
        }
        assert_eq!(backoff.next(NOW, 0), LEAST, "jitter covers the whole window");
    }

    #[test]
    fn a_line_that_broke_at_once_does_not_shorten_the_wait_and_one_that_held_does() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.connected(NOW);
            backoff.next(NOW, u32::MAX);
        }
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + LONGEST);
        backoff.connected(NOW);
        assert_eq!(backoff.next(NOW + HELD, u32::MAX), LEAST + FIRST);
    }

    #[test]
    fn a_slot_takes_the_place_of_one_wait_and_is_bounded_both_ways() {
        let mut backoff = Backoff::default();
        backoff.told(Duration::from_secs(7));
        assert_eq!(backoff.next(NOW, u32::MAX), Duration::from_secs(7));
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + FIRST, "the window had not grown");
        backoff.told(Duration::MAX);
        assert_eq!(backoff.next(NOW, 0), LONGEST_SLOT);
        backoff.told(Duration::ZERO);
        assert_eq!(backoff.next(NOW, 0), LEAST);
        backoff.told(Duration::from_secs(7));
        backoff.connected(NOW);
        assert_eq!(backoff.next(NOW, 0), LEAST, "a slot is not kept over the next line");
    }

    #[test]
    fn a_full_relay_is_asked_again_within_seconds() {
        let mut backoff = Backoff::default();
        for _ in 0..50 {
            backoff.next(NOW, u32::MAX);
        }
        backoff.turned_away();
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + TURNED_AWAY);
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + TURNED_AWAY, "silent now: it grows again");
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + TURNED_AWAY * 2);
        let mut backoff = Backoff::default();
        backoff.turned_away();
        assert_eq!(backoff.next(NOW, u32::MAX), LEAST + FIRST, "and soon at first");
    }

    #[test]
    fn slots_begin_when_all_are_told_and_are_spread_at_the_rate_a_relay_takes() {
        assert_eq!(slot(0, 0), Duration::ZERO);
        assert_eq!(slot(0, 1), Duration::ZERO);
        assert!(slot(9, 10) < Duration::from_millis(20));
        let told_at = |n: usize| n as f64 / f64::from(GOODBYES_PER_SECOND);
        let comes_at = |n| told_at(n) + slot(n, 10_000).as_secs_f64();
        let all_told = told_at(9_999);
        for n in [0, 1, 500, 5_000, 9_999] {
            let due = all_told + n as f64 / f64::from(LINES_PER_SECOND);
            assert!((comes_at(n) - due).abs() < 0.01, "{n}: {} s, due {due} s", comes_at(n));
        }
        for n in [0, 500_000, 999_999, usize::MAX] {
            assert_eq!(slot(n, 1_000_000), WIDEST);
        }
    }
}
