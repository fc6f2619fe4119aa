//! From where people have logged in lately.
//!
//! Guessing at one name from everywhere uses that name's allowance up. Whoever comes from where
//! that person has logged in before does not need it, so the guesser does not lock them out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use belay_proto::names::UserName;

use crate::rate::Source;

/// Pairs remembered; the oldest goes. About 100 bytes each.
const MOST: usize = 8192;

#[derive(Default)]
struct Inner {
    pairs: HashMap<(UserName, Source), u64>,
    order: VecDeque<(u64, UserName, Source)>,
    next: u64,
}

/// Pairs of a person and a source, since the relay started.
#[derive(Default)]
pub(super) struct KnownSources(Mutex<Inner>);

impl KnownSources {
    pub(super) fn contains(&self, name: &UserName, source: Source) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.pairs.contains_key(&(name.clone(), source))
    }

    pub(super) fn remember(&self, name: &UserName, source: Source) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let number = inner.next;
        inner.next += 1;
        inner.pairs.insert((name.clone(), source), number);
        inner.order.push_back((number, name.clone(), source));
        // An entry of `order` that was renewed since stands for nothing.
        while inner.pairs.len() > MOST || inner.order.len() > 2 * MOST {
            let Some((number, name, source)) = inner.order.pop_front() else { return };
            let pair = (name, source);
            if inner.pairs.get(&pair) == Some(&number) {
                inner.pairs.remove(&pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::IpAddr;

    fn source(n: u32) -> Source {
        Source::from(IpAddr::from((n << 8).to_be_bytes()))
    }

    #[test]
    fn the_latest_are_known_and_memory_is_bounded() {
        let known = KnownSources::default();
        let anna: UserName = "anna".parse().unwrap();
        known.remember(&anna, source(1));
        assert!(known.contains(&anna, source(1)));
        assert!(!known.contains(&anna, source(2)));
        assert!(!known.contains(&"eve".parse().unwrap(), source(1)));
        for n in 0..50_000 {
            known.remember(&anna, source(n));
            known.remember(&anna, source(1));
        }
        assert!(known.contains(&anna, source(1)), "still used, still known");
        assert!(!known.contains(&anna, source(2)));
        let inner = known.0.lock().unwrap();
        assert!(inner.pairs.len() <= MOST && inner.order.len() <= 2 * MOST);
    }
}
