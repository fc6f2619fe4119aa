//! How much of a stream is taken in ahead of the other end.
//!
//! Whatever was taken in and has not arrived stands before all that comes next: before what Ctrl-C
//! does to a flood, and before a key that shares an SSH connection with a transfer. So an end takes
//! in what its line carries within [`SPARE`] and two round trips, by what acknowledgements show of
//! it, and lets the application wait for the rest. On 2 Mbit/s, once that is known, it is 80 KB instead of
//! 4 MiB, and 0.3 s instead of 16.
//!
//! A carrier that begins to send doubles from little, and what is acknowledged shows what it sent a round trip
//! before. So as long as the rate grows nothing is taken back, and twice as much is taken in: a carrier whose
//! queue runs empty doubles no more.
//!
//! Its law: it bounds what is taken in, never what is sent, so nothing that was taken depends on it;
//! and a writer that it stopped finds out more, since twice the round trip always asks for more than
//! the line was given. What it is not: congestion control, which is the carrier's.

use std::collections::VecDeque;
use std::time::Duration;

/// Before anything is known of the line: an acknowledgement comes at the latest after so much.
const FIRST: usize = 256 * 1024;

/// On the slowest line: a quarter of a second of 1 Mbit/s.
const LEAST: usize = 32 * 1024;

/// What is held beyond two round trips: an acknowledgement waits up to 20 ms, and a leg that lost a
/// packet delivers nothing for a round trip and some.
const SPARE: Duration = Duration::from_millis(250);

/// Time over which a rate is taken; with a longer round trip, that. A leg that repaired a loss delivers
/// at once what it had held back, and that is no rate.
const RUN: Duration = Duration::from_millis(300);

/// Growth of the rate, in quarters, that shows a line which has not come to its speed; and after how many runs
/// without it the line has (as in BBR, draft-ietf-ccwg-bbr §5.3.1.2).
const GROWING_QUARTERS: u64 = 5;
const SETTLED: u8 = 3;

/// Rates a run.
const STEPS: u32 = 4;

/// Runs for which what they showed is remembered: a line that stood still for a moment is as fast as before.
const REMEMBERED: u32 = 6;

/// What a run showed, and when.
#[derive(Debug, Clone, Copy)]
struct Shown {
    at: Duration,
    carried: usize,
}

#[derive(Debug)]
pub(super) struct Ahead {
    most: usize,
    /// The application had to wait since the last step.
    waited: bool,
    /// Steps in which the line had work, without a pause: when, and what had been acknowledged.
    steps: VecDeque<(Duration, u64)>,
    shown: VecDeque<Shown>,
    /// The greatest rate of this line's runs, when one was looked at last, and how many in a row were no greater.
    best: u64,
    judged: Duration,
    flat: u8,
}

impl Ahead {
    pub(super) const fn new() -> Self {
        Self {
            most: FIRST,
            waited: false,
            steps: VecDeque::new(),
            shown: VecDeque::new(),
            best: 0,
            judged: Duration::ZERO,
            flat: 0,
        }
    }

    /// Bytes that may be held, taken in and not acknowledged.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// There is another line. What was learnt of the last one is where this one begins.
    pub(super) fn handle_attached(&mut self) {
        self.waited = false;
        self.steps.clear();
        self.shown.clear();
        self.best = 0;
        self.judged = Duration::ZERO;
        self.flat = 0;
    }

    /// The application has more than there was room for.
    pub(super) const fn handle_wait(&mut self) {
        self.waited = true;
    }

