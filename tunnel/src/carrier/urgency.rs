//! How urgent a stream is, measured by what it sends: one that sent little lately goes before those
//! that sent much.
//!
//! Nobody says what a stream is for. Plain `ssh` does not tell whether it types or copies, and
//! whoever could say so could lie; each sender on the way measures for itself. Law: a stream that
//! is held up by others becomes urgent with time, so none waits for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes sent lately up to which a stream is urgent: a screen drawn anew, a listing, a few keys.
const LITTLE: f64 = 64.0 * 1024.0;

/// Most that is remembered: whoever is held up is urgent again after two half-lives, before the
/// resume layer would take it for lost.
const MUCH: f64 = 4.0 * LITTLE;

/// Time in which half of what was sent is forgotten. With [`LITTLE`] it makes 15 KB a second that
/// go first for ever: less than each of many transfers gets of a line worth the name.
const HALF_LIFE: Duration = Duration::from_secs(3);

/// What both carriers order their streams by: higher goes first. Zero is what they begin with.
const URGENT: i32 = 0;
const PATIENT: i32 = -1;

/// One stream's.
#[derive(Debug)]
pub(super) struct Urgency {
    recent: f64,
    at: Instant,
    patient: bool,
}

impl Urgency {
    /// Of a stream that has sent nothing.
    pub(super) const fn new(now: Instant) -> Self {
        Self { recent: 0.0, at: now, patient: false }
    }

    /// The priority now.
    pub(super) const fn priority(&self) -> i32 {
        if self.patient { PATIENT } else { URGENT }
    }

    /// So many bytes were given to the carrier. Says whether the priority is another now.
    pub(super) fn handle_sent(&mut self, bytes: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.recent *= (-passed / HALF_LIFE.as_secs_f64()).exp2();
        self.recent = (self.recent + bytes as f64).min(MUCH);
        let patient = self.recent > LITTLE;
        std::mem::replace(&mut self.patient, patient) != patient
    }

    /// When it becomes urgent if it sends nothing more; `None` while it is.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.patient.then(|| {
            let lives = (self.recent / LITTLE).log2();
            // A little later, so that rounding does not make it a little too early.
            self.at + HALF_LIFE.mul_f64(lives.max(0.0)) + Duration::from_millis(1)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends pieces at a pace; for how many of them it was urgent.
    fn urgent(pieces: u32, size: usize, every: Duration) -> u32 {
        let start = Instant::now();
        let mut urgency = Urgency::new(start);
        (0..pieces)
            .filter(|n| {
                urgency.handle_sent(size, start + every * *n);
                urgency.priority() == URGENT
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn typing_is_urgent_for_as_long_as_it_lasts() {
        // Ten keys a second, each with what SSH and the resume layer put around it.
        assert_eq!(urgent(10_000, 200, 100 * MS), 10_000);
        // A screen of 8 KB every second.
        assert_eq!(urgent(1_000, 8_192, 1_000 * MS), 1_000);
    }

    #[test]
    fn a_transfer_is_not_even_over_a_thin_line() {
        assert_eq!(urgent(1_000, 65_537, 50 * MS), 0);
        // 1 Mbit/s in packets: urgent only for its first bytes.
        let first = urgent(10_000, 1_400, Duration::from_micros(11_200));
        assert!((40..60).contains(&first), "{first}");
    }

    #[test]
    fn whoever_is_held_up_becomes_urgent_and_whoever_goes_on_does_not_stay_so() {
        let start = Instant::now();
        let mut urgency = Urgency::new(start);
        assert!(urgency.handle_sent(4 << 20, start), "it changed");
        assert_eq!(urgency.priority(), PATIENT);
        let at = urgency.poll_timeout().unwrap();
        assert!((6_000 * MS..6_100 * MS).contains(&(at - start)), "{:?}", at - start);
        assert!(!urgency.handle_sent(0, at - 10 * MS));
        assert!(urgency.handle_sent(0, at));
        assert_eq!((urgency.priority(), urgency.poll_timeout()), (URGENT, None));
        assert!(urgency.handle_sent(65_536, at), "it goes on");
    }
}
