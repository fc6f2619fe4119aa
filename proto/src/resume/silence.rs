//! Noticing that an attachment has gone silent, while there is something to say.
//!
//! Its law: no timer runs unless this end waits for an answer, and any byte from the other end is
//! one. The round trip is taken from answers to our own frames, never from what was sent again on
//! a later attachment (Karn's rule, RFC 6298 §3).

use std::time::Duration;

/// Least patience. A QUIC leg repairs a lost packet or changes its path well within it.
const LEAST: Duration = Duration::from_secs(2);

/// Most patience. The round trip is measured through whatever queues the transports have, and
/// acknowledgements come every few milliseconds while anything moves.
const MOST: Duration = Duration::from_secs(10);

/// Patience while the other end has everything and only takes no more. Its word that there is room
/// again could be lost with a dead attachment, but a reader that pauses for hours is no alarm.
const BLOCKED: Duration = Duration::from_secs(30);

/// The round trip before one was measured: a satellite's and some more.
const FIRST_ROUND_TRIP: Duration = Duration::from_secs(1);

/// What this end waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    /// An answer to something sent.
    Answer,
    /// Room to send more.
    Room,
}

#[derive(Debug)]
pub(super) struct Silence {
    waiting: Waiting,
    waiting_since: Duration,
    heard_at: Duration,
    /// A PING went out since we last heard anything.
    asked: bool,
    silent: bool,
    ping_due: bool,
    last_ping: u64,
    /// The PING under way and when it was sent.
    ping: Option<(u64, Duration)>,
    /// An offset whose acknowledgement gives a round trip, and when it was sent.
    sample: Option<(u64, Duration)>,
    smoothed: Option<Duration>,
    least: Option<Duration>,
}

impl Silence {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Waiting::Nothing,
            waiting_since: Duration::ZERO,
            heard_at: Duration::ZERO,
            asked: false,
            silent: false,
            ping_due: false,
            last_ping: 0,
            ping: None,
            sample: None,
            smoothed: None,
            least: None,
        }
    }

    /// A new attachment begins. What was measured stays.
    pub(super) const fn handle_attached(&mut self, now: Duration) {
        *self = Self {
            heard_at: now,
            last_ping: self.last_ping,
            smoothed: self.smoothed,
            least: self.least,
            ..Self::new()
        };
    }

    /// What this end waits for as of now.
    pub(super) fn set_waiting(&mut self, waiting: Waiting, now: Duration) {
        if waiting == self.waiting {
            return;
        }
        self.waiting = waiting;
        self.waiting_since = now;
        if waiting == Waiting::Nothing {
            self.ping_due = false;
        }
    }

    /// Bytes came.
    pub(super) const fn handle_heard(&mut self, now: Duration) {
        self.heard_at = now;
        self.asked = false;
        self.ping_due = false;
        self.silent = false;
    }

    pub(super) fn handle_sent(&mut self, end: u64, now: Duration) {
        if self.sample.is_none() {
            self.sample = Some((end, now));
        }
    }

    pub(super) fn handle_acknowledged(&mut self, offset: u64, now: Duration) {
        if let Some((_, sent)) = self.sample.take_if(|(end, _)| *end <= offset) {
            self.measure(sent, now);
        }
    }

    /// An answer to a PING. One that was not asked for says nothing but that the other end lives.
    pub(super) fn handle_pong(&mut self, number: u64, now: Duration) {
        if let Some((_, sent)) = self.ping.take_if(|(asked, _)| *asked == number) {
            self.measure(sent, now);
        }
    }

    /// The PING to send now, if one is due.
    pub(super) fn take_ping(&mut self, now: Duration) -> Option<u64> {
        if !std::mem::replace(&mut self.ping_due, false) {
            return None;
        }
        self.last_ping += 1;
        self.ping = Some((self.last_ping, now));
        Some(self.last_ping)
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        if self.silent || self.waiting == Waiting::Nothing {
            return None;
        }
        let patience = if self.asked { self.patience() } else { self.patience() / 2 };
        Some(self.waiting_since.max(self.heard_at).saturating_add(patience))
    }

    /// Whether the attachment fell silent by now.
    pub(super) fn handle_timeout(&mut self, now: Duration) -> bool {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            if self.asked {
                self.silent = true;
                return true;
            }
            self.asked = true;
            self.ping_due = true;
        }
        false
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least round trip there was: the path's own, without its queues.
    pub(super) const fn least_round_trip(&self) -> Option<Duration> {
        self.least
    }

    fn patience(&self) -> Duration {
        if self.waiting == Waiting::Room {
            return BLOCKED;
        }
        (self.smoothed.unwrap_or(FIRST_ROUND_TRIP) * 3).clamp(LEAST, MOST)
    }

    fn measure(&mut self, sent: Duration, now: Duration) {
        let sample = now.saturating_sub(sent).min(MOST);
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        // RFC 6298 §2: an eighth of each new sample.
        self.smoothed = Some(self.smoothed.map_or(sample, |old| (old * 7 + sample) / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn with_nothing_to_say_there_is_no_timer() {
        let mut silence = Silence::new();
        silence.handle_attached(ms(0));
        assert_eq!(silence.poll_timeout(), None);
        silence.set_waiting(Waiting::Answer, ms(5));
        assert!(silence.poll_timeout().is_some());
        silence.set_waiting(Waiting::Nothing, ms(6));
        assert_eq!(silence.poll_timeout(), None);
    }

    #[test]
    fn it_asks_at_half_and_gives_up_at_the_whole() {
        let mut silence = Silence::new();
        silence.handle_attached(ms(0));
        silence.set_waiting(Waiting::Answer, ms(1000));
        silence.handle_sent(1, ms(1000));
        silence.handle_acknowledged(1, ms(1100));
        silence.handle_heard(ms(1100));
        assert_eq!(silence.poll_timeout(), Some(ms(2100)));
        assert!(!silence.handle_timeout(ms(2100)));
        assert_eq!(silence.take_ping(ms(2100)), Some(1));
        assert_eq!(silence.take_ping(ms(2100)), None);
        assert_eq!(silence.poll_timeout(), Some(ms(3100)));
        assert!(!silence.handle_timeout(ms(3099)));
        assert!(silence.handle_timeout(ms(3100)));
        assert_eq!(silence.poll_timeout(), None);
        silence.handle_heard(ms(4000));
        assert_eq!(silence.poll_timeout(), Some(ms(5000)));
    }

    #[test]
    fn a_reader_that_pauses_is_asked_seldom() {
        let mut silence = Silence::new();
        silence.handle_attached(ms(0));
        silence.set_waiting(Waiting::Room, ms(0));
        assert_eq!(silence.poll_timeout(), Some(ms(15_000)));
    }

    #[test]
    fn a_long_round_trip_is_given_three_of_itself() {
        let mut silence = Silence::new();
        silence.handle_attached(ms(0));
        silence.set_waiting(Waiting::Answer, ms(0));
        silence.handle_timeout(ms(1500));
        assert_eq!(silence.take_ping(ms(1500)), Some(1));
        silence.handle_heard(ms(2500));
        silence.handle_pong(1, ms(2500));
        assert_eq!(silence.round_trip(), Some(ms(1000)));
        assert!(!silence.handle_timeout(ms(4000)));
        assert_eq!(silence.poll_timeout(), Some(ms(5500)));
        silence.handle_pong(9, ms(4001));
        assert_eq!(silence.round_trip(), Some(ms(1000)));
    }
}
