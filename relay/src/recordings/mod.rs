//! Recordings of sessions, as devices send them: `DATA/recordings/DATE/SESSION.belay`.
//!
//! Its law: a segment is acknowledged when it is on the disk, and it is put there only when the
//! device's key signed it and it is the next of its recording. A segment that comes again is
//! acknowledged again and kept once. What it is not: it decompresses nothing and looks at no
//! payload, which may be sealed.
//!
//! `file` is one recording's file, `receive` a device's stream, `delete` takes one away, `walk` reads
//! one again, `watching` is who looks on as it grows, `unread` what was added since it was read for the search.

mod delete;
mod file;
mod receive;
mod unread;
mod walk;
mod watching;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use belay_proto::ids::SessionId;
use belay_proto::recording::{ChainError, End};
use belay_tunnel::pki::DeviceKey;
use belay_tunnel::private_file;
use dashmap::{DashMap, DashSet};
use tokio::sync::Semaphore;

use self::file::Tail;
pub(crate) use delete::Leaving;
pub use delete::Room;
pub(crate) use receive::{Desk, receive};
pub(crate) use unread::Unread;
pub(crate) use walk::{Walk, WalkError};
pub use watching::{TooMany, Watching};

/// The directory in the data directory.
const DIR: &str = "recordings";

/// Files open, written and synced at a time. A disk takes no more at once either.
const WRITERS: usize = 16;

/// What recordings leave free on their file system: the record of decisions is on it as well.
const FREE_MIN: u64 = 64 * 1024 * 1024;

/// Most recordings listed, the newest.
const LISTED: usize = 1000;

/// Most bytes of a recording given at once.
const PAGE: u64 = 4 * 1024 * 1024;

/// A segment was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It is not the next of its recording, or not signed by the device.
    #[error("a segment is refused")]
    Chain(#[from] ChainError),
    /// The recording on the disk is another device's.
    #[error("the recording of session {0} is not this device's")]
    Foreign(SessionId),
    /// It is being deleted.
    #[error("the recording of session {0} is being deleted")]
    Leaving(SessionId),
    /// The disk has no room to spare.
    #[error("the disk for recordings is full")]
    Full,
    /// The disk.
    #[error("cannot keep a segment of session {0}")]
    Disk(SessionId, #[source] io::Error),
}

/// What became of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The last segment on the disk.
    pub number: u64,
    /// Digest of it.
    pub head: [u8; 32],
    /// How the recording ended, when it has.
    pub end: Option<End>,
    /// It was there before.
    pub again: bool,
}

/// How a recording stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of which session.
    pub session: SessionId,
    /// Bytes of its file.
    pub bytes: u64,
    /// The number of its last segment.
    pub last: Option<u64>,
    /// How it ended, once it has.
    pub end: Option<End>,
    /// When its last event happened, in milliseconds since 1970.
    pub last_ms: u64,
}

/// All recordings.
pub struct Recordings {
    dir: PathBuf,
    tails: DashMap<SessionId, Arc<Mutex<Option<Tail>>>>,
    leaving: DashSet<SessionId>,
    writers: Semaphore,
    /// Who looks on.
    pub watching: Watching,
    pub(crate) unread: Unread,
}

