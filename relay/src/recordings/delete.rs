//! Taking recordings away, and what comes of one after that.
//!
//! Its law: while a recording is being deleted nothing is added to it, so that its tombstone says what
//! there was; and what a device still brings of it later is taken from the device and not kept. What
//! it is not: it decides nothing and writes no tombstone (`retention`).

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::UNIX_EPOCH;

use belay_proto::ids::SessionId;
use belay_proto::recording::{End, Segment, SignedSegment};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::wire::frame::decode_payload;

use super::receive::Desk;
use super::{Recordings, file};
use crate::store::{EventKind, Remains, SessionRecord};

/// A recording that is being deleted. Nothing is added to it while this lives.
pub(crate) struct Leaving {
    all: Arc<Recordings>,
    session: SessionId,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.all.leaving.remove(&self.session);
        self.all.let_go(self.session);
    }
}

impl Leaving {
    /// Removes a recording's file, and the folder of its day when it was the last one there; returns
    /// once the disk knows. It is no error when there is none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let dir = &self.all.dir;
        let path = file::path(dir, self.session);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let Some(day) = path.parent() else { return Ok(()) };
        match File::open(day) {
            Ok(folder) => folder.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // Fails while others are in it. Today's stays: a recording may be about to begin.
        if file::path(dir, SessionId::from_uuid(uuid::Uuid::now_v7())).parent() != Some(day)
            && fs::remove_dir(day).is_ok()
        {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Room on the file system of the recordings, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For us.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Recordings {
    /// Begins to delete; `None` when that is under way already. Waits for a segment that is being
    /// kept.
    pub(crate) fn leave(self: &Arc<Self>, session: SessionId) -> Option<Leaving> {
        if !self.leaving.insert(session) {
            return None;
        }
        let tail = Arc::clone(&self.tails.entry(session).or_default());
        *tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Some(Leaving { all: Arc::clone(self), session })
    }

    /// Whether a session's recording is open, and so was not deleted.
    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.tails.get(&session).is_some_and(|tail| match tail.try_lock() {
            Ok(tail) => tail.is_some(),
            // Somebody is adding to it.
            Err(_) => true,
        })
    }

    /// The folders of days up to and with this one (`2026-11-26`), and of what has no day.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn days_until(&self, day: &str) -> io::Result<Vec<PathBuf>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let due = name.is_some_and(|name| name <= day || name == file::UNDATED);
            if due && path.is_dir() {
                days.push(path);
            }
        }
        days.sort();
        Ok(days)
    }

    /// The sessions with a recording in such a folder: 16 bytes each.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sessions_of(&self, day: &std::path::Path) -> io::Result<Vec<SessionId>> {
        let mut sessions = Vec::new();
        for entry in fs::read_dir(day)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<SessionId>().ok());
            sessions.extend(id.filter(|id| file::path(&self.dir, *id) == path));
        }
        sessions.sort();
        Ok(sessions)
    }

    /// When a recording's file was written to last, by this machine's clock; `None` without one.
    pub fn touched(&self, session: SessionId) -> Option<UnixTime> {
        let written = fs::metadata(file::path(&self.dir, session)).ok()?.modified().ok()?;
        written.duration_since(UNIX_EPOCH).ok().map(|since| UnixTime(since.as_secs()))
    }

    /// What is there of a recording; `None` when nothing is.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn remains(&self, session: SessionId) -> io::Result<Option<Remains>> {
        let Some(standing) = self.standing(session)? else { return Ok(None) };
        Ok(Some(Remains {
            session,
            last: standing.last,
            head: file::head(&self.dir, session)?,
            bytes: standing.bytes,
            state: match standing.end {
                Some(End::Whole) => "whole",
                Some(End::Cut) => "cut",
                None => "unfinished",
            },
        }))
    }

    /// Room where the recordings are.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn room(&self) -> io::Result<Room> {
        let fs = rustix::fs::statvfs(&self.dir)?;
        Ok(Room {
            free: fs.f_bavail.saturating_mul(fs.f_frsize),
            total: fs.f_blocks.saturating_mul(fs.f_frsize),
        })
    }
}

/// Whether a session's recording was deleted.
pub(super) async fn is_gone(record: &SessionRecord, desk: &Desk) -> Result<bool, Refused> {
    let tombstone = desk.store.tombstone(record.id).await.map_err(|error| Refused::from(&error))?;
    Ok(tombstone.is_some())
}

/// A segment of a recording that was deleted: its device was away so long. It is acknowledged by its
/// number, so that the device lets go of it, and on record once.
pub(super) async fn late(
    record: &SessionRecord,
    signed: &[u8],
    desk: &Desk,
) -> Result<u64, Refused> {
    let store = |error| Refused::from(&error);
    let unreadable = || Refused::new(Code::BadRequest, "a segment cannot be read", "");
    let signed: SignedSegment = decode_payload(signed).map_err(|_| unreadable())?;
    let segment: Segment = decode_payload(&signed.segment).map_err(|_| unreadable())?;
    let number = segment.number;
    let why = desk.store.tombstone(record.id).await.map_err(store)?.map(|stone| stone.why);
    let detail = format!("from segment {number} on, not kept; {}", why.unwrap_or_default());
    let event = record.event(EventKind::RecordingLate).detail(&detail);
    desk.store.late_segment(record.id, event).await.map_err(store)?;
    Ok(number)
}