    /// The other end has everything up to `acknowledged`, and `held` bytes are held still.
    pub(super) fn handle_acknowledged(
        &mut self,
        (acknowledged, held): (u64, usize),
        least_round_trip: Option<Duration>,
        now: Duration,
    ) {
        let round_trip = least_round_trip.unwrap_or_default();
        let run = RUN.max(round_trip);
        let since = |at: Duration| now.saturating_sub(at);
        if self.steps.back().is_some_and(|(at, _)| since(*at) < run / STEPS) {
            return;
        }
        let waited = std::mem::replace(&mut self.waited, false);
        if !waited && held <= LEAST {
            return self.steps.clear();
        }
        while self.steps.get(1).is_some_and(|(at, _)| since(*at) >= run) {
            self.steps.pop_front();
        }
        let first = self.steps.front().copied();
        self.steps.push_back((now, acknowledged));
        let Some((at, from)) = first else { return };
        let rate = rate(acknowledged.saturating_sub(from), since(at));
        let is_whole = since(at) >= run;
        if is_whole && since(self.judged) >= run {
            self.judge(rate, now);
        }
        let trips = if self.is_settled() { 2 } else { 4 };
        let carried = u128::from(rate) * (trips * round_trip + SPARE).as_nanos() / 1_000_000_000;
        let carried = usize::try_from(carried).unwrap_or(usize::MAX).max(LEAST);
        // What an application gives that waits neither here nor before the line says nothing of it.
        if !waited && held <= carried {
            return;
        }
        if !is_whole || !self.is_settled() {
            // A burst is no speed either.
            self.most = self.most.max(carried.min(2 * self.most));
            return;
        }
        while self.shown.front().is_some_and(|old| since(old.at) > run * REMEMBERED) {
            self.shown.pop_front();
        }
        // Only what may still be the best one day.
        while self.shown.back().is_some_and(|last| last.carried <= carried) {
            self.shown.pop_back();
        }
        self.shown.push_back(Shown { at: now, carried });
        self.most = self.shown.front().map_or(carried, |best| best.carried);
    }

    const fn judge(&mut self, rate: u64, now: Duration) {
        self.judged = now;
        if rate > self.best.saturating_mul(GROWING_QUARTERS) / 4 {
            self.best = rate;
            self.flat = 0;
        } else if self.flat < SETTLED {
            self.flat += 1;
        }
    }

    /// Whether the line has come to its speed.
    const fn is_settled(&self) -> bool {
        self.flat >= SETTLED
    }
}

