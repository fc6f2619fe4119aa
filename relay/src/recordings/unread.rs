//! What was added to recordings since whoever keeps an index of them read them last.
//!
//! Its law: bounded, and it may forget: who keeps the index looks at the directory as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use belay_proto::ids::SessionId;
use tokio::sync::Notify;

/// Most recordings it knows of.
const MOST: usize = 65_536;

/// Recordings of which more is on the disk than was read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// And whether it has ended.
    sessions: Mutex<BTreeMap<SessionId, bool>>,
    ended: Notify,
}

impl Unread {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionId, bool>> {
        // Whole between any two statements that can panic.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More of it is on the disk, up to its end where `ended`.
    pub(crate) fn added(&self, session: SessionId, ended: bool) {
        {
            let mut sessions = self.sessions();
            if sessions.len() >= MOST && !sessions.contains_key(&session) {
                return;
            }
            *sessions.entry(session).or_default() |= ended;
        }
        if ended {
            self.ended.notify_one();
        }
    }

    /// It is read as it is now, or is no more.
    pub(crate) fn read(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<SessionId> {
        self.sessions().keys().copied().collect()
    }

    /// Waits until one has ended, and says which have.
    pub(crate) async fn ended(&self) -> Vec<SessionId> {
        loop {
            let ended: Vec<SessionId> =
                self.sessions().iter().filter(|(_, ended)| **ended).map(|(one, _)| *one).collect();
            if !ended.is_empty() {
                return ended;
            }
            self.ended.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session(n: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn what_has_ended_is_told_of_until_it_is_read() {
        let unread = Unread::default();
        unread.added(session(1), false);
        unread.added(session(2), true);
        // A segment that comes again after the end does not open it.
        unread.added(session(2), false);
        assert_eq!(unread.ended().await, [session(2)]);
        unread.read(session(2));
        assert_eq!(unread.all(), [session(1)]);
        let (ended, ()) = tokio::join!(unread.ended(), async { unread.added(session(1), true) });
        assert_eq!(ended, [session(1)]);
    }

    #[test]
    fn it_is_bounded() {
        let unread = Unread::default();
        for n in 0..MOST as u128 + 10 {
            unread.added(session(n), false);
        }
        assert_eq!(unread.all().len(), MOST);
        unread.added(session(0), true);
        assert!(unread.sessions().get(&session(0)).is_some_and(|ended| *ended));
    }
}
