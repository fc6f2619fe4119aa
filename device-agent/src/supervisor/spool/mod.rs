//! `STATE/recordings`: what was recorded of sessions and is not yet on the relay's disk.
//!
//! Its law: a segment that was taken in is signed, stands in its session's chain, and is given up only
//! when the relay has it, or says that it never will. It is offered to the relay after it is on this
//! disk, so that what the relay has, this device knows of. The spool is bounded; when it is full, a
//! session of which much waits finds no room but for its recording's end, and a segment that is turned
//! away leaves its number out of the chain, where every reader sees it. While the relay takes segments,
//! it does not come to that: whoever records more than that waits for it ([`Spool::until_taken`]).
//!
//! A recording that the disk fails at is set aside for a while, and its session hears of it; the others
//! go on.
//!
//! Files are readable by the agent's user alone. They are encrypted where recordings are sealed, by the
//! worker, whose key is gone with it; elsewhere who is root on the device can read them, as they could
//! have watched the session.

mod file;
mod pressure;
mod rotation;
mod sync;

pub(super) use pressure::Uploading;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::recording::cast::{self, Code, Fact};
use belay_proto::recording::{End, SESSION_TRACK, Segment, VERSION};
use belay_tunnel::pki::{SegmentKeyError, TlsKey};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::file::{Frames, Place};
use crate::worker::Recorded;

/// All recordings together, in bytes: three days of ordinary work, or a flood of half a gigabyte.
pub(super) const SPOOL_MAX: u64 = 64 * 1024 * 1024;

/// Recordings at once: each is an open file.
const RECORDINGS_MAX: usize = 256;

/// Beyond [`SPOOL_MAX`], for each session of which no more than this waits: whose flood filled the spool ends, and
/// not whoever comes next. Two segments, or hours of typing.
const LITTLE: u64 = 128 * 1024;

/// Beyond all this, for the ends of recordings.
const RESERVE: u64 = 1024 * 1024;

/// A file of whose segments the relay has more than this, and more than wait, is made anew.
const ROTATE: u64 = 256 * 1024;

/// After a failure of the disk.
const AGAIN: Duration = Duration::from_secs(10);

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
    aside: Option<Aside>,
}

/// The disk failed at a recording.
#[derive(Debug)]
struct Aside {
    why: String,
    /// When it is tried again.
    until: Instant,
    /// It did not take what was written.
    unsynced: bool,
}

impl Kept {
    fn is_offered(&self, now: Instant) -> bool {
        self.aside.as_ref().is_none_or(|aside| !aside.unsynced && aside.until <= now)
    }

    fn is_back(&mut self, session: SessionId) {
        if self.aside.take().is_some() {
            tracing::info!(%session, "a recording goes on: the disk works again");
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    recordings: BTreeMap<SessionId, Kept>,
    /// Those that have not ended, and of which the relay wants no more.
    rejected: BTreeSet<SessionId>,
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.recordings.values().map(|kept| kept.frames.size()).sum()
    }

    fn is_full(&self, bounds: &Bounds) -> bool {
        self.bytes() >= bounds.all() || self.recordings.len() >= RECORDINGS_MAX
    }

    /// What is next to be sent, after `last` in turn.
    fn next(
        &self,
        sent: &BTreeMap<SessionId, u64>,
        last: Option<SessionId>,
        now: Instant,
    ) -> Option<(SessionId, Place)> {
        let all = || self.recordings.iter();
        let later = all().filter(|(session, _)| last.is_none_or(|l| **session > l));
        let earlier = all().filter(|(session, _)| last.is_some_and(|l| **session <= l));
        let mut turn = later.chain(earlier).filter(|(_, kept)| kept.is_offered(now));
        turn.find_map(|(session, kept)| {
            let from = sent.get(session).copied().unwrap_or(0);
            kept.frames.first_from(from).map(|place| (*session, place))
        })
    }
}

/// What the constants of these names say.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    most: u64,
    little: u64,
    rotate: u64,
}

impl Bounds {
    const fn all(&self) -> u64 {
        self.most + self.little * DEVICE_SESSIONS as u64
    }

