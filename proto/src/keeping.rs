//! Keeping a NAT's mapping for as few bytes as that NAT allows.
//!
//! The device keeps its own mapping: a single octet now and then, which the relay passes over
//! (RFC 3948 §2.3 does the same). Whether the device is there is another matter: the relay asks,
//! and rarely, as often as the device says. Behind a NAT that holds a quiet mapping long enough the
//! question keeps it as well, and there is no octet at all.
//!
//! How long the NAT holds is found out with the very questions: now and then the device is quiet
//! for longer than it knows to be safe. If the relay's question comes in, the mapping was held; if
//! not, the device speaks up, which opens another, and goes back to what held.
//!
//! The driver calls [`Keeping::handle_asked`] for each question of the relay,
//! [`Keeping::handle_heard`] for anything else it says, and [`Keeping::handle_timeout`] when
//! [`Keeping::poll_timeout`] has come. `now` is a monotonic time since any fixed start; `sent` is
//! what the carrier has sent so far, in bytes.

use std::time::Duration;

/// A mapping that holds for so many quiet seconds, and how many such spans lie between two
/// questions. Linux forgets after 30 s (`nf_conntrack_udp_timeout`), RFC 4787 §4.3 asks for two
/// minutes at least and five by default; each rung is a little below such a number. The last leaves
/// a dead device 5 minutes to be noticed, with the relay's patience.
const RUNGS: [(u32, u32); 7] = [(14, 7), (28, 4), (58, 2), (118, 1), (178, 1), (238, 1), (285, 1)];

/// Where everybody begins: safe behind all but the hastiest.
const START: usize = 1;

/// The relay asks this much late at most: its clock runs as ours does, the rest is the path.
const GRACE: Duration = Duration::from_secs(5);

/// From a question of our own to its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the answer to the relay's last question may have cost on the wire. Whoever sent more in a
/// span that was meant to be quiet has learnt nothing from it.
const ANSWER: u64 = 400;

/// Bytes on the wire of an octet that keeps a mapping: IPv4 and UDP headers, and itself.
pub const OCTET: u64 = 20 + 8 + 1;

/// How many such octets a device sends between two questions of the relay, by how far apart it
/// asked for them to be.
pub fn octets_between(ask_seconds: u32) -> u64 {
    let rung = RUNGS.iter().find(|(holds, spans)| holds * spans == ask_seconds);
    rung.map_or(0, |(_, spans)| u64::from(spans - 1))
}

/// What is known of a NAT, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// A quiet mapping is held so long.
    pub holds: u32,
    /// It is not held so long.
    pub fails: Option<u32>,
}

/// What the driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send the octet.
    Octet,
    /// Ask the relay, and tell it [`Keeping::ask_seconds`]: its question is overdue.
    Ask,
    /// Neither its question nor an answer came: the line is dead.
    Lost,
}

/// How one line's mapping is kept.
#[derive(Debug, Clone)]
pub struct Keeping {
    rung: usize,
    fails: Option<usize>,
    exploring: bool,
    /// When the relay last asked, and what had been sent by then.
    asked_at: Duration,
    sent: u64,
    octet_at: Duration,
    own_question: Option<Duration>,
    /// One period is kept before the first longer one is tried.
    settled: bool,
}

impl Keeping {
    /// A line that has just come up, behind a NAT of which this is known.
    pub fn new(known: Option<Known>, now: Duration) -> Self {
        let at = |seconds: u32| RUNGS.iter().position(|(holds, _)| *holds == seconds);
        let rung = known.and_then(|known| at(known.holds)).unwrap_or(START);
        let fails = known.and_then(|known| known.fails).and_then(at).filter(|fails| *fails > rung);
        let mut new = Self {
            rung,
            fails,
            exploring: false,
            asked_at: now,
            sent: 0,
            octet_at: now,
            own_question: None,
            settled: false,
        };
        new.octet_at = new.next_octet(now);
        new
    }

    /// How many seconds after each answer the relay is to ask again.
    pub fn ask_seconds(&self) -> u32 {
        let (holds, spans) = self.rung();
        if self.exploring {
            self.explored().map_or(holds * spans, |(holds, _)| holds)
        } else {
            holds * spans
        }
    }

    /// What is known by now.
    pub fn known(&self) -> Known {
        let seconds = |rung: usize| RUNGS.get(rung).map(|(holds, _)| *holds);
        Known { holds: self.rung().0, fails: self.fails.and_then(seconds) }
    }

