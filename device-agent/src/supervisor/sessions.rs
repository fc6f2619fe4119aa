//! The sessions this device has, whatever becomes of its lines.
//!
//! Its law: at most [`DEVICE_SESSIONS`], and one that is here has a worker, or is just getting one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belay_proto::ids::{SessionId, UserId};
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::names::Login;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Ended;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::session_dir::{Record, SessionDir};

/// One session with a worker.
#[derive(Debug)]
pub(super) struct Held {
    session: SessionId,
    user: UserId,
    login: Login,
    /// Why it is to end; the first reason counts.
    end: watch::Sender<Option<String>>,
    /// Its recording has a gap, and that was said.
    has_gap: AtomicBool,
}

impl Held {
    pub(super) fn new(record: &Record) -> Arc<Self> {
        Arc::new(Self {
            session: record.session,
            user: record.user,
            login: record.login.clone(),
            end: watch::Sender::new(None),
            has_gap: AtomicBool::new(false),
        })
    }

    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Its recording has a gap. Whether that is news.
    pub(super) fn recording_fails(&self) -> bool {
        !self.has_gap.swap(true, Ordering::Relaxed)
    }

    /// Asks for its end.
    pub(super) fn end(&self, reason: &str) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(reason.to_owned());
            }
            first
        });
    }

    /// Waits until its end was asked for, and says why.
    pub(super) async fn ending(&self) -> String {
        let mut end = self.end.subscribe();
        // It cannot fail: the sender is ours.
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

enum Slot {
    /// Its worker is being started.
    Starting,
    Held(Arc<Held>),
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<SessionId, Slot>,
    /// Why the latest ones ended, for the relay.
    gone: VecDeque<(SessionId, String)>,
}

pub(super) struct Sessions {
    pub(super) dir: SessionDir,
    inner: Mutex<Inner>,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// The tasks that keep them.
    pub(super) keepers: TaskTracker,
}

/// Why a session cannot be taken up again. The same words for every reason: who asks for another
/// person's session learns nothing.
fn over() -> Refused {
    Refused::new(Code::SessionOver, "the session is over", "open a new one")
}

impl Sessions {
    pub(super) fn new(dir: SessionDir) -> Self {
        Self {
            dir,
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            keepers: TaskTracker::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a session that is about to start.
    pub(super) fn reserve(self: &Arc<Self>, session: SessionId) -> Result<Reserved, Refused> {
        let mut inner = self.lock();
        if inner.slots.contains_key(&session) {
            return Err(Refused::new(Code::BadGrant, "the session is open already", ""));
        }
        if inner.slots.len() >= DEVICE_SESSIONS {
            return Err(Refused::new(
                Code::Busy,
                format!("the device has {DEVICE_SESSIONS} sessions"),
                "end one of them, or try again later",
            ));
        }
        inner.slots.insert(session, Slot::Starting);
        Ok(Reserved { sessions: Arc::clone(self), session, kept: false })
    }

    /// The session a client comes back to.
    pub(super) fn find(
        &self,
        session: SessionId,
        user: UserId,
        login: &Login,
    ) -> Result<Arc<Held>, Refused> {
        match self.lock().slots.get(&session) {
            Some(Slot::Held(held))
                if held.user == user && held.login == *login && held.end.borrow().is_none() =>
            {
                Ok(Arc::clone(held))
            }
            Some(Slot::Held(_) | Slot::Starting) | None => Err(over()),
        }
    }

    /// The session whose terminal another one joins: of that login, and not about to end.
    pub(super) fn find_host(
        &self,
        session: SessionId,
        login: &Login,
    ) -> Result<Arc<Held>, Refused> {
        match self.lock().slots.get(&session) {
            Some(Slot::Held(held)) if held.login == *login && held.end.borrow().is_none() => {
                Ok(Arc::clone(held))
            }
            Some(Slot::Held(_) | Slot::Starting) | None => Err(Refused::new(
                Code::SessionOver,
                "the session to join is over",
                "see: belay sessions",
            )),
        }
    }

    /// Ends one, if it is here.
    pub(super) fn end(&self, session: SessionId, reason: &str) {
        match self.lock().slots.get(&session) {
            Some(Slot::Held(held)) => held.end(reason),
            // The relay has cut its stream, so nobody will take it; it ends by itself.
            Some(Slot::Starting) | None => {
                tracing::debug!(%session, reason, "the relay ended a session that is not here");
            }
        }
    }

    /// It has ended.
    pub(super) fn remove(&self, session: SessionId, reason: String) {
        if let Err(error) = self.dir.remove(session) {
            tracing::warn!(%session, %error, "what belongs to an ended session cannot be removed");
        }
        let mut inner = self.lock();
        inner.slots.remove(&session);
        // One for each that can be open covers what a line can have missed.
        if inner.gone.len() >= DEVICE_SESSIONS {
            inner.gone.pop_front();
        }
        inner.gone.push_back((session, reason));
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().slots.is_empty()
    }

    /// All of them, also those whose worker is being started.
    pub(super) fn all(&self) -> Vec<SessionId> {
        self.lock().slots.keys().copied().collect()
    }

    /// What changes from now on.
    pub(super) fn watch(self: &Arc<Self>) -> Departures {
        let mut changed = self.changed.subscribe();
        changed.mark_unchanged();
        Departures { known: self.held(), sessions: Arc::clone(self), changed }
    }

    fn held(&self) -> BTreeSet<SessionId> {
        let inner = self.lock();
        let held = inner.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Held(_)));
        held.map(|(session, _)| *session).collect()
    }
}

/// A place taken; given back when dropped.
pub(super) struct Reserved {
    sessions: Arc<Sessions>,
    session: SessionId,
    kept: bool,
}

impl Reserved {
    /// The session has its worker.
    pub(super) fn keep(mut self, held: Arc<Held>) {
        self.kept = true;
        self.sessions.lock().slots.insert(self.session, Slot::Held(held));
        self.sessions.changed.send_modify(|count| *count += 1);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            self.sessions.lock().slots.remove(&self.session);
            if let Err(error) = self.sessions.dir.remove(self.session) {
                tracing::warn!(session = %self.session, %error, "a door is left behind");
            }
        }
    }
}