    /// How full the spool may get with a segment of a session of which so much waits then.
    const fn room(&self, waiting: u64, ends: bool) -> u64 {
        if ends {
            self.all() + RESERVE
        } else if waiting <= self.little {
            self.all()
        } else {
            self.most
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    key: TlsKey,
    device: DeviceId,
    bounds: Bounds,
    inner: Mutex<Inner>,
    /// There is something to do for [`Self::keep_synced`].
    written: Notify,
    /// Something is on the disk that can be offered.
    offered: watch::Sender<u64>,
    /// How many lines take recordings; told anew whenever the relay has taken something.
    uploads: watch::Sender<usize>,
    /// A recording was set aside.
    failed: watch::Sender<u64>,
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
            inner.recordings.insert(session, Kept { frames, aside: None });
        }
        Ok(Self {
            dir,
            key,
            device,
            bounds: Bounds { most: SPOOL_MAX, little: LITTLE, rotate: ROTATE },
            inner: Mutex::new(inner),
            written: Notify::new(),
            offered: watch::Sender::new(0),
            uploads: watch::Sender::new(0),
            failed: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no room for another session.
    pub(super) fn is_full(&self) -> bool {
        self.lock().is_full(&self.bounds)
    }

    /// Whether half of the room is taken.
    pub(super) fn is_filling(&self) -> bool {
        self.lock().bytes() > self.bounds.most / 2
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
        if end.is_some() && self.lock().rejected.remove(&session) {
            return Err(SpoolError::Rejected);
        }
        self.write(session, Some(told.number), segment)
    }

    /// Ends a recording whose worker is gone without having ended it. `now_ms` is the relay's time.
    pub(super) fn cut(&self, session: SessionId, now_ms: u64) -> Result<(), SpoolError> {
        {
            let mut inner = self.lock();
            inner.rejected.remove(&session);
            if inner.recordings.get(&session).is_none_or(|kept| kept.frames.is_ended()) {
                return Ok(());
            }
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
        if inner.rejected.contains(&session) {
            return Err(SpoolError::Rejected);
        }
        if !inner.recordings.contains_key(&session) {
            if inner.is_full(&self.bounds) {
                return Err(SpoolError::Full);
            }
            let frames = Frames::create(&self.dir, session)?;
            inner.recordings.insert(session, Kept { frames, aside: None });
        }
        let bytes = inner.bytes();
        let Some(kept) = inner.recordings.get_mut(&session) else { return Ok(()) };
        let number = number.unwrap_or(kept.frames.next());
        if number < kept.frames.next() || kept.frames.is_ended() {
            return Ok(());
        }
        let segment = segment(number, kept.frames.head());
        let ends = segment.end.is_some();
        let (encoded, signed) = self.key.sign_segment(&segment)?;
        let more = signed.len() as u64;
        if bytes + more > self.bounds.room(kept.frames.waiting() + more, ends) {
            return Err(SpoolError::Full);
        }
        let written = kept.frames.push(number, &encoded, &signed, ends);
        drop(inner);
        self.written.notify_one();
        Ok(written?)
    }

    /// The next segment that was not sent, after `last` in turn; `sent` has what each session's next
    /// number to send is.
    pub(super) fn offer(
        &self,
        sent: &BTreeMap<SessionId, u64>,
        last: Option<SessionId>,
    ) -> Option<Offer> {
        let (mut inner, now) = (self.lock(), Instant::now());
        loop {
            let (session, place) = inner.next(sent, last, now)?;
            let kept = inner.recordings.get_mut(&session)?;
            match kept.frames.read(&place) {
                Ok(signed) => {
                    kept.is_back(session);
                    return Some(Offer { session, number: place.number, signed });
                }
                Err(error) => self.set_aside(&mut inner, session, &error, false),
            }
        }
    }

    /// Changes whenever there may be more to offer.
    pub(super) fn offers(&self) -> watch::Receiver<u64> {
        self.offered.subscribe()
    }

    /// The relay has a session's segments up to this one.
    pub(super) fn taken(&self, session: SessionId, number: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let Some(kept) = inner.recordings.get_mut(&session) else { return Ok(()) };
        kept.frames.taken(number);
        let (is_done, is_long) = (kept.frames.is_done(), kept.frames.is_long(self.bounds.rotate));
        if is_done {
            inner.recordings.remove(&session);
        }
        drop(inner);
        if is_long {
            self.written.notify_one();
        }
        self.uploads.send_modify(|_| {});
        if is_done { file::remove(&self.dir, session) } else { Ok(()) }
    }

    /// The relay will never take this recording. What of it comes later is turned away.
    pub(super) fn reject(&self, session: SessionId) -> io::Result<()> {
        let mut inner = self.lock();
        let Some(kept) = inner.recordings.remove(&session) else { return Ok(()) };
        if !kept.frames.is_ended() {
            inner.rejected.insert(session);
        }
        drop(inner);
        self.uploads.send_modify(|_| {});
        file::remove(&self.dir, session)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trouble_tests;
