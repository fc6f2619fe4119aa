//! How many connections each host holds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::rate::Host;

/// The count. Its size is bounded by the connections it counts.
pub(super) struct Hosts {
    most: usize,
    held: Mutex<HashMap<Host, usize>>,
}

/// One counted connection; dropping it counts it off.
pub(super) struct Held {
    hosts: Arc<Hosts>,
    host: Host,
}

impl Hosts {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::new(HashMap::new()) })
    }

    /// Counts one more of this address; `None` when it holds as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let host = Host::from(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(host).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Held { hosts: Arc::clone(self), host })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.hosts.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_host_is_bounded_and_another_is_not_concerned() {
        let hosts = Hosts::new(2);
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = hosts.enter(a).unwrap();
        let _second = hosts.enter(a).unwrap();
        assert!(hosts.enter(a).is_none());
        assert!(hosts.enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
        assert!(hosts.enter(b).is_some());
        drop(first);
        assert!(hosts.enter(a).is_some());
        assert_eq!(hosts.held.lock().unwrap().len(), 1, "who left is forgotten");
    }
}
