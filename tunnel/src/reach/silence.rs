//! Telling a dead path from a quiet one by what a carrier has sent and heard.

use std::time::{Duration, Instant};

/// Least silence that means something: a lost packet is repeated within 1 s on most paths.
const LEAST: Duration = Duration::from_secs(2);

/// Round trips without a word that mean something.
const ROUND_TRIPS: u32 = 3;

/// What a carrier has sent and heard, looked at now and then.
///
/// A path is silent when the carrier has sent something after it last heard something, and has
/// heard nothing for two seconds or three round trips, whichever is longer. Both QUIC and TCP
/// repeat what is not acknowledged, so a dead path cannot look like one on which all is said.
#[derive(Debug)]
pub struct Silence {
    sent: u64,
    received: u64,
    /// When something was sent for the first time after the last word.
    waiting: Option<Instant>,
}

impl Silence {
    /// How often to look: often enough for [`Silence::judge`] to be right to a quarter.
    pub const LOOK: Duration = Duration::from_millis(500);

    /// From what it has sent and received so far, in bytes.
    pub const fn new((sent, received): (u64, u64)) -> Self {
        Self { sent, received, waiting: None }
    }

    /// Looks: whether the path is silent. `round_trip` is the carrier's own estimate.
    pub fn judge(
        &mut self,
        (sent, received): (u64, u64),
        round_trip: Duration,
        now: Instant,
    ) -> bool {
        if received != self.received {
            self.received = received;
            self.sent = sent;
            self.waiting = None;
        } else if sent != self.sent {
            self.sent = sent;
            self.waiting.get_or_insert(now);
        }
        let patience = LEAST.max(round_trip * ROUND_TRIPS);
        self.waited(now).is_some_and(|waited| waited >= patience)
    }

    /// For how long it has been waiting for an answer, as of the last look.
    pub fn waited(&self, now: Instant) -> Option<Duration> {
        self.waiting.map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn an_idle_path_is_not_silent() {
        let start = Instant::now();
        let mut silence = Silence::new((100, 100));
        assert!(!silence.judge((100, 100), RTT, after(start, 3_600_000)));
    }

    #[test]
    fn what_is_sent_and_not_answered_makes_a_path_silent_until_it_answers() {
        let start = Instant::now();
        let mut silence = Silence::new((100, 100));
        assert!(!silence.judge((200, 100), RTT, start));
        assert!(!silence.judge((300, 100), RTT, after(start, 1_900)));
        assert!(silence.judge((400, 100), RTT, after(start, 2_000)));
        assert!(!silence.judge((400, 101), RTT, after(start, 2_001)));
    }

    #[test]
    fn a_long_path_is_given_more_time() {
        let start = Instant::now();
        let mut silence = Silence::new((0, 0));
        let rtt = Duration::from_secs(2);
        assert!(!silence.judge((1, 0), rtt, start));
        assert!(!silence.judge((2, 0), rtt, after(start, 5_000)));
        assert!(silence.judge((3, 0), rtt, after(start, 6_000)));
    }
}