    /// The relay asks. `idle`: nothing but questions and answers is on this line. The answer goes
    /// with [`Self::ask_seconds`] when it is another than before.
    pub fn handle_asked(&mut self, idle: bool, sent: u64, now: Duration) {
        if self.exploring {
            self.exploring = false;
            if idle && sent.saturating_sub(self.sent) <= ANSWER {
                self.rung = self.next_rung();
            }
        }
        let higher = self.next_rung();
        let known_to_fail = self.fails.is_some_and(|fails| higher >= fails);
        self.exploring = self.settled && idle && higher != self.rung && !known_to_fail;
        self.settled = true;
        self.begin(sent, now);
    }

    /// The relay said something else, or answered.
    pub const fn handle_heard(&mut self) {
        self.own_question = None;
    }

    /// Something was sent that is no answer, on a path that may be another now.
    pub const fn handle_moved(&mut self) {
        self.sent = 0;
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Duration {
        match self.own_question {
            Some(at) => at.saturating_add(PATIENCE),
            None => self.octet_at.min(self.overdue()),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, sent: u64, now: Duration) -> Option<Effect> {
        if now < self.poll_timeout() {
            return None;
        }
        if self.own_question.is_some() {
            return Some(Effect::Lost);
        }
        if now < self.overdue() {
            self.octet_at = self.next_octet(now);
            return Some(Effect::Octet);
        }
        if self.exploring {
            self.exploring = false;
            self.fails = Some(self.next_rung());
        } else if self.rung > 0 && self.settled {
            // It did hold. Another network, or another NAT.
            self.fails = Some(self.rung);
            self.rung -= 1;
        }
        self.begin(sent, now);
        self.own_question = Some(now);
        Some(Effect::Ask)
    }

    fn begin(&mut self, sent: u64, now: Duration) {
        self.asked_at = now;
        self.sent = sent;
        self.own_question = None;
        self.octet_at = self.next_octet(now);
    }

    fn overdue(&self) -> Duration {
        let due = Duration::from_secs(self.ask_seconds().into());
        self.asked_at.saturating_add(due).saturating_add(GRACE)
    }

    /// Not within the span that ends with the relay's question.
    fn next_octet(&self, now: Duration) -> Duration {
        let (holds, _) = self.rung();
        let holds = Duration::from_secs(holds.into());
        let next = now.saturating_add(holds);
        let question = self.asked_at.saturating_add(Duration::from_secs(self.ask_seconds().into()));
        if self.exploring || next.saturating_add(Duration::from_secs(1)) >= question {
            Duration::MAX
        } else {
            next
        }
    }

    fn rung(&self) -> (u32, u32) {
        RUNGS.get(self.rung).copied().unwrap_or((28, 4))
    }

    fn explored(&self) -> Option<(u32, u32)> {
        RUNGS.get(self.rung + 1).copied()
    }

    fn next_rung(&self) -> usize {
        (self.rung + 1).min(RUNGS.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A device, its NAT and its relay for so long. Bytes are those on the wire, both ways.
    struct Field {
        holds: Duration,
        now: Duration,
        last_packet: Duration,
        relay_asks: Duration,
        keeping: Keeping,
        sent: u64,
        wire: u64,
        longest_silence: Duration,
        unreachable: Duration,
    }

    /// A question, its answer and their acknowledgements, as measured.
    const EXCHANGE: u64 = 200;

    impl Field {
        fn new(holds: Duration, known: Option<Known>) -> Self {
            let keeping = Keeping::new(known, s(0));
            Self {
                holds,
                now: s(0),
                last_packet: s(0),
                relay_asks: s(1),
                keeping,
                sent: 0,
                wire: 0,
                longest_silence: s(0),
                unreachable: s(0),
            }
        }

        fn packet(&mut self) {
            let quiet = self.now - self.last_packet;
            self.unreachable += quiet.saturating_sub(self.holds);
            self.last_packet = self.now;
        }

        fn exchange(&mut self) {
            self.packet();
            self.wire += EXCHANGE;
            self.sent += 120;
            let ask = s(self.keeping.ask_seconds().into());
            self.longest_silence = self.longest_silence.max(ask);
            self.relay_asks = self.now + ask;
        }

        fn run(&mut self, until: Duration) {
            while self.now < until {
                self.now = self.relay_asks.min(self.keeping.poll_timeout());
                let held = self.now - self.last_packet <= self.holds;
                if self.now == self.relay_asks {
                    if held {
                        self.keeping.handle_asked(true, self.sent, self.now);
                        self.exchange();
                    } else {
                        self.relay_asks = Duration::MAX;
                    }
                    continue;
                }
                match self.keeping.handle_timeout(self.sent, self.now) {
                    Some(Effect::Octet) => {
                        self.packet();
                        self.wire += OCTET;
                    }
                    Some(Effect::Ask) => {
                        self.exchange();
                        self.keeping.handle_heard();
                    }
                    Some(Effect::Lost) => panic!("lost at {:?}", self.now),
                    None => {}
                }
            }
        }

        fn month(&self, since: Duration, wire: u64) -> f64 {
            (self.wire - wire) as f64 / (self.now - since).as_secs_f64() * 30.0 * 86_400.0 / 1e6
        }
    }

    #[test]
    fn it_finds_what_each_nat_holds_and_stays_there() {
        for (holds, finds) in [
            (s(20), 14),
            (s(30), 28),
            (s(60), 58),
            (s(120), 118),
            (s(180), 178),
            (s(300), 285),
            (s(7_200), 285),
        ] {
            let mut field = Field::new(holds, None);
            field.run(s(3_600));
            assert_eq!(field.keeping.known().holds, finds, "behind {holds:?}");
            let (unreachable, wire, since) = (field.unreachable, field.wire, field.now);
            field.run(since + s(7 * 86_400));
            assert_eq!(field.unreachable, unreachable, "no mapping is lost after that, {holds:?}");
            assert!(unreachable <= s(130), "behind {holds:?} unreachable for {unreachable:?}");
            assert!(field.longest_silence <= s(285));
            let month = field.month(since, wire);
            let most = if holds >= s(300) { 2.0 } else { 8.0 };
            assert!(holds < s(28) || month <= most, "{month} MB a month behind {holds:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_not_tried_again() {
        let known = Known { holds: 58, fails: Some(118) };
        let mut field = Field::new(s(60), Some(known));
        field.run(s(86_400));
        assert_eq!(field.unreachable, s(0));
        assert_eq!(field.keeping.known(), known);
        assert_eq!(Keeping::new(Some(Known { holds: 59, fails: None }), s(0)).known().holds, 28);
    }

    #[test]
    fn a_nat_that_changes_its_mind_is_noticed_and_followed() {
        let mut field = Field::new(s(300), None);
        field.run(s(3_600));
        assert_eq!(field.keeping.known().holds, 285);
        field.holds = s(30);
        field.run(s(3 * 3_600));
        assert_eq!(field.keeping.known().holds, 28);
    }

    #[test]
    fn a_span_in_which_something_else_was_sent_proves_nothing() {
        let mut keeping = Keeping::new(None, s(0));
        keeping.handle_asked(true, 0, s(1));
        keeping.handle_asked(true, 100, s(113));
        assert_eq!(keeping.ask_seconds(), 58, "it explores");
        keeping.handle_asked(true, 5_000, s(171));
        assert_eq!(keeping.known().holds, 28, "a session came and went");
        keeping.handle_asked(false, 5_100, s(229));
        assert_eq!(keeping.ask_seconds(), 112, "nobody explores beside a session");
    }

    #[test]
    fn a_relay_that_neither_asks_nor_answers_is_lost_within_its_time() {
        let mut keeping = Keeping::new(Some(Known { holds: 285, fails: None }), s(0));
        keeping.handle_asked(true, 0, s(1));
        assert_eq!(keeping.handle_timeout(0, s(290)), None);
        assert_eq!(keeping.handle_timeout(0, s(291)), Some(Effect::Ask));
        assert_eq!(keeping.handle_timeout(0, s(300)), None);
        assert_eq!(keeping.handle_timeout(0, s(301)), Some(Effect::Lost));
    }

    #[test]
    fn octets_are_counted_as_they_are_sent() {
        assert_eq!(octets_between(112), 3);
        assert_eq!(octets_between(116), 1);
        assert_eq!(octets_between(285), 0);
        assert_eq!(octets_between(25), 0, "an older agent sends none");
        let asks: std::collections::BTreeSet<_> = RUNGS.iter().map(|(h, n)| h * n).collect();
        assert_eq!(asks.len(), RUNGS.len(), "each interval tells its rung");
    }
}
