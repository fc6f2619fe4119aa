//! `STATE/recordings`: what was recorded of sessions and is not yet on the relay's disk.
//!
//! Its law: a segment that was taken in is signed, stands in its session's chain, and is given up only
//! when the relay has it, or says that it never will. It is offered to the relay after it is on this
//! disk, so that what the relay has, this device knows of. The spool is bounded; when it is full,
//! only the end of a recording still finds room, and a segment that is turned away leaves its number
//! out of the chain, where every reader sees it.
//!
//! Files are readable by the agent's user alone. They are encrypted where recordings are sealed, by the
//! worker, whose key is gone with it; elsewhere who is root on the device can read them, as they could
//! have watched the session.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::cast::{self, Code, Fact};
use belay_proto::recording::{End, SESSION_TRACK, Segment, VERSION};
use belay_tunnel::pki::{SegmentKeyError, TlsKey};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::file::{Frames, Place};
use crate::worker::Recorded;

/// All recordings together, in bytes: three days of ordinary work, or a flood of half a gigabyte.
pub(super) const SPOOL_MAX: u64 = 64 * 1024 * 1024;

/// Recordings at once: each is an open file.
const RECORDINGS_MAX: usize = 256;

/// Beyond it, for the ends of recordings.
const RESERVE: u64 = 1024 * 1024;

/// Between two times the disk is asked to keep what was written: all sessions' segments of that time
/// together. It is little beside the seconds a segment waited for.
const PACE: Duration = Duration::from_millis(50);

/// A file whose segments the relay all has is made anew when it is longer than this.
const ROTATE: u64 = 256 * 1024;

