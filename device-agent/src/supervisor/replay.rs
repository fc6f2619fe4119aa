//! A grant opens one session, once: session ids already taken, for as long as their grants live.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;

/// Most ids remembered. A relay would have to sign this many grants within a minute; beyond it new
/// ones are refused rather than old ones forgotten.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<SessionId, UnixTime>>);

impl Seen {
    /// Takes a session id whose grant opens until `open_by`. `false` when it was taken before, or
    /// when too many are remembered.
    pub(super) fn take(&self, session: SessionId, open_by: UnixTime, now: UnixTime) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, until| *until >= now);
        if seen.len() >= MOST || seen.contains_key(&session) {
            return false;
        }
        seen.insert(session, open_by);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_grant_opens_once_and_is_forgotten_only_when_it_has_ended() {
        let seen = Seen::default();
        let id = SessionId::from_uuid(Uuid::from_u128(1));
        assert!(seen.take(id, UnixTime(60), UnixTime(0)));
        assert!(!seen.take(id, UnixTime(60), UnixTime(0)));
        assert!(!seen.take(id, UnixTime(60), UnixTime(60)));
        for n in 2..=MOST {
            assert!(seen.take(
                SessionId::from_uuid(Uuid::from_u128(n as u128)),
                UnixTime(60),
                UnixTime(1)
            ));
        }
        let one_more = SessionId::from_uuid(Uuid::from_u128(u128::MAX));
        assert!(!seen.take(one_more, UnixTime(60), UnixTime(1)));
        assert!(seen.take(one_more, UnixTime(120), UnixTime(61)));
    }
}
