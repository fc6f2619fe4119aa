//! How often something may happen: in total, and for each source or person.
//!
//! Its law: bounded memory whatever the number of sources, and nobody is locked out: a limit fills
//! up again by itself, and says when.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};

/// Sources or people remembered by one limit; about 100 bytes each. When so many are active at
/// once, newcomers share one allowance.
const MAX_KEYS: usize = 16 * 1024;

/// Where a peer comes from, as wide as one customer of a network usually is: an IPv4 /24 or an
/// IPv6 /64. Narrower, and one attacker has thousands of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source([u8; 8]);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // Distinct from every IPv6 prefix in use: 0000::/8 is reserved (RFC 4291 §2.4).
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                [0, 0, 0, 0, 4, a, b, c]
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                [a, b, c, d, e, f, g, h]
            }
        })
    }
}

/// Whom a connection comes from: an IPv4 address or an IPv6 /64. TCP has proved it, so there is no
/// need to throw neighbours together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host(IpAddr);

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        })
    }
}

/// So many at once, and so many a minute after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// At once.
    pub burst: NonZeroU32,
    /// Refilled evenly.
    pub per_minute: NonZeroU32,
}

impl Allowance {
    /// `per_minute` evenly, `burst` at once. Zero counts as one.
    pub const fn new(burst: u32, per_minute: u32) -> Self {
        Self { burst: at_least_one(burst), per_minute: at_least_one(per_minute) }
    }

    const fn quota(self) -> Quota {
        Quota::per_minute(self.per_minute).allow_burst(self.burst)
    }
}

const fn at_least_one(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

/// Too often. Try again after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts; try again in {} s", .0.as_secs().max(1))]
pub struct TooOften(pub Duration);

/// One limit for everybody together.
pub struct Total(DefaultDirectRateLimiter);

impl Total {
    /// A full allowance.
    pub fn new(allowance: Allowance) -> Self {
        Self(DefaultDirectRateLimiter::direct(allowance.quota()))
    }

    /// Takes one.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn take(&self) -> Result<(), TooOften> {
        self.0.check().map_err(|no| TooOften(no.wait_time_from(DefaultClock::default().now())))
    }
}

/// One limit for each key.
pub struct Each<K: Hash + Eq + Clone> {
    keyed: DefaultKeyedRateLimiter<K>,
    crowd: Total,
}

impl<K: Hash + Eq + Clone> Each<K> {
    /// A full allowance for everyone.
    pub fn new(allowance: Allowance) -> Self {
        Self {
            keyed: DefaultKeyedRateLimiter::keyed(allowance.quota()),
            crowd: Total::new(allowance),
        }
    }

    /// Takes one of this key's.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn take(&self, key: &K) -> Result<(), TooOften> {
        if self.keyed.len() >= MAX_KEYS {
            self.keyed.retain_recent();
            if self.keyed.len() >= MAX_KEYS {
                return self.crowd.take();
            }
        }
        self.keyed
            .check_key(key)
            .map_err(|no| TooOften(no.wait_time_from(DefaultClock::default().now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_says_for_how_long() {
        let limit = Each::new(Allowance::new(3, 1));
        for _ in 0..3 {
            assert_eq!(limit.take(&1), Ok(()));
        }
        let wait = limit.take(&1);
        assert!(matches!(wait, Err(TooOften(d)) if d > Duration::from_secs(50)), "{wait:?}");
        assert_eq!(limit.take(&2), Ok(()), "another key is not concerned");
    }

    #[test]
    fn a_million_sources_take_bounded_memory() {
        let limit = Each::new(Allowance::new(1, 1));
        let mut passed = 0;
        for source in 0..100_000_u32 {
            passed += u32::from(limit.take(&source).is_ok());
        }
        assert!(limit.keyed.len() <= MAX_KEYS);
        assert!(passed as usize <= MAX_KEYS + 2, "{passed}");
    }

    #[test]
    fn neighbours_are_one_source_and_mapped_addresses_are_ipv4() {
        let source =
            |text: &str| Source::from(text.parse::<IpAddr>().unwrap_or(IpAddr::from([0; 4])));
        assert_eq!(source("192.0.2.1"), source("192.0.2.250"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.9"));
        assert_ne!(source("192.0.2.1"), source("192.0.3.1"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }
}