/// A segment was not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    /// The relay has not taken enough for too long.
    #[error("the device holds back {SPOOL_MAX} bytes of recordings, and takes no more")]
    Full,
    /// The relay never will have it.
    #[error("the relay does not take this recording")]
    Rejected,
    /// The key.
    #[error(transparent)]
    Sign(#[from] SegmentKeyError),
    /// The disk.
    #[error("cannot write to the spool of recordings")]
    Disk(#[from] io::Error),
}

/// One session's recording.
#[derive(Debug)]
struct Kept {
    frames: Frames,
    /// The relay's refusal is final.
    rejected: bool,
}

#[derive(Debug, Default)]
struct Inner {
    recordings: BTreeMap<SessionId, Kept>,
    bytes: u64,
    /// A file was made, and its directory is not on the disk.
    is_new: bool,
}

impl Inner {
    fn is_full(&self, most: u64) -> bool {
        self.bytes >= most || self.recordings.len() >= RECORDINGS_MAX
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    key: TlsKey,
    device: DeviceId,
    /// [`SPOOL_MAX`].
    most: u64,
    inner: Mutex<Inner>,
    /// Something was written that is not yet on the disk.
    written: Notify,
    /// Something is on the disk that can be offered.
    offered: watch::Sender<u64>,
}

/// One segment to be sent.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) session: SessionId,
    pub(super) number: u64,
    pub(super) signed: Vec<u8>,
}

impl Spool {
    /// Opens it below a state directory. What a power cut left half written is cut off.
    pub(super) fn open(state: &Path, key: TlsKey, device: DeviceId) -> io::Result<Self> {
        let dir = state.join("recordings");
        belay_tunnel::private_file::make_dir(&dir)?;
        let mut inner = Inner::default();
        for (session, frames) in file::all(&dir, &key)? {
            inner.bytes += frames.length();
            inner.recordings.insert(session, Kept { frames, rejected: false });
        }
        let (written, offered) = (Notify::new(), watch::Sender::new(0));
        let inner = Mutex::new(inner);
        Ok(Self { dir, key, device, most: SPOOL_MAX, inner, written, offered })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no room for another session.
    pub(super) fn is_full(&self) -> bool {
        self.lock().is_full(self.most)
    }

    /// Whether half of the room is taken.
    pub(super) fn is_filling(&self) -> bool {
        self.lock().bytes > self.most / 2
    }

    /// Signs a segment and takes it in; one that was taken in before is taken for done.
    pub(super) fn append(&self, session: SessionId, told: &Recorded) -> Result<(), SpoolError> {
        let end = (told.end == Some(true)).then_some(End::Whole);
        let segment = |number, before: [u8; 32]| Segment {
            version: VERSION,
            session,
            device: self.device,
            number,
            before: before.to_vec().into(),
            track: told.track,
            first_ms: told.first_ms,
            last_ms: told.last_ms,
            compressed: told.compressed,
            sealed: told.sealed,
            end,
            payload: told.payload.clone(),
            key: told.key.clone(),
        };
        self.write(session, Some(told.number), segment)
    }

    /// Ends a recording whose worker is gone without having ended it. `now_ms` is the relay's time.
    pub(super) fn cut(&self, session: SessionId, now_ms: u64) -> Result<(), SpoolError> {
        let begun =
            self.lock().recordings.get(&session).is_some_and(|kept| !kept.frames.is_ended());
        if !begun {
            return Ok(());
        }
        let mut line = String::new();
        let fact = Fact::new("cut").text("reason", "the worker ended before its recording did");
        cast::event(std::time::Duration::ZERO, Code::Belay, &fact.finish(), &mut line);
        self.write(session, None, |number, before| Segment {
            version: VERSION,
            session,
            device: self.device,
            number,
            before: before.to_vec().into(),
            track: SESSION_TRACK,
            first_ms: now_ms,
            last_ms: now_ms,
            compressed: None,
            sealed: None,
            end: Some(End::Cut),
            payload: line.into_bytes().into(),
            key: None,
        })
    }

    /// The recordings that have not ended.
    pub(super) fn unended(&self) -> Vec<SessionId> {
        let inner = self.lock();
        let unended = inner.recordings.iter().filter(|(_, kept)| !kept.frames.is_ended());
        unended.map(|(session, _)| *session).collect()
    }

    fn write(
        &self,
        session: SessionId,
        number: Option<u64>,
        segment: impl FnOnce(u64, [u8; 32]) -> Segment,
    ) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        if !inner.recordings.contains_key(&session) {
            if inner.is_full(self.most) {
                return Err(SpoolError::Full);
            }
            let frames = Frames::create(&self.dir, session)?;
            inner.recordings.insert(session, Kept { frames, rejected: false });
            inner.is_new = true;
        }
        let bytes = inner.bytes;
        let Some(kept) = inner.recordings.get_mut(&session) else { return Ok(()) };
        if kept.rejected {
            return Err(SpoolError::Rejected);
        }
        let number = number.unwrap_or(kept.frames.next());
        if number < kept.frames.next() || kept.frames.is_ended() {
            return Ok(());
        }
        let segment = segment(number, kept.frames.head());
        let ends = segment.end.is_some();
        let (encoded, signed) = self.key.sign_segment(&segment)?;
        let room = if ends { self.most + RESERVE } else { self.most };
        if bytes + signed.len() as u64 > room {
            return Err(SpoolError::Full);
        }
        let before = kept.frames.length();
        let written = kept.frames.push(number, &encoded, &signed, ends);
        let after = kept.frames.length();
        inner.bytes = (bytes + after).saturating_sub(before);
        drop(inner);
        self.written.notify_one();
        Ok(written?)
    }

    /// Brings to the disk what was written, until `stop`: at once, and what comes right after that
    /// together.
    pub(super) async fn keep_synced(self: Arc<Self>, stop: CancellationToken) {
        let mut free_from = Instant::now();
        loop {
            let due = async {
                self.written.notified().await;
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

    async fn sync(self: &Arc<Self>) {
        let spool = Arc::clone(self);
        let synced = tokio::task::spawn_blocking(move || spool.sync_now()).await;
        match synced {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "recordings cannot be brought to the disk"),
            Err(error) => tracing::error!(%error, "bringing recordings to the disk failed"),
        }
    }

    /// Everything written before this call is on the disk after it.
    pub(super) fn sync_now(&self) -> io::Result<()> {
        let (dirty, is_new): (Vec<_>, bool) = {
            let mut inner = self.lock();
            let is_new = std::mem::take(&mut inner.is_new);
            let dirty = inner.recordings.iter().filter(|(_, kept)| kept.frames.is_dirty());
            let dirty = dirty
                .map(|(session, kept)| Ok((*session, kept.frames.to_sync()?)))
                .collect::<io::Result<_>>()?;
            (dirty, is_new)
        };
        // Before what is in it counts as kept.
        if is_new && let Err(error) = file::sync_dir(&self.dir) {
            self.lock().is_new = true;
            return Err(error);
        }
        for (session, (file, length, generation)) in dirty {
            file.sync_data()?;
            if let Some(kept) = self.lock().recordings.get_mut(&session) {
                kept.frames.synced(length, generation);
            }
        }
        self.offered.send_modify(|times| *times += 1);
        Ok(())
    }

    /// The next segment that was not sent, after `last` in turn; `sent` has what each session's next
    /// number to send is.
    pub(super) fn offer(
        &self,
        sent: &BTreeMap<SessionId, u64>,
        last: Option<SessionId>,
    ) -> io::Result<Option<Offer>> {
        let inner = self.lock();
        let later =
            inner.recordings.iter().filter(|(session, _)| last.is_none_or(|l| **session > l));
        let earlier =
            inner.recordings.iter().filter(|(session, _)| last.is_some_and(|l| **session <= l));
        for (session, kept) in later.chain(earlier).filter(|(_, kept)| !kept.rejected) {
            let from = sent.get(session).copied().unwrap_or(0);
            if let Some(Place { number, .. }) = kept.frames.first_from(from) {
                let signed = kept.frames.read(number)?;
                return Ok(signed.map(|signed| Offer { session: *session, number, signed }));
            }
        }
        Ok(None)
    }

    /// Changes whenever there may be more to offer.
    pub(super) fn offers(&self) -> watch::Receiver<u64> {
        self.offered.subscribe()
    }

    /// The relay has a session's segments up to this one.
    pub(super) fn taken(&self, session: SessionId, number: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let Some(kept) = inner.recordings.get_mut(&session) else { return Ok(()) };
        let before = kept.frames.length();
        kept.frames.taken(number);
        let mut after = before;
        if kept.frames.is_done() {
            file::remove(&self.dir, session)?;
            inner.recordings.remove(&session);
            after = 0;
        } else if kept.frames.is_empty() && before > ROTATE {
            kept.frames.rotate(&self.dir, session)?;
            after = kept.frames.length();
        }
        inner.bytes = (inner.bytes + after).saturating_sub(before);
        Ok(())
    }

    /// The relay will never take this recording. What of it comes later is turned away.
    pub(super) fn reject(&self, session: SessionId) -> io::Result<()> {
        let mut inner = self.lock();
        let Some(kept) = inner.recordings.get_mut(&session) else { return Ok(()) };
        kept.rejected = true;
        let length = kept.frames.length();
        let ended = kept.frames.is_ended();
        kept.frames.forget();
        file::remove(&self.dir, session)?;
        if ended {
            inner.recordings.remove(&session);
        }
        inner.bytes = inner.bytes.saturating_sub(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
