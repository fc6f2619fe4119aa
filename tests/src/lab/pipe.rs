//! One direction of a link, as a pure machine: packets and times go in, fates
//! come out. No clock and no I/O, so the same seed gives the same fates.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// How one direction of a link behaves. The default is a perfect wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// Propagation time of every packet.
    pub delay: Duration,
    /// Up to this much more, uniformly; order is kept all the same.
    pub jitter: Duration,
    /// Bits a second, counted over whole IP packets; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for their turn where `rate` is set; what comes
    /// beyond is dropped from the tail.
    pub queue: usize,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets that skip `delay` and so overtake others, 0 to 1.
    pub reorder: f64,
    /// Share of packets delivered twice, 0 to 1.
    pub duplicate: f64,
    /// Swallow everything.
    pub hole: bool,
    /// Which packets the shares above hit. Numbers are drawn for each packet
    /// whether or not they are used, so changing one share does not move the
    /// others' hits.
    pub seed: u64,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: 256 * 1024,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            hole: false,
            seed: 1,
        }
    }
}

impl Direction {
    /// Changes one setting from its text: the fields' names, times as `25ms`,
    /// `1500us` or `2s`, rates as `100mbit`, `64kbit` or `off`, switches as
    /// `on` or `off`.
    ///
    /// # Errors
    /// When the key is unknown or the value does not fit it.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "delay" => self.delay = time(value)?,
            "jitter" => self.jitter = time(value)?,
            "rate" => self.rate = rate(value)?,
            "queue" => self.queue = value.parse().context("queue is a number of bytes")?,
            "loss" => self.loss = share(value)?,
            "reorder" => self.reorder = share(value)?,
            "duplicate" => self.duplicate = share(value)?,
            "hole" => self.hole = switch(value)?,
            "seed" => self.seed = value.parse().context("seed is a whole number")?,
            _ => bail!("no setting {key:?}"),
        }
        Ok(())
    }
}

fn time(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 =
        number.parse().with_context(|| format!("{text:?} is no time such as 25ms"))?;
    Ok(match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => bail!("{text:?} wants a unit: us, ms or s"),
    })
}

fn rate(text: &str) -> Result<Option<u64>> {
    if text == "off" {
        return Ok(None);
    }
    let (number, times) = if let Some(number) = text.strip_suffix("mbit") {
        (number, 1_000_000)
    } else if let Some(number) = text.strip_suffix("kbit") {
        (number, 1_000)
    } else {
        bail!("{text:?} is no rate such as 100mbit, 64kbit or off");
    };
    let number: u64 =
        number.parse().with_context(|| format!("{text:?} is no rate such as 100mbit"))?;
    ensure!(number > 0, "a rate is more than nothing; for nothing there is hole=on");
    Ok(Some(number.saturating_mul(times)))
}

fn share(text: &str) -> Result<f64> {
    let share: f64 = text.parse().with_context(|| format!("{text:?} is no share such as 0.01"))?;
    ensure!((0.0..=1.0).contains(&share), "a share of packets is 0 to 1");
    Ok(share)
}

fn switch(text: &str) -> Result<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("{text:?} is neither on nor off"),
    }
}

/// What becomes of a packet. Times count from the machine's own zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Leaves at this time, once or twice.
    Deliver {
        /// When.
        at: Duration,
        /// Whether a second copy leaves right behind it.
        twice: bool,
    },
    /// Lost by chance.
    Lost,
    /// The queue was full.
    Overflow,
    /// Fell into the hole.
    Swallowed,
}

/// Packets counted by fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Delivered, second copies not counted.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because a queue was full.
    pub overflow: u64,
    /// Swallowed by the hole.
    pub swallowed: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Pipe {
    config: Direction,
    numbers: SplitMix64,
    /// When the last accepted packet has been sent whole.
    free_at: Duration,
    /// When the last packet that keeps order leaves.
    last_out: Duration,
    counts: Counts,
}