/// In bytes a second.
fn rate(bytes: u64, span: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / span.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of so many bytes a second, whose round trip without a queue is `round_trip`.
    struct Line {
        rate: u64,
        round_trip: Duration,
        /// What its carrier has under way at most; it doubles each round trip as long as it is used.
        window: u64,
    }

    impl Line {
        fn of(rate: u64, round_trip: Duration) -> Self {
            Self { rate, round_trip, window: u64::MAX }
        }

        /// A writer that always has more: the bytes it may have ahead after each second, and all that was
        /// acknowledged.
        fn run(mut self, ahead: &mut Ahead, seconds: u64) -> (Vec<usize>, u64) {
            let step = Duration::from_millis(10);
            let (mut now, mut taken, mut arrived) = (Duration::ZERO, 0_u64, 0_u64);
            let mut on_the_way: VecDeque<(Duration, u64)> = VecDeque::new();
            let mut held = Vec::new();
            let mut acknowledged = 0;
            while now < Duration::from_secs(seconds) {
                taken = taken.max(acknowledged + ahead.most() as u64);
                ahead.handle_wait();
                // What the line carries in one step arrives a round trip later.
                let window = self.window.saturating_sub(arrived - acknowledged);
                let carried = (taken - arrived).min(self.rate * 10 / 1000).min(window);
                arrived += carried;
                on_the_way.push_back((now + self.round_trip, arrived));
                now += step;
                while let Some((at, offset)) =
                    on_the_way.front().copied().filter(|one| one.0 <= now)
                {
                    on_the_way.pop_front();
                    if offset > acknowledged {
                        self.window = self.window.saturating_add(offset - acknowledged);
                        acknowledged = offset;
                        let left = usize::try_from(taken - acknowledged).unwrap_or(usize::MAX);
                        ahead.handle_acknowledged((acknowledged, left), Some(self.round_trip), at);
                    }
                }
                if now.subsec_millis() == 0 {
                    held.push(ahead.most());
                }
            }
            (held, acknowledged)
        }
    }

    fn on_a_line(ahead: &mut Ahead, rate: u64, round_trip: Duration, seconds: u64) -> Vec<usize> {
        let (held, acknowledged) = Line::of(rate, round_trip).run(ahead, seconds);
        assert!(
            acknowledged * 10 >= rate * (seconds - 1) * 9,
            "{acknowledged} of {}",
            rate * seconds
        );
        held
    }

    #[test]
    fn a_carrier_that_begins_slowly_always_has_enough_to_double() {
        for (rate, round_trip) in
            [(1_900_000, 650), (12_500_000, 650), (12_500_000, 100), (250_000, 100)]
        {
            let line = || {
                let round_trip = Duration::from_millis(round_trip);
                Line { window: 13_000, ..Line::of(rate, round_trip) }
            };
            // Never judged, and never lowered.
            let mut endless = Ahead { most: usize::MAX / 4, judged: Duration::MAX, ..Ahead::new() };
            let (_, most) = line().run(&mut endless, 10);
            let (_, ours) = line().run(&mut Ahead::new(), 10);
            assert!(ours * 100 >= most * 97, "{rate} B/s, {round_trip} ms: {ours} of {most}");
        }
    }

    #[test]
    fn a_line_is_kept_full_and_little_waits_before_it() {
        for (rate, round_trip) in [
            (125_000, 40),
            (250_000, 40),
            (250_000, 700),
            (1_250_000, 100),
            (1_900_000, 600),
            (12_500_000, 100),
            (12_500_000, 1),
        ] {
            let round_trip = Duration::from_millis(round_trip);
            let held = on_a_line(&mut Ahead::new(), rate, round_trip, 12);
            let line = u128::from(rate) * (2 * round_trip + SPARE).as_millis() / 1000;
            let line = usize::try_from(line).unwrap_or(usize::MAX).max(LEAST);
            let last = held.last().copied().unwrap_or_default();
            assert!(last <= line + line / 4, "{rate} B/s, {round_trip:?}: {last}, at most {line}");
        }
    }

    #[test]
    fn what_another_window_limits_is_no_line_either_but_a_queue_is() {
        // Much was carried at once at first, and the writer never waits here after that.
        let mut ahead = Ahead::new();
        let round_trip = Duration::from_millis(100);
        for (at, acknowledged) in [(0, 0), (80, 400_000)] {
            ahead.handle_wait();
            let now = Duration::from_millis(at);
            ahead.handle_acknowledged((acknowledged, 250_000), Some(round_trip), now);
        }
        assert!(ahead.most() == 2 * FIRST, "{}", ahead.most());
        for turn in 1..200_u64 {
            let now = Duration::from_millis(80 + turn * 20);
            ahead.handle_acknowledged((400_000 + turn * 5_000, 1 << 20), Some(round_trip), now);
        }
        assert!(ahead.most() < 200_000, "{}", ahead.most());
    }

    #[test]
    fn a_faster_line_is_found_and_a_slower_one_within_seconds() {
        let mut ahead = Ahead::new();
        let round_trip = Duration::from_millis(100);
        for rate in [250_000, 12_500_000, 250_000] {
            let most = rate * 450 / 1000;
            ahead.handle_attached();
            let held = on_a_line(&mut ahead, rate, round_trip, 6);
            let last = held.last().copied().unwrap_or_default() as u64;
            assert!(last <= most + most / 4 && last >= most / 2, "{rate} B/s: {held:?}");
        }
    }

    #[test]
    fn what_types_makes_no_line_slow() {
        let mut ahead = Ahead::new();
        on_a_line(&mut ahead, 12_500_000, Duration::from_millis(20), 4);
        let before = ahead.most();
        ahead.handle_attached();
        for key in 0..600_u64 {
            let now = Duration::from_millis(key * 120);
            ahead.handle_acknowledged((key, 1), Some(Duration::from_millis(20)), now);
        }
        assert_eq!(ahead.most(), before);
    }

    #[test]
    fn a_line_that_repairs_a_loss_is_neither_slow_nor_fast() {
        let mut ahead = Ahead::new();
        let round_trip = Duration::from_millis(100);
        on_a_line(&mut ahead, 250_000, round_trip, 4);
        let before = ahead.most();
        ahead.handle_attached();
        let mut least = before;
        for turn in 1..200_u64 {
            ahead.handle_wait();
            // For 160 ms of each 400 nothing comes, and then all of it.
            let now = turn * 20;
            let come = if now % 400 < 160 { now - now % 400 } else { now };
            let now = Duration::from_millis(now);
            ahead.handle_acknowledged((come * 250, before), Some(round_trip), now);
            least = least.min(ahead.most());
            assert!(ahead.most() < 2 * before, "{} and {before}", ahead.most());
        }
        assert!(least > before * 2 / 3, "{least} and {before}");
    }
}
