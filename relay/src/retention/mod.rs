//! What is kept how long: recordings go by rule, or before by an administrator's word, and never
//! while they are held.
//!
//! Its law: first the tombstone is on the disk, in the audit log, then the file goes. A relay that is
//! killed between the two finds the tombstone at its next start and lets the file follow; it writes
//! no second one. What it is not: it asks no policy who may do so (`api`), and keeps no holds
//! (`store`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_proto::error_line::one_line;
use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::export::config::Export;
use crate::recordings::{Leaving, Recordings, Room};
use crate::span::date;
use crate::store::{Actor, BuryError, Store, StoreError, Tombstone};

/// The setting, as tombstones name it.
pub const SETTING: &str = "recordings_keep_days";

/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The audit log is pruned at one look of so many: once a day.
const PRUNE_EACH: u64 = 24;

/// The first look after a start: an operator who sees at the start that the clock or the setting is
/// wrong has so long.
const FIRST_LOOK: Duration = Duration::from_secs(300);

/// A wall clock that jumped by more than this is not believed for a day.
const JUMP: Duration = Duration::from_secs(600);
const DISTRUST: Duration = Duration::from_secs(24 * 3600);

/// Less room than this of the disk, or than [`LITTLE`] bytes, is said in the log.
const LITTLE_OF: u64 = 10;
const LITTLE: u64 = 1024 * 1024 * 1024;

const DAY: u64 = 24 * 3600;

/// A recording was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is none.
    #[error("there is no recording of session {0}")]
    None(SessionId),
    /// Somebody else is at it.
    #[error("the recording of session {0} is being deleted already")]
    UnderWay(SessionId),
    /// It must stay.
    #[error(transparent)]
    Bury(#[from] BuryError),
    /// The disk.
    #[error("cannot delete the recording of session {0}")]
    Disk(SessionId, #[source] io::Error),
}

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Recordings that are gone.
    pub deleted: u64,
    /// Due, and held.
    pub held: u64,
    /// Due, and could not be deleted; tried again at the next look.
    pub failed: u64,
}

/// Deletes what is due.
pub struct Keeper {
    store: Store,
    recordings: Arc<Recordings>,
    keep_days: u32,
    log_keep_days: u32,
    exports: Vec<String>,
}

impl Keeper {
    /// Keeps recordings so many days after the end of their session; with 0 for ever.
    pub const fn new(store: Store, recordings: Arc<Recordings>, keep_days: u32) -> Self {
        Self { store, recordings, keep_days, log_keep_days: 0, exports: Vec::new() }
    }

    /// And the texts of the audit log's entries so many days, and until these exports have them; with
    /// 0 for ever.
    #[must_use]
    pub fn pruning(self, log_keep_days: u32, exports: &[Export]) -> Self {
        let exports = exports.iter().map(|export| export.name.clone()).collect();
        Self { log_keep_days, exports, ..self }
    }

