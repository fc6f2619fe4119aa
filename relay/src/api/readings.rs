//! Who is reading evidence at the moment, so that one record stands for one reading and not for each
//! request of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use belay_proto::ids::{SessionId, UserId};

/// How long one record covers what is read on. Said in the record.
const COVERS: Duration = Duration::from_secs(600);

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Entries of the log.
    Entries,
    /// Its checkpoints and proofs.
    Proofs,
    /// A session's recording, as it grows.
    Live(SessionId),
}

/// By person: until when, and entries after which.
type Open = BTreeMap<(UserId, What), (Instant, u64)>;

/// The readings that are recorded and not over: no more than were recorded in ten minutes.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Open>);

impl Readings {
    /// Whether what this person asks for of the log is within a reading that is recorded: entries
    /// after the first `after`, or proofs.
    pub(super) fn covers(&self, who: UserId, after: Option<u64>) -> bool {
        self.has((who, of_log(after)), after.unwrap_or_default())
    }

    /// A reading of the log was recorded.
    pub(super) fn begun(&self, who: UserId, after: Option<u64>) {
        self.add((who, of_log(after)), after.unwrap_or_default());
    }

    /// Whether it is recorded that this person watches this session.
    pub(super) fn watches(&self, who: UserId, session: SessionId) -> bool {
        self.has((who, What::Live(session)), 0)
    }

    /// That was recorded.
    pub(super) fn begun_to_watch(&self, who: UserId, session: SessionId) {
        self.add((who, What::Live(session)), 0);
    }

    fn has(&self, key: (UserId, What), after: u64) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.get(&key).is_some_and(|(until, from)| now < *until && *from <= after)
    }

    fn add(&self, key: (UserId, What), after: u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, (until, _)| now < *until);
        open.insert(key, (now + COVERS, after));
    }
}

const fn of_log(after: Option<u64>) -> What {
    if after.is_some() { What::Entries } else { What::Proofs }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_reading_covers_what_comes_after_and_nobody_else() {
        let (readings, who) = (Readings::default(), UserId::from_uuid(Uuid::now_v7()));
        assert!(!readings.covers(who, Some(5)));
        readings.begun(who, Some(5));
        assert!(readings.covers(who, Some(5)) && readings.covers(who, Some(500)));
        assert!(!readings.covers(who, Some(4)), "earlier entries are another reading");
        assert!(!readings.covers(who, None), "so are proofs");
        assert!(!readings.covers(UserId::from_uuid(Uuid::now_v7()), Some(5)));
        let session = SessionId::from_uuid(Uuid::now_v7());
        assert!(!readings.watches(who, session), "and so is what a session shows");
        readings.begun_to_watch(who, session);
        assert!(readings.watches(who, session));
        assert!(!readings.watches(who, SessionId::from_uuid(Uuid::now_v7())));
    }
}