impl Recordings {
    /// Opens the directory, and makes it if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(data: &Path) -> io::Result<Arc<Self>> {
        let dir = data.join(DIR);
        private_file::make_dir(&dir)?;
        let (tails, leaving) = (DashMap::new(), DashSet::new());
        let (writers, watching) = (Semaphore::new(WRITERS), Watching::default());
        let unread = Unread::default();
        Ok(Arc::new(Self { dir, tails, leaving, writers, watching, unread }))
    }

    /// Whether nothing of a session's recording is here.
    pub(crate) fn is_new(&self, session: SessionId) -> bool {
        !self.tails.contains_key(&session) && !file::path(&self.dir, session).exists()
    }

    /// # Errors
    /// [`KeepError::Full`], or that nobody can tell.
    pub(crate) fn room_now(&self, session: SessionId) -> Result<(), KeepError> {
        let free = free(&self.dir).map_err(|error| KeepError::Disk(session, error))?;
        if free < FREE_MIN { Err(KeepError::Full) } else { Ok(()) }
    }

    /// Keeps a segment of a session; returns once it is on the disk.
    ///
    /// # Errors
    /// [`KeepError`]: it is not kept.
    pub async fn keep(
        self: &Arc<Self>,
        session: SessionId,
        key: &Arc<DeviceKey>,
        signed: Vec<u8>,
    ) -> Result<Kept, KeepError> {
        let kept = self.keep_all(session, key, vec![signed]).await;
        let lost = || KeepError::Disk(session, io::Error::other("a segment had no answer"));
        kept.into_iter().next().unwrap_or_else(|| Err(lost()))
    }

    /// Keeps segments of a session that came together; returns once they are on the disk, with an
    /// answer for each.
    pub async fn keep_all(
        self: &Arc<Self>,
        session: SessionId,
        key: &Arc<DeviceKey>,
        segments: Vec<Vec<u8>>,
    ) -> Vec<Result<Kept, KeepError>> {
        let _turn = self.writers.acquire().await;
        let (all, key, count) = (Arc::clone(self), Arc::clone(key), segments.len());
        let kept = tokio::task::spawn_blocking(move || all.keep_now(session, &key, &segments));
        let failed =
            |error: &dyn ToString| KeepError::Disk(session, io::Error::other(error.to_string()));
        match kept.await {
            Ok(Ok(kept)) => kept,
            Ok(Err(KeepError::Full)) => (0..count).map(|_| Err(KeepError::Full)).collect(),
            Ok(Err(KeepError::Leaving(session))) => {
                (0..count).map(|_| Err(KeepError::Leaving(session))).collect()
            }
            Ok(Err(error)) => {
                let cause = belay_proto::error_line::one_line(&error);
                (0..count).map(|_| Err(failed(&cause))).collect()
            }
            Err(error) => (0..count).map(|_| Err(failed(&error))).collect(),
        }
    }

    fn keep_now(
        &self,
        session: SessionId,
        key: &DeviceKey,
        segments: &[Vec<u8>],
    ) -> Result<Vec<Result<Kept, KeepError>>, KeepError> {
        let disk = |error| KeepError::Disk(session, error);
        self.room_now(session)?;
        let tail = Arc::clone(&self.tails.entry(session).or_default());
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if self.leaving.contains(&session) {
            return Err(KeepError::Leaving(session));
        }
        let mut open = match tail.take() {
            Some(open) => open,
            None => Tail::open(&self.dir, session, key).map_err(disk)?,
        };
        let kept = open.keep(&self.dir, session, key, segments);
        // After a failed write the file is looked at anew.
        if !kept.iter().any(|one| matches!(one, Err(KeepError::Disk(..)))) {
            *tail = Some(open);
        }
        let mut new = kept.iter().flatten().filter(|kept| !kept.again);
        if let Some(last) = new.next_back() {
            self.unread.added(session, last.end.is_some());
            self.watching.grown(session);
        }
        Ok(kept)
    }

    /// A session whose recording ended, or whose device is gone, is not held in memory.
    pub(crate) fn let_go(&self, session: SessionId) {
        // Whoever else has it holds a second reference.
        self.tails.remove_if(&session, |_, tail| Arc::strong_count(tail) == 1);
    }

    /// How a recording stands; `None` when there is none.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn standing(&self, session: SessionId) -> io::Result<Option<Standing>> {
        file::standing(&self.dir, session)
    }

    /// The newest recordings, at most 1,000, the newest first.
    ///
    /// # Errors
    /// When the directory cannot be read. A file that cannot be is left out.
    pub fn list(&self) -> io::Result<Vec<Standing>> {
        let sessions = file::newest(&self.dir, LISTED)?;
        let standing = |session| match self.standing(session) {
            Ok(standing) => standing,
            Err(error) => {
                tracing::warn!(%session, %error, "a recording cannot be read");
                None
            }
        };
        Ok(sessions.into_iter().filter_map(standing).collect())
    }

    /// Bytes of a recording's file from a place on, at most 4 MiB; empty at its end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn page(&self, session: SessionId, from: u64) -> io::Result<Option<Vec<u8>>> {
        file::page(&self.dir, session, from, PAGE)
    }
}

fn free(dir: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(dir)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

#[cfg(test)]
mod tests;
