//! A session that has a stream now, or whose stream is being made.
//!
//! One entry a session: its newest attachment. Each attachment has a number of its own, so the
//! late end of an old one never takes a newer one off. The places of a device and of a person are
//! entries, so an attachment that replaces another takes no second place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belay_proto::ids::{DeviceId, Epoch, SessionId, UserId};
use belay_proto::refusal::Refused;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use super::{Registry, next_epoch};
use crate::store::Passed;

/// Why an attachment must end, though both its streams may be well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::line) enum Ending {
    /// Its client is back on another stream.
    Replaced,
    /// The device says that the session is over.
    OverAtDevice(Refused),
    /// It is not allowed any more.
    Cut(Refused),
}

/// A session attached now.
pub(in crate::line) struct LiveSession {
    pub(in crate::line) id: SessionId,
    pub(in crate::line) user: UserId,
    pub(in crate::line) device: DeviceId,
    attachment: Epoch,
    counted: Arc<Counted>,
    ending: watch::Sender<Option<Ending>>,
}

/// Bytes passed each way so far.
#[derive(Default)]
pub(in crate::line) struct Counted {
    up: AtomicU64,
    down: AtomicU64,
}

impl Counted {
    pub(in crate::line) fn count_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::line) fn count_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::line) fn passed(&self) -> Passed {
        Passed { up: self.up.load(Ordering::Relaxed), down: self.down.load(Ordering::Relaxed) }
    }
}

impl LiveSession {
    /// What has passed over this attachment.
    pub(super) fn passed(&self) -> Passed {
        self.counted.passed()
    }

    /// The first reason stands, but a cut waits for nothing.
    fn end(&self, reason: Ending) {
        self.ending.send_if_modified(|said| {
            let first = said.is_none();
            let cut = matches!(reason, Ending::Cut(_)) && !matches!(said, Some(Ending::Cut(_)));
            if first || cut {
                *said = Some(reason);
            }
            first || cut
        });
    }

    /// Waits until whoever held this attachment has recorded its end.
    pub(in crate::line) async fn left(&self) {
        self.ending.closed().await;
    }
}

/// Holds an attachment's entry; takes it off and gives its places back.
pub(in crate::line) struct SessionGuard {
    registry: Arc<Registry>,
    id: SessionId,
    user: UserId,
    device: DeviceId,
    attachment: Epoch,
    counted: Arc<Counted>,
    ending: watch::Receiver<Option<Ending>>,
}

impl SessionGuard {
    /// Where the attachment's bytes are counted.
    pub(in crate::line) fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.counted)
    }

    /// Waits until somebody ends the attachment.
    pub(in crate::line) async fn ended(&self) -> Ending {
        super::said(self.ending.clone()).await
    }

    /// Waits until somebody cuts the session, whatever was said of it before.
    pub(in crate::line) async fn cut(&self) -> Refused {
        let mut ending = self.ending.clone();
        let cut = |said: &Option<Ending>| matches!(said, Some(Ending::Cut(_)));
        let said = ending.wait_for(cut).await.ok().and_then(|said| said.clone());
        match said {
            Some(Ending::Cut(reason)) => reason,
            Some(Ending::Replaced | Ending::OverAtDevice(_)) | None => std::future::pending().await,
        }
    }

    /// Takes the entry off, and says what ended the attachment, if somebody did. Who looks for the
    /// session after this finds it without a stream; who found it before is heard.
    pub(in crate::line) fn release(&self) -> Option<Ending> {
        let own = |_: &SessionId, live: &Arc<LiveSession>| live.attachment == self.attachment;
        if self.registry.sessions.remove_if(&self.id, own).is_some() {
            give_back(&self.registry.by_device, self.device);
            give_back(&self.registry.by_user, self.user);
        }
        self.ending.borrow().clone()
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if let Some(ending) = self.release() {
            tracing::trace!(session = %self.id, ?ending, "an attachment was ended");
        }
    }
}

/// Which bound a new session would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::line) enum Full {
    Device,
    User,
}

type Places<K> = dashmap::DashMap<K, u32>;

fn take<K: Eq + std::hash::Hash>(places: &Places<K>, key: K, most: u32) -> bool {
    let mut taken = places.entry(key).or_insert(0);
    let free = *taken < most;
    if free {
        *taken += 1;
    }
    free
}

fn give_back<K: Eq + std::hash::Hash>(places: &Places<K>, key: K) {
    places.remove_if_mut(&key, |_, taken| {
        *taken = taken.saturating_sub(1);
        *taken == 0
    });
}

impl Registry {
    /// Enters an attachment of a session, within the bounds of sessions per device and per user.
    /// One the session has already is ended; it is returned, to be waited for.
    pub(in crate::line) fn attach(
        self: &Arc<Self>,
        (id, user, device): (SessionId, UserId, DeviceId),
        (per_device, per_user): (u32, u32),
    ) -> Result<(SessionGuard, Option<Arc<LiveSession>>), Full> {
        let (sender, ending) = watch::channel(None);
        let (attachment, counted) = (next_epoch(), Arc::<Counted>::default());
        let live = LiveSession {
            id,
            user,
            device,
            attachment,
            counted: Arc::clone(&counted),
            ending: sender,
        };
        let live = Arc::new(live);
        let old = match self.sessions.entry(id) {
            Entry::Occupied(mut entry) => {
                let old = entry.insert(live);
                old.end(Ending::Replaced);
                Some(old)
            }
            Entry::Vacant(entry) => {
                if !take(&self.by_device, device, per_device) {
                    return Err(Full::Device);
                }
                if !take(&self.by_user, user, per_user) {
                    give_back(&self.by_device, device);
                    return Err(Full::User);
                }
                entry.insert(live);
                None
            }
        };
        let registry = Arc::clone(self);
        Ok((SessionGuard { registry, id, user, device, attachment, counted, ending }, old))
    }

    /// Whether the session has a stream now, or is about to.
    pub fn is_attached(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Ends an attachment for good; `false` when the session has none. Whoever holds it closes the
    /// session.
    pub(in crate::line) fn cut(&self, id: SessionId, reason: Refused) -> bool {
        // Under the entry's lock, so that it is heard by whoever releases it.
        self.sessions.get(&id).map(|live| live.end(Ending::Cut(reason))).is_some()
    }

    /// The device says that a session of its own is over; `false` when it has no stream.
    pub(in crate::line) fn over_at_device(
        &self,
        id: SessionId,
        device: DeviceId,
        reason: Refused,
    ) -> bool {
        let live = self.sessions.get(&id).filter(|live| live.device == device);
        live.map(|live| live.end(Ending::OverAtDevice(reason))).is_some()
    }

    /// Every attached session, as of now.
    pub(in crate::line) fn all_sessions(&self) -> Vec<Arc<LiveSession>> {
        self.sessions.iter().map(|live| Arc::clone(&live)).collect()
    }

    /// Attached sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }
}