/// The sessions that ended since a line was greeted. What one line could not tell, the next one's
/// greeting does.
#[derive(Clone)]
pub(super) struct Departures {
    sessions: Arc<Sessions>,
    known: BTreeSet<SessionId>,
    changed: watch::Receiver<u64>,
}

impl Departures {
    /// Waits for the next ones. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<Ended> {
        loop {
            if self.changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            let now = self.sessions.held();
            let ended: Vec<_> =
                self.known.difference(&now).map(|session| self.ended(*session)).collect();
            self.known = now;
            if !ended.is_empty() {
                return ended;
            }
        }
    }

    fn ended(&self, session: SessionId) -> Ended {
        let inner = self.sessions.lock();
        let reason = inner.gone.iter().rev().find(|(gone, _)| *gone == session);
        let reason = reason.map_or("the worker ended", |(_, reason)| reason);
        Ended { session, reason: Refused::new(Code::SessionOver, reason, "") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use belay_proto::time::UnixTime;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::process_id::ProcessId;

    fn id(number: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number))
    }

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    fn sessions() -> (tempfile::TempDir, Arc<Sessions>) {
        let temp = tempfile::tempdir().unwrap();
        let dir = SessionDir::open(temp.path()).unwrap();
        (temp, Arc::new(Sessions::new(dir)))
    }

    fn held(number: u128) -> Arc<Held> {
        Held::new(&Record {
            session: id(number),
            user: user(1),
            user_name: "ada".parse().unwrap(),
            login: "root".parse().unwrap(),
            kind: "ssh".into(),
            started: UnixTime(1),
            ends: UnixTime(2),
            process: ProcessId::of(std::process::id()).unwrap(),
            terminals: Vec::new(),
            obligations: Vec::new(),
        })
    }

    #[test]
    fn a_session_is_given_back_to_its_own_person_and_login_until_it_is_to_end() {
        let (_temp, sessions) = sessions();
        let (root, pi): (Login, Login) = ("root".parse().unwrap(), "pi".parse().unwrap());
        sessions.reserve(id(1)).unwrap().keep(held(1));
        assert!(sessions.find(id(1), user(1), &root).is_ok());
        for (session, person, login) in
            [(id(2), user(1), &root), (id(1), user(2), &root), (id(1), user(1), &pi)]
        {
            let refused = sessions.find(session, person, login).unwrap_err();
            assert_eq!(refused, over());
        }
        sessions.end(id(1), "cut");
        assert!(sessions.find(id(1), user(1), &root).is_err());
    }

    #[test]
    fn there_is_a_last_place_and_a_failed_start_gives_its_own_back() {
        let (_temp, sessions) = sessions();
        for number in 1..DEVICE_SESSIONS as u128 {
            sessions.reserve(id(number)).unwrap().keep(held(number));
        }
        let last = sessions.reserve(id(1000)).unwrap();
        assert!(sessions.reserve(id(1000)).is_err(), "twice the same");
        let refused = sessions.reserve(id(1001)).map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::Busy);
        drop(last);
        assert!(sessions.reserve(id(1001)).is_ok());
    }

    #[tokio::test]
    async fn a_line_hears_of_each_session_that_ends_while_it_is_up() {
        let (_temp, sessions) = sessions();
        sessions.reserve(id(1)).unwrap().keep(held(1));
        let mut departures = sessions.watch();
        sessions.reserve(id(2)).unwrap().keep(held(2));
        drop(sessions.reserve(id(3)).unwrap());
        let short = Duration::from_millis(50);
        assert!(timeout(short, departures.next()).await.is_err(), "none has ended");
        sessions.remove(id(1), "bye".into());
        sessions.remove(id(2), "so long".into());
        let told = timeout(short, departures.next()).await.unwrap();
        assert_eq!(told.iter().map(|ended| ended.session).collect::<Vec<_>>(), [id(1), id(2)]);
        assert_eq!(told.last().unwrap().reason.cause(), "so long");
    }

    #[tokio::test]
    async fn the_first_reason_to_end_counts() {
        let held = held(1);
        held.end("first");
        held.end("second");
        assert_eq!(held.ending().await, "first");
    }
}
