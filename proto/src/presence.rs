//! Presence: what is known by asking, not "a socket is open".
//!
//! Pure state of one connection. The driver calls [`Presence::handle_timeout`] when
//! [`Presence::poll_timeout`] has come, and [`Presence::handle_pong`] for each answer. `now` is a
//! monotonic time since any fixed start and never goes backwards.

use std::time::Duration;

/// How often to ask, and how long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Probing {
    /// From one answer to the next question. The default is for a device that says nothing of it:
    /// below the 30 s after which Linux forgets a quiet UDP mapping (`nf_conntrack_udp_timeout`), so
    /// that asking also keeps the NAT open ([`crate::keeping`] is how the others do).
    pub every: Duration,
    /// From a question to its answer, before the line counts as gone.
    pub patience: Duration,
}

impl Default for Probing {
    fn default() -> Self {
        Self { every: Duration::from_secs(25), patience: Duration::from_secs(10) }
    }
}

/// A device chooses how often it is asked, between these. More often is work for nothing; more
/// rarely, and a dead device would count as there for more than five minutes.
pub const ASK_LEAST: Duration = Duration::from_secs(10);
/// See [`ASK_LEAST`].
pub const ASK_MOST: Duration = Duration::from_secs(290);

/// What the driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send a ping with this number.
    Ping(u64),
    /// The peer did not answer: close the connection.
    Gone,
}

/// One connection's presence.
#[derive(Debug, Clone)]
pub struct Presence {
    probing: Probing,
    next: u64,
    asked: Option<(u64, Duration)>,
    ask_at: Duration,
    answered_at: Duration,
    round_trip: Option<Duration>,
}

impl Presence {
    /// A connection that has just proved itself by its `Hello`.
    pub const fn new(probing: Probing, now: Duration) -> Self {
        Self { probing, next: 1, asked: None, ask_at: now, answered_at: now, round_trip: None }
    }

    /// When [`Presence::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Duration {
        match self.asked {
            Some((_, at)) => at.saturating_add(self.probing.patience),
            None => self.ask_at,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Option<Effect> {
        if now < self.poll_timeout() {
            return None;
        }
        if self.asked.is_some() {
            return Some(Effect::Gone);
        }
        let number = self.next;
        self.next += 1;
        self.asked = Some((number, now));
        Some(Effect::Ping(number))
    }

    /// From now on asks so long after each answer, within [`ASK_LEAST`] and [`ASK_MOST`].
    pub fn ask_every(&mut self, every: Duration) {
        self.probing.every = every.clamp(ASK_LEAST, ASK_MOST);
        // The first question of all is asked at once.
        if self.next > 1 {
            self.ask_at = self.answered_at.saturating_add(self.probing.every);
        }
    }

    /// The peer has asked us something: it is there, and no answer is waited for any more.
    pub fn handle_question(&mut self, now: Duration) {
        self.answered_at = now;
        // Else the next question comes when it was to come: the peer may count on it.
        if self.asked.take().is_some() {
            self.ask_at = now.saturating_add(self.probing.every);
        }
    }

    /// Asks now, whatever is due; the number to send. An answer to an earlier question counts no
    /// more, but the patience with the peer goes on from that one.
    pub fn ask(&mut self, now: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        let since = self.asked.map_or(now, |(_, since)| since);
        self.asked = Some((number, since));
        number
    }

    /// An answer came; whether it was the one that is waited for. Another changes nothing.
    pub fn handle_pong(&mut self, number: u64, now: Duration) -> bool {
        let Some((asked, at)) = self.asked else { return false };
        if asked != number {
            return false;
        }
        self.asked = None;
        self.round_trip = Some(now.saturating_sub(at));
        self.answered_at = now;
        self.ask_at = now.saturating_add(self.probing.every);
        true
    }

    /// From one answer to the next question.
    pub const fn every(&self) -> Duration {
        self.probing.every
    }

    /// When the peer last answered.
    pub const fn answered_at(&self) -> Duration {
        self.answered_at
    }

    /// The last question's round trip.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_question_is_asked_at_once_and_the_next_after_an_answer() {
        let mut presence = Presence::new(Probing::default(), s(100));
        assert_eq!(presence.handle_timeout(s(100)), Some(Effect::Ping(1)));
        assert!(presence.handle_pong(1, s(101)));
        assert_eq!(presence.round_trip(), Some(s(1)));
        assert_eq!(presence.poll_timeout(), s(126));
        assert_eq!(presence.handle_timeout(s(125)), None);
        assert_eq!(presence.handle_timeout(s(126)), Some(Effect::Ping(2)));
    }

    #[test]
    fn silence_means_gone_after_the_patience_and_not_before() {
        let mut presence = Presence::new(Probing::default(), s(0));
        assert_eq!(presence.handle_timeout(s(0)), Some(Effect::Ping(1)));
        assert_eq!(presence.handle_timeout(s(9)), None);
        assert_eq!(presence.handle_timeout(s(10)), Some(Effect::Gone));
    }

    #[test]
    fn answers_nobody_asked_for_prove_nothing() {
        let mut presence = Presence::new(Probing::default(), s(0));
        assert!(!presence.handle_pong(1, s(1)));
        assert_eq!(presence.handle_timeout(s(1)), Some(Effect::Ping(1)));
        assert!(!presence.handle_pong(7, s(2)));
        assert_eq!(presence.answered_at(), s(0));
        assert_eq!(presence.handle_timeout(s(11)), Some(Effect::Gone));
    }

    #[test]
    fn a_question_asked_out_of_turn_is_answered_by_itself_alone_and_buys_no_time() {
        let mut presence = Presence::new(Probing::default(), s(0));
        assert_eq!(presence.handle_timeout(s(0)), Some(Effect::Ping(1)));
        assert_eq!(presence.ask(s(4)), 2);
        assert!(!presence.handle_pong(1, s(5)), "this one may have been on its way for long");
        assert_eq!(presence.handle_timeout(s(10)), Some(Effect::Gone));
        let mut presence = Presence::new(Probing::default(), s(0));
        assert_eq!(presence.ask(s(4)), 1);
        assert!(presence.handle_pong(1, s(5)));
        assert_eq!(presence.poll_timeout(), s(30));
    }

    #[test]
    fn the_peer_chooses_how_often_it_is_asked_within_bounds() {
        let mut presence = Presence::new(Probing::default(), s(0));
        presence.ask_every(s(285));
        assert_eq!(presence.handle_timeout(s(0)), Some(Effect::Ping(1)), "the first at once");
        presence.handle_pong(1, s(1));
        assert_eq!(presence.poll_timeout(), s(286));
        presence.ask_every(s(0));
        assert_eq!(presence.poll_timeout(), s(11));
        presence.ask_every(s(86_400));
        assert_eq!(presence.poll_timeout(), s(291));
    }

    #[test]
    fn a_peer_that_asks_is_there() {
        let mut presence = Presence::new(Probing::default(), s(0));
        assert_eq!(presence.handle_timeout(s(0)), Some(Effect::Ping(1)));
        presence.handle_question(s(9));
        assert_eq!(presence.handle_timeout(s(10)), None);
        assert_eq!(presence.poll_timeout(), s(34));
    }
}