impl Pipe {
    /// A pipe at time zero.
    #[must_use]
    pub fn new(config: Direction) -> Self {
        let numbers = SplitMix64(config.seed);
        Self {
            config,
            numbers,
            free_at: Duration::ZERO,
            last_out: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// What it does at present.
    #[must_use]
    pub fn config(&self) -> &Direction {
        &self.config
    }

    /// What has become of the packets so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Behaves otherwise from now on. Only a changed seed starts the numbers
    /// again. Packets under way keep their times.
    pub fn configure(&mut self, config: Direction) {
        if config.seed != self.config.seed {
            self.numbers = SplitMix64(config.seed);
        }
        self.config = config;
    }

    /// Decides the fate of a packet of `len` bytes that arrives at `now`.
    pub fn offer(&mut self, now: Duration, len: usize) -> Fate {
        let [lose, overtake, double, shake] = std::array::from_fn(|_| self.numbers.share());
        let fate = self.decide(now, len, lose, overtake, double, shake);
        match fate {
            Fate::Deliver { .. } => self.counts.delivered += 1,
            Fate::Lost => self.counts.lost += 1,
            Fate::Overflow => self.counts.overflow += 1,
            Fate::Swallowed => self.counts.swallowed += 1,
        }
        fate
    }

    fn decide(
        &mut self,
        now: Duration,
        len: usize,
        lose: f64,
        overtake: f64,
        double: f64,
        shake: f64,
    ) -> Fate {
        if self.config.hole {
            return Fate::Swallowed;
        }
        let sent = match self.config.rate {
            None => now,
            Some(rate) => {
                let begin = self.free_at.max(now);
                let waiting = (begin - now).as_secs_f64() * rate as f64 / 8.0;
                if waiting + len as f64 > self.config.queue as f64 {
                    return Fate::Overflow;
                }
                self.free_at =
                    begin + Duration::from_secs_f64(len as f64 * 8.0 / rate.max(1) as f64);
                self.free_at
            }
        };
        // Lost packets have used the line: they are lost on the way, not before it.
        if lose < self.config.loss {
            return Fate::Lost;
        }
        let twice = double < self.config.duplicate;
        if overtake < self.config.reorder {
            return Fate::Deliver { at: sent, twice };
        }
        let at = (sent + self.config.delay + self.config.jitter.mul_f64(shake)).max(self.last_out);
        self.last_out = at;
        Fate::Deliver { at, twice }
    }

    /// Takes back a delivery that the driver had no room for.
    pub fn overflowed(&mut self) {
        self.counts.delivered = self.counts.delivered.saturating_sub(1);
        self.counts.overflow += 1;
    }
}

/// Steele, Lea and Flood's generator ("Fast splittable pseudorandom number
/// generators", 2014): small, and the same for ever, so that a seed printed by
/// a failed run years ago still means the same packets.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn share(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next() >> 11) as f64 * STEP
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs for seed 1234567, as in the reference implementation.
        let mut numbers = SplitMix64(1_234_567);
        assert_eq!(numbers.next(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_seed_always_loses_the_same_packets_and_about_the_share_asked_for() {
        let config = Direction { loss: 0.1, seed: 7, ..Direction::default() };
        let fates = |config: &Direction| {
            let mut pipe = Pipe::new(config.clone());
            (0..10_000).map(|n| pipe.offer(MS * n, 1000)).collect::<Vec<_>>()
        };
        let first = fates(&config);
        assert_eq!(first, fates(&config));
        assert_ne!(first, fates(&Direction { seed: 8, ..config.clone() }));
        let lost = first.iter().filter(|fate| **fate == Fate::Lost).count();
        // Five standard deviations of a binomial with n 10,000 and p 0.1.
        assert!((850..=1150).contains(&lost), "{lost} of 10000 lost");
        // Another share being on moves no loss.
        let doubled = fates(&Direction { duplicate: 0.5, ..config });
        for (a, b) in first.iter().zip(&doubled) {
            assert_eq!(*a == Fate::Lost, *b == Fate::Lost);
        }
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_drops_from_the_tail() {
        // 1250 bytes at 1 Mbit/s are 10 ms.
        let mut pipe =
            Pipe::new(Direction { rate: Some(1_000_000), queue: 2500, ..Direction::default() });
        assert_eq!(pipe.offer(MS, 1250), Fate::Deliver { at: MS * 11, twice: false });
        assert_eq!(pipe.offer(MS, 1250), Fate::Deliver { at: MS * 21, twice: false });
        assert_eq!(pipe.offer(MS, 1250), Fate::Overflow);
        assert_eq!(pipe.offer(MS * 11, 1250), Fate::Deliver { at: MS * 31, twice: false });
        assert_eq!(pipe.counts(), Counts { delivered: 3, overflow: 1, ..Counts::default() });
    }

    #[test]
    fn a_hole_swallows_until_it_is_closed() {
        let mut pipe = Pipe::new(Direction { hole: true, ..Direction::default() });
        assert_eq!(pipe.offer(MS, 1), Fate::Swallowed);
        pipe.configure(Direction { delay: MS, ..Direction::default() });
        assert_eq!(pipe.offer(MS, 1), Fate::Deliver { at: MS * 2, twice: false });
    }

    #[test]
    fn reordered_packets_overtake() {
        let mut pipe =
            Pipe::new(Direction { delay: MS * 50, reorder: 0.2, ..Direction::default() });
        let times: Vec<Duration> = (0..100)
            .map(|n| match pipe.offer(MS * n, 100) {
                Fate::Deliver { at, .. } => at,
                Fate::Lost | Fate::Overflow | Fate::Swallowed => {
                    unreachable!("perfect but for order")
                }
            })
            .collect();
        let early = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((5..40).contains(&early), "{early} overtook");
    }

    #[test]
    fn settings_are_read_from_text_and_nonsense_is_refused() {
        let mut it = Direction::default();
        for (key, value) in [
            ("delay", "25ms"),
            ("jitter", "1500us"),
            ("rate", "100mbit"),
            ("queue", "9000"),
            ("loss", "0.05"),
            ("reorder", "0.1"),
            ("duplicate", "1"),
            ("hole", "on"),
            ("seed", "9"),
        ] {
            it.set(key, value).unwrap();
        }
        assert_eq!(
            it,
            Direction {
                delay: MS * 25,
                jitter: Duration::from_micros(1500),
                rate: Some(100_000_000),
                queue: 9000,
                loss: 0.05,
                reorder: 0.1,
                duplicate: 1.0,
                hole: true,
                seed: 9,
            }
        );
        for (key, value) in [
            ("delay", "25"),
            ("delay", "ms"),
            ("rate", "0mbit"),
            ("rate", "1gbit"),
            ("loss", "1.5"),
            ("loss", "NaN"),
            ("hole", "yes"),
            ("mtu", "1500"),
        ] {
            assert!(it.set(key, value).is_err(), "{key}={value} was taken");
        }
    }

    proptest! {
        #[test]
        fn without_reordering_order_holds_and_nothing_leaves_before_its_delay(
            arrivals in prop::collection::vec((0_u64..5_000, 1_usize..1500), 1..200),
            delay in 0_u64..100_000,
            jitter in 0_u64..100_000,
            rate in prop::option::of(10_000_u64..1_000_000_000),
            seed in any::<u64>(),
        ) {
            let delay = Duration::from_micros(delay);
            let mut pipe = Pipe::new(Direction {
                delay,
                jitter: Duration::from_micros(jitter),
                rate,
                loss: 0.05,
                seed,
                ..Direction::default()
            });
            let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
            for (gap, len) in arrivals {
                now += Duration::from_micros(gap);
                if let Fate::Deliver { at, .. } = pipe.offer(now, len) {
                    prop_assert!(at >= last);
                    prop_assert!(at >= now + delay);
                    last = at;
                }
            }
        }
    }
}
