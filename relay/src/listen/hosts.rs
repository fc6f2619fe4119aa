//! How many connections each host holds.
//!
//! Its law: a host at its limit gets one more in place of its oldest connection that has not asked
//! anything yet. Those who connect and stay silent push each other out, and not their neighbour
//! behind the same address who has a question.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::rate::Host;

/// The connections. Their number is bounded by the listener's permits.
pub(super) struct Hosts {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    hosts: HashMap<Host, OfHost>,
}

#[derive(Default)]
struct OfHost {
    count: usize,
    /// Oldest first.
    silent: VecDeque<(u64, CancellationToken)>,
}

/// One counted connection; dropping it counts it off.
pub(super) struct Held {
    hosts: Arc<Hosts>,
    host: Host,
    number: u64,
    cut: CancellationToken,
}

impl Hosts {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inner: Mutex::default() })
    }

    /// Counts one more of this address; `None` when all it holds are in use.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let host = Host::from(address);
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let of_host = inner.hosts.entry(host).or_default();
        if of_host.count >= self.most {
            let (_, oldest) = of_host.silent.pop_front()?;
            // Counted off now; its own end finds it gone.
            of_host.count -= 1;
            oldest.cancel();
        }
        let cut = CancellationToken::new();
        of_host.count += 1;
        of_host.silent.push_back((number, cut.clone()));
        Some(Held { hosts: Arc::clone(self), host, number, cut })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Cancelled when the connection must make room.
    pub(super) const fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// It has asked something: from now on it keeps its place.
    pub(super) fn has_asked(&self) {
        if let Some(of_host) = self.hosts.lock().hosts.get_mut(&self.host) {
            of_host.silent.retain(|(number, _)| *number != self.number);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.hosts.lock();
        let Some(of_host) = inner.hosts.get_mut(&self.host) else { return };
        of_host.silent.retain(|(number, _)| *number != self.number);
        if !self.cut.is_cancelled() {
            of_host.count -= 1;
        }
        if of_host.count == 0 {
            inner.hosts.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_silent_make_room_and_those_who_asked_do_not() {
        let hosts = Hosts::new(2);
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = hosts.enter(a).unwrap();
        let second = hosts.enter(a).unwrap();
        first.has_asked();
        let third = hosts.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(second.cut().is_cancelled() && !first.cut().is_cancelled());
        third.has_asked();
        assert!(hosts.enter(a).is_none(), "both places are in use");
        drop(second);
        assert!(hosts.enter(a).is_none(), "it had been counted off before");
        assert!(hosts.enter(b).is_some(), "another host is not concerned");
        drop(first);
        assert!(hosts.enter(a).is_some());
        drop(third);
        assert!(hosts.lock().hosts.is_empty(), "who left is forgotten");
    }
}
