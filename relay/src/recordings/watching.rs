//! Who watches which session's recording grow, and waking them when it has.
//!
//! Its law: bounded, and nothing is held of who asks no more. What it is not: it reads no recording;
//! who is woken looks at the file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belay_proto::ids::{SessionId, UserId};
use tokio::sync::Notify;

/// Most people who watch at a time, each session of one counted. Each holds an HTTPS connection most
/// of the time.
const MOST: usize = 256;

/// Who has not asked again for so long watches no more. One question waits
/// [`crate::api::WATCH_WAIT`] at most.
const GONE: Duration = Duration::from_secs(60);

/// Somebody would be one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} sessions are being watched")]
pub struct TooMany;

#[derive(Debug, Default)]
struct Watched {
    grown: Arc<Notify>,
    by: BTreeMap<UserId, Instant>,
}

#[derive(Debug, Default)]
struct All {
    sessions: BTreeMap<SessionId, Watched>,
    stopped: bool,
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Watching(Mutex<All>);

impl Watching {
    fn all(&self) -> MutexGuard<'_, All> {
        // Whole between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This person watches this session, from now until they ask no more. What is returned is told
    /// of each segment from now on.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn enter(&self, session: SessionId, who: UserId) -> Result<Arc<Notify>, TooMany> {
        self.enter_at(session, who, Instant::now())
    }

    fn enter_at(
        &self,
        session: SessionId,
        who: UserId,
        now: Instant,
    ) -> Result<Arc<Notify>, TooMany> {
        let mut all = self.all();
        all.forget(now);
        let watching: usize = all.sessions.values().map(|watched| watched.by.len()).sum();
        let known = all.sessions.get(&session).is_some_and(|one| one.by.contains_key(&who));
        if !known && watching >= MOST {
            return Err(TooMany);
        }
        let watched = all.sessions.entry(session).or_default();
        watched.by.insert(who, now);
        Ok(Arc::clone(&watched.grown))
    }

    /// Who watches this session.
    pub fn by(&self, session: SessionId) -> Vec<UserId> {
        self.by_at(session, Instant::now())
    }

    fn by_at(&self, session: SessionId, now: Instant) -> Vec<UserId> {
        let mut all = self.all();
        all.forget(now);
        all.sessions.get(&session).map(|one| one.by.keys().copied().collect()).unwrap_or_default()
    }

    /// A segment of this session is on the disk.
    pub(super) fn grown(&self, session: SessionId) {
        if let Some(watched) = self.all().sessions.get(&session) {
            watched.grown.notify_waiters();
        }
    }

    /// Nobody waits from now on: the relay stops.
    pub fn stop(&self) {
        let mut all = self.all();
        all.stopped = true;
        for watched in all.sessions.values() {
            watched.grown.notify_waiters();
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.all().stopped
    }
}

impl All {
    fn forget(&mut self, now: Instant) {
        self.sessions.retain(|_, watched| {
            watched.by.retain(|_, asked| now.duration_since(*asked) < GONE);
            !watched.by.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::task::{Context, Waker};

    use uuid::Uuid;

    use super::*;

    fn session(n: u8) -> SessionId {
        SessionId::from_uuid(Uuid::from_bytes([n; 16]))
    }

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn who_asks_no_more_is_forgotten_and_who_asks_on_is_not() {
        let (watching, begin) = (Watching::default(), Instant::now());
        let later = |halves: u32| begin + halves * GONE / 2;
        watching.enter_at(session(1), user(1), later(0)).unwrap();
        watching.enter_at(session(1), user(2), later(0)).unwrap();
        watching.enter_at(session(1), user(1), later(1)).unwrap();
        assert_eq!(watching.by_at(session(1), later(1)), [user(1), user(2)]);
        assert_eq!(watching.by_at(session(1), later(2)), [user(1)]);
        assert!(watching.by_at(session(1), later(3)).is_empty());
        assert!(watching.all().sessions.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_for_those_who_are_in() {
        let (watching, begin) = (Watching::default(), Instant::now());
        for n in 0..MOST as u128 {
            let session = session(u8::try_from(n % 200).unwrap());
            watching.enter_at(session, user(n), begin).unwrap();
        }
        let late = |at| watching.enter_at(session(250), user(9999), at);
        assert_eq!(late(begin).unwrap_err(), TooMany);
        watching.enter_at(session(0), user(0), begin).unwrap();
        late(begin + GONE).unwrap();
    }

    #[tokio::test]
    async fn a_segment_and_a_stop_wake_who_waits() {
        let watching = Watching::default();
        let grown = watching.enter(session(1), user(1)).unwrap();
        let woken = grown.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        watching.grown(session(2));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(woken.as_mut().poll(&mut nobody).is_pending(), "another session's");
        watching.grown(session(1));
        woken.await;
        let woken = grown.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        watching.stop();
        woken.await;
        assert!(watching.is_stopped());
    }
}
