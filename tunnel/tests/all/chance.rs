//! Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014), small, and every seed is a good one.

use std::time::Duration;

use bytes::Bytes;

#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// Every order of magnitude as likely as another.
    pub(crate) fn scale(&mut self, least: usize, most: usize) -> usize {
        let doublings = (most / least).ilog2() as usize;
        let base = least << self.below(doublings + 1);
        self.between(base, base * 2).min(most)
    }

    /// In whole milliseconds.
    pub(crate) fn time(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least as usize, most as usize) as u64)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A source of its own, so that who draws how often changes nothing for anybody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

pub(crate) fn text(seed: u64, length: usize) -> Bytes {
    let mut chance = Chance(seed);
    (0..length).map(|_| chance.below(256) as u8).collect()
}
