//! Who is reading evidence at the moment, so that one record stands for one reading and not for each
//! request of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use belay_proto::ids::UserId;

/// How long one record covers what is read on. Said in the record.
const COVERS: Duration = Duration::from_secs(600);

/// By person: until when, and entries after which. Checkpoints and proofs have a place of their own.
type Open = BTreeMap<(UserId, bool), (Instant, u64)>;

/// The readings that are recorded and not over. At most two of each person who may read.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Open>);

impl Readings {
    /// Whether what this person asks for is within a reading that is recorded.
    pub(super) fn covers(&self, who: UserId, after: Option<u64>) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.get(&(who, after.is_some()))
            .is_some_and(|(until, from)| now < *until && *from <= after.unwrap_or_default())
    }

    /// A reading was recorded.
    pub(super) fn begun(&self, who: UserId, after: Option<u64>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, (until, _)| now < *until);
        open.insert((who, after.is_some()), (now + COVERS, after.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::ids::UserId;
    use uuid::Uuid;

    use super::Readings;

    #[test]
    fn a_reading_covers_what_comes_after_and_nobody_else() {
        let (readings, who) = (Readings::default(), UserId::from_uuid(Uuid::now_v7()));
        assert!(!readings.covers(who, Some(5)));
        readings.begun(who, Some(5));
        assert!(readings.covers(who, Some(5)) && readings.covers(who, Some(500)));
        assert!(!readings.covers(who, Some(4)), "earlier entries are another reading");
        assert!(!readings.covers(who, None), "so are proofs");
        assert!(!readings.covers(UserId::from_uuid(Uuid::now_v7()), Some(5)));
    }
}
