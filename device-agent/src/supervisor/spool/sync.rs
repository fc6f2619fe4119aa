//! Bringing recordings to the disk, and making long files anew: what may take time.
//!
//! Its law: a segment counts as on the disk when its bytes are, and its file's name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::ids::SessionId;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::file::{self, ToSync};
use super::rotation::Rotation;
use super::{AGAIN, Aside, Inner, Spool};

/// Between two times the disk is asked to keep what was written: all sessions' segments of that time
/// together. It is little beside the seconds a segment waited for.
const PACE: Duration = Duration::from_millis(50);

impl Spool {
    /// Brings to the disk what was written, until `stop`: at once, and what comes right after that
    /// together. Tries again what failed.
    pub(in crate::supervisor) async fn keep_synced(self: Arc<Self>, stop: CancellationToken) {
        let mut free_from = Instant::now();
        loop {
            let due = async {
                self.due().await;
                sleep_until(free_from).await;
            };
            tokio::select! {
                () = due => {}
                () = stop.cancelled() => return self.sync().await,
            }
            self.sync().await;
            free_from = Instant::now() + PACE;
        }
    }

    async fn due(&self) {
        let again = async {
            match self.again_at() {
                Some(again) => sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.written.notified() => {}
            () = again => {}
        }
    }

    /// When the next recording that was set aside is tried again.
    fn again_at(&self) -> Option<Instant> {
        let (inner, now) = (self.lock(), Instant::now());
        let aside = inner.recordings.values().filter_map(|kept| kept.aside.as_ref());
        aside.map(|aside| aside.until).filter(|until| *until > now).min()
    }

    async fn sync(self: &Arc<Self>) {
        let spool = Arc::clone(self);
        if let Err(error) = tokio::task::spawn_blocking(move || spool.sync_now()).await {
            tracing::error!(%error, "bringing recordings to the disk failed");
        }
    }

    /// Everything written before this call is on the disk after it, or its recording is set aside.
    pub(super) fn sync_now(&self) {
        self.sync_files();
        if self.rotate_long() {
            self.sync_files();
        }
        self.offered.send_modify(|times| *times += 1);
    }

    pub(super) fn sync_files(&self) {
        let dirty: Vec<(SessionId, ToSync)> = {
            let (inner, now) = (self.lock(), Instant::now());
            let due = |aside: &Option<Aside>| aside.as_ref().is_none_or(|one| one.until <= now);
            let dirty = inner.recordings.iter();
            let dirty = dirty.filter(|(_, kept)| kept.frames.is_dirty() && due(&kept.aside));
            dirty
                .map(|(session, kept)| {
                    let refused = kept.aside.as_ref().is_some_and(|aside| aside.unsynced);
                    (*session, kept.frames.to_sync(refused))
                })
                .collect()
        };
        // Before what is in it counts as kept.
        let is_new = dirty.iter().any(|(_, what)| what.is_new);
        let named = if is_new { file::sync_dir(&self.dir) } else { Ok(()) };
        for (session, what) in dirty {
            let synced = match &named {
                Err(error) if what.is_new => Err(io::Error::new(error.kind(), error.to_string())),
                Ok(()) | Err(_) => what.sync(&self.key),
            };
            let mut inner = self.lock();
            match (synced, inner.recordings.get_mut(&session)) {
                (Ok(()), Some(kept)) => {
                    kept.frames.synced(&what);
                    if kept.aside.as_ref().is_some_and(|aside| aside.unsynced) {
                        kept.is_back(session);
                    }
                }
                (Err(error), Some(_)) => self.set_aside(&mut inner, session, &error, true),
                (Ok(()) | Err(_), None) => {}
            }
        }
    }

    /// Whether there is a new file.
    fn rotate_long(&self) -> bool {
        let long: Vec<SessionId> = {
            let inner = self.lock();
            let all = inner.recordings.iter().filter(|(_, kept)| kept.aside.is_none());
            let long = all.filter(|(_, kept)| kept.frames.is_long(self.bounds.rotate));
            long.map(|(session, _)| *session).collect()
        };
        for session in &long {
            if let Err(error) = self.rotate(*session) {
                tracing::warn!(%session, %error, "what the relay has stays in a recording's file");
                if let Some(kept) = self.lock().recordings.get_mut(session) {
                    kept.frames.rotate_later();
                }
            }
        }
        !long.is_empty()
    }

    fn rotate(&self, session: SessionId) -> io::Result<()> {
        let Some(mut rotation) = self.begin_rotation(session)? else { return Ok(()) };
        rotation.copy()?;
        self.end_rotation(session, rotation)
    }

    pub(super) fn begin_rotation(&self, session: SessionId) -> io::Result<Option<Rotation>> {
        let inner = self.lock();
        let kept = inner.recordings.get(&session);
        kept.map(|kept| kept.frames.to_rotate(&self.dir, session)).transpose()
    }

    pub(super) fn end_rotation(&self, session: SessionId, rotation: Rotation) -> io::Result<()> {
        match self.lock().recordings.get_mut(&session) {
            Some(kept) => kept.frames.rotate(rotation, &self.dir, session),
            None => Ok(()),
        }
    }

    /// Leaves a recording alone for a while.
    pub(super) fn set_aside(
        &self,
        inner: &mut Inner,
        session: SessionId,
        error: &io::Error,
        unsynced: bool,
    ) {
        let Some(kept) = inner.recordings.get_mut(&session) else { return };
        let until = Instant::now() + AGAIN;
        if let Some(aside) = &mut kept.aside {
            aside.until = until;
            aside.unsynced |= unsynced;
        } else {
            tracing::error!(%session, %error, "the disk fails at a recording; it is tried again");
            kept.aside = Some(Aside { why: error.to_string(), until, unsynced });
            self.failed.send_modify(|times| *times += 1);
        }
        self.written.notify_one();
    }

    /// Returns when a session's recording is set aside, and why. Cancel-safe.
    pub(in crate::supervisor) async fn failing(&self, session: SessionId) -> String {
        let mut failed = self.failed.subscribe();
        loop {
            let why = self.lock().recordings.get(&session).and_then(|kept| {
                let aside = kept.aside.as_ref();
                aside.map(|aside| aside.why.clone())
            });
            if let Some(why) = why {
                return why;
            }
            if failed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