    /// Finishes what an earlier relay began to delete, then looks each hour, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        // What is cut short by the cancelling is finished at the next start.
        cancel.run_until_cancelled(self.look()).await;
    }

    async fn look(&self) {
        let (mut clock_seen, mut believe_from) = ((Instant::now(), clock::now()), None);
        let (mut pause, mut told, mut looks) = (FIRST_LOOK, false, 0_u64);
        loop {
            self.finish().await;
            tokio::time::sleep(pause).await;
            pause = LOOK_EVERY;
            let (before, then) = clock_seen;
            let now = clock::now();
            if now.distance(then.plus(before.elapsed())) > JUMP {
                tracing::warn!("the clock jumped: nothing is deleted by rule for a day");
                believe_from = Some(Instant::now() + DISTRUST);
            }
            clock_seen = (Instant::now(), now);
            if believe_from.is_none_or(|from| Instant::now() >= from) {
                self.sweep(now).await;
                // Each pruning leaves an entry that stays.
                if looks.is_multiple_of(PRUNE_EACH) {
                    self.prune(now).await;
                }
                looks += 1;
            }
            told = self.watch_room(told);
        }
    }

    /// Lets the files of recordings go whose tombstones are written.
    pub async fn finish(&self) {
        let unfinished = match self.store.unfinished_deletions().await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                tracing::warn!(error = %one_line(&error), "deletions are not finished yet");
                return;
            }
        };
        for session in unfinished {
            match self.take_away(session).await {
                Ok(()) => tracing::info!(%session, "a deletion that was cut short is finished"),
                Err(error) => {
                    tracing::warn!(%session, error = %one_line(&error), "a deletion is not finished");
                }
            }
        }
    }

    /// Deletes every recording whose session ended longer ago than is kept, by this time.
    pub async fn sweep(&self, now: UnixTime) -> Swept {
        let mut swept = Swept::default();
        if self.keep_days == 0 {
            return swept;
        }
        let ended_before = now.minus(Duration::from_secs(u64::from(self.keep_days) * DAY));
        // A session that began on a later day cannot have ended before.
        let all = Arc::clone(&self.recordings);
        let until = date(ended_before);
        let days = match read(move || all.days_until(&until)).await {
            Ok(days) => days,
            Err(error) => {
                tracing::warn!(%error, "recordings cannot be looked through");
                return swept;
            }
        };
        for day in days {
            self.sweep_day(&day, ended_before, &mut swept).await;
        }
        if swept != Swept::default() {
            let Swept { deleted, held, failed } = swept;
            tracing::info!(deleted, held, failed, keep_days = self.keep_days, "recordings due");
        }
        swept
    }

    /// Prunes the audit log of the texts that are due by this time; how many went.
    pub async fn prune(&self, now: UnixTime) -> u64 {
        if self.log_keep_days == 0 {
            return 0;
        }
        let days = self.log_keep_days;
        let before = now.minus(Duration::from_secs(u64::from(days) * DAY));
        let pruned = async {
            let mut exported = u64::MAX;
            for name in &self.exports {
                exported = exported.min(self.store.cursor(name).await?.map_or(0, |c| c.seq));
            }
            self.store.prune(before, days, exported).await
        };
        match pruned.await {
            Ok(0) => 0,
            Ok(entries) => {
                tracing::info!(entries, keep_days = days, "the audit log was pruned");
                entries
            }
            Err(error) => {
                tracing::warn!(error = %one_line(&error), "the audit log is not pruned yet");
                0
            }
        }
    }

    async fn sweep_day(&self, day: &Path, ended_before: UnixTime, swept: &mut Swept) {
        let (all, folder) = (Arc::clone(&self.recordings), day.to_owned());
        let sessions = match read(move || all.sessions_of(&folder)).await {
            Ok(sessions) => sessions,
            Err(error) => {
                tracing::warn!(day = %day.display(), %error, "recordings cannot be looked through");
                return;
            }
        };
        for session in sessions {
            match self.is_due(session, ended_before).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(error = %one_line(&error), "recordings are not deleted yet");
                    return;
                }
            }
            let why = format!("by the rule {SETTING} = {}", self.keep_days);
            match self.delete(session, why, None).await {
                Ok(_) => swept.deleted += 1,
                Err(DeleteError::Bury(BuryError::Held { .. })) => swept.held += 1,
                Err(error) => {
                    swept.failed += 1;
                    tracing::warn!(%session, error = %one_line(&error), "a recording is due and stays");
                }
            }
        }
    }

    /// Whether the session ended before that, by the relay's own clock. One the store does not know,
    /// after an older database was put back, counts from when its file was written to last.
    async fn is_due(&self, session: SessionId, ended_before: UnixTime) -> Result<bool, StoreError> {
        let ended = match self.store.session(session).await? {
            Some(record) => record.over.map(|over| over.at),
            None => self.recordings.touched(session),
        };
        Ok(ended.is_some_and(|ended| ended < ended_before))
    }

    /// Deletes one recording, with its tombstone.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete(
        &self,
        session: SessionId,
        why: String,
        by: Option<Actor>,
    ) -> Result<Tombstone, DeleteError> {
        delete(&self.store, &self.recordings, session, why, by).await
    }

    async fn take_away(&self, session: SessionId) -> Result<(), DeleteError> {
        let leaving = self.recordings.leave(session).ok_or(DeleteError::UnderWay(session))?;
        remove(leaving).await.map_err(|error| DeleteError::Disk(session, error))?;
        self.store.deletion_done(session).await.map_err(BuryError::from)?;
        Ok(())
    }

    /// Says once that room becomes scarce, and once that there is enough again.
    fn watch_room(&self, told: bool) -> bool {
        let Ok(Room { free, total }) = self.recordings.room() else { return told };
        let little = free < LITTLE || free < total / LITTLE_OF;
        match (little, told) {
            (true, false) => tracing::warn!(
                free_mib = free >> 20,
                total_mib = total >> 20,
                "the disk of the recordings becomes full: make room, or keep them for fewer days"
            ),
            (false, true) => tracing::info!("the disk of the recordings has room again"),
            _ => {}
        }
        little
    }
}

/// Deletes one recording, with its tombstone.
///
/// # Errors
/// [`DeleteError`]. With [`DeleteError::Disk`] the tombstone may be written; the file goes at the next
/// look then.
pub async fn delete(
    store: &Store,
    recordings: &Arc<Recordings>,
    session: SessionId,
    why: String,
    by: Option<Actor>,
) -> Result<Tombstone, DeleteError> {
    let leaving = recordings.leave(session).ok_or(DeleteError::UnderWay(session))?;
    let disk = |error| DeleteError::Disk(session, error);
    let all = Arc::clone(recordings);
    let remains = read(move || all.remains(session)).await.map_err(disk)?;
    let remains = remains.ok_or(DeleteError::None(session))?;
    let tombstone = store.bury(remains, why, by).await?;
    // Here a kill leaves a tombstone whose file is there: the next start finishes it.
    remove(leaving).await.map_err(disk)?;
    store.deletion_done(session).await.map_err(BuryError::from)?;
    tracing::info!(%session, why = tombstone.why, "a recording was deleted");
    Ok(tombstone)
}

async fn remove(leaving: Leaving) -> io::Result<()> {
    read(move || leaving.remove()).await
}

async fn read<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
