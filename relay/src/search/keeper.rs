//! Keeping the index: a look at the directory of recordings every few seconds, and whatever is new there
//! is read, one recording after another.
//!
//! Nobody waits for it: it works half of the time at most, and on threads ([`aside`]) that have a processor
//! only when nobody else wants it, so that sessions have the machine. A recording that goes on is read again when it
//! has grown by a quarter, or has been quiet for half a minute; one that has ended is read at once, for whoever
//! looks for what was just done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use belay_proto::error_line::one_line;
use belay_proto::ids::SessionId;
use belay_tunnel::transcript::{Block, Gathering, Line, Lines, NoText};
use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::index::{Index, IndexError, Read, Seen, State};
use super::{Search, aside};
use crate::recordings::{Recordings, Standing, Walk, WalkError};
use crate::store::Store;

/// Between two looks at the directory, and so many times as long as a look takes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SHARE: u32 = 20;

/// A recording that has not grown for so long is read as it is.
const QUIET: Duration = Duration::from_secs(30);

/// The same for one of which too much is left out to be read so often: it may be long, and little of what
/// is new be kept.
const QUIET_CUT: Duration = Duration::from_secs(600);

/// Longest work on one recording; what it did not come to is left out.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// Longest rest after one recording.
const REST: Duration = Duration::from_secs(5);

/// Before the index is opened again that could not be used.
const AGAIN: Duration = Duration::from_secs(60);

/// What a look at the directory gave.
#[derive(Default)]
struct Looked {
    /// The length of each file, and since when it has that.
    sizes: BTreeMap<SessionId, (u64, Instant)>,
}

impl Search {
    /// Keeps the index until cancelled.
    pub(crate) async fn keep(self: Arc<Self>, store: Store, cancel: CancellationToken) {
        if let Err(error) = aside::run(move || self.keep_here(store, cancel)).await {
            tracing::error!(error = one_line(&error), "recordings cannot be searched");
        }
    }

    async fn keep_here(self: Arc<Self>, store: Store, cancel: CancellationToken) {
        loop {
            let kept = cancel.run_until_cancelled(self.keep_once(&store)).await;
            self.set_readers(None);
            match kept {
                None => return,
                Some(never) => {
                    let error = match never {
                        Err(error) => one_line(&error),
                        Ok(never) => match never {},
                    };
                    tracing::warn!(error, "recordings cannot be searched for a minute");
                }
            }
            if cancel.run_until_cancelled(sleep(AGAIN)).await.is_none() {
                return;
            }
        }
    }

    async fn keep_once(&self, store: &Store) -> Result<std::convert::Infallible, IndexError> {
        let mut index = Index::open(self.recordings.dir()).await?;
        self.set_readers(Some(index.readers.clone()));
        let mut seen = index.seen().await?;
        let mut looked = Looked::default();
        loop {
            let begun = Instant::now();
            self.look(&mut looked).await?;
            let took = begun.elapsed();
            for gone in seen.keys().filter(|one| !looked.sizes.contains_key(one)).copied() {
                index.forget(gone).await?;
                self.recordings.unread.read(gone);
            }
            seen.retain(|session, _| looked.sizes.contains_key(session));
            // Ids of version 7 begin with their time: the newest first.
            let due: Vec<(SessionId, u64)> = looked
                .sizes
                .iter()
                .rev()
                .filter(|(session, (bytes, since))| {
                    is_due(seen.get(*session), *bytes, since.elapsed())
                })
                .map(|(session, (bytes, _))| (*session, *bytes))
                .collect();
            let new = |one: &(SessionId, u64)| !seen.contains_key(&one.0);
            let mut waiting = due.iter().filter(|one| new(one)).count() as u64;
            self.waiting.store(waiting, Ordering::Relaxed);
            for (session, bytes) in due {
                let new = !seen.contains_key(&session);
                self.take_in(&mut index, &mut seen, (session, bytes), store).await?;
                waiting -= u64::from(new);
                self.waiting.store(waiting, Ordering::Relaxed);
            }
            let again = tokio::time::Instant::now() + LOOK_EVERY.max(took * LOOK_SHARE);
            loop {
                let ended = tokio::select! {
                    () = sleep_until(again) => break,
                    ended = self.recordings.unread.ended() => ended,
                };
                for session in ended {
                    match self.recordings.standing(session) {
                        Ok(Some(Standing { bytes, .. })) => {
                            self.take_in(&mut index, &mut seen, (session, bytes), store).await?;
                        }
                        // The next look at the directory is for these.
                        Ok(None) | Err(_) => self.recordings.unread.read(session),
                    }
                }
            }
        }
    }

    /// Reads a recording whose file has so many bytes into the index, and rests as long as that took.
    async fn take_in(
        &self,
        index: &mut Index,
        seen: &mut BTreeMap<SessionId, Seen>,
        (session, bytes): (SessionId, u64),
        store: &Store,
    ) -> Result<(), IndexError> {
        let begun = Instant::now();
        // What comes while it is read is not read.
        self.recordings.unread.read(session);
        if let Some(read) = self.read(session, bytes, store).await? {
            index.put(&read).await?;
            seen.insert(session, read.seen);
        }
        sleep(begun.elapsed().min(REST)).await;
        Ok(())
    }

    /// Looks at the directory.
    async fn look(&self, looked: &mut Looked) -> Result<(), IndexError> {
        let recordings = Arc::clone(&self.recordings);
        let sizes = spawn_blocking(move || recordings.sizes()).await;
        let sizes = sizes.map_err(std::io::Error::other)??;
        let now = Instant::now();
        let before = std::mem::take(&mut looked.sizes);
        looked.sizes = sizes
            .into_iter()
            .map(|(session, bytes)| {
                let same = before.get(&session).filter(|(before, _)| *before == bytes);
                (session, (bytes, same.map_or(now, |(_, since)| *since)))
            })
            .collect();
        Ok(())
    }

    /// Reads a recording; `None` when it is gone or cannot be read, and is looked at again.
    pub(super) async fn read(
        &self,
        session: SessionId,
        bytes: u64,
        store: &Store,
    ) -> Result<Option<Read>, IndexError> {
        let (recordings, ca) = (Arc::clone(&self.recordings), self.ca.clone());
        let read = spawn_blocking(move || read(&recordings, session, &ca)).await;
        let (blocks, state, ended) = match read.map_err(std::io::Error::other)? {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(WalkError::Disk(error)) => {
                tracing::warn!(%session, %error, "a recording cannot be read now");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(%session, error = %one_line(&error), "a recording cannot be searched");
                (Vec::new(), State::Damaged, false)
            }
        };
        let record = match store.session(session).await {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(%session, error = %one_line(&error), "not put in the index yet");
                return Ok(None);
            }
        };
        Ok(Some(Read {
            session,
            user: record.as_ref().map(|record| record.user.as_bytes().to_vec()),
            device: record.as_ref().map(|record| record.device.as_bytes().to_vec()),
            login: record.map(|record| record.login.to_string()),
            seen: Seen { bytes, ended, state },
            blocks,
        }))
    }
}

/// Whether a recording of which this is known is to be read, when its file has so many bytes and has had
/// them for so long.
fn is_due(seen: Option<&Seen>, bytes: u64, quiet: Duration) -> bool {
    let Some(seen) = seen else { return true };
    let grown = bytes >= seen.bytes.saturating_add(seen.bytes / 4);
    let long = match seen.state {
        State::Cut => QUIET_CUT,
        State::Whole | State::Sealed | State::Damaged => QUIET,
    };
    bytes != seen.bytes && (seen.ended || grown || bytes < seen.bytes || quiet >= long)
}

type Blocks = (Vec<Block>, State, bool);

/// The blocks of a recording, how far they go, and whether its end was seen.
fn read(
    recordings: &Recordings,
    session: SessionId,
    ca: &CertificateDer<'_>,
) -> Result<Option<Blocks>, WalkError> {
    let begun = Instant::now();
    let Some(mut walk) = Walk::begin(recordings, session, ca)? else { return Ok(None) };
    let (mut lines, mut gathering) = (Lines::default(), Gathering::default());
    let (mut blocks, mut out, mut state) = (Vec::new(), Vec::new(), State::Whole);
    let mut gather = |out: &mut Vec<Line>| -> Result<(), WalkError> {
        for line in out.drain(..) {
            blocks.extend(gathering.push(line)?);
        }
        Ok(())
    };
    loop {
        let segment = match walk.next() {
            Ok(Some(segment)) => segment,
            Ok(None) => break,
            Err(WalkError::Disk(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%session, error = %one_line(&error), "a recording is damaged");
                state = State::Damaged;
                break;
            }
        };
        match lines.take(&segment, None, &mut out) {
            Ok(()) => {}
            Err(NoText::Sealed) => {
                state = State::Sealed;
                break;
            }
            Err(NoText::Nonsense(number)) => {
                tracing::warn!(%session, number, "a recording's segment holds no text");
                state = State::Damaged;
                break;
            }
        }
        gather(&mut out)?;
        if lines.is_full() || begun.elapsed() > READ_WITHIN {
            state = State::Cut;
            break;
        }
    }
    lines.finish(&mut out);
    gather(&mut out)?;
    blocks.extend(gathering.finish()?);
    if state == State::Whole && lines.is_cut() {
        state = State::Cut;
    }
    Ok(Some((blocks, state, walk.end().is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_due_and_what_grows_only_now_and_then() {
        let (now, long) = (Duration::ZERO, QUIET);
        let seen = |ended, state| Seen { bytes: 1000, ended, state };
        let open = seen(false, State::Whole);
        assert!(is_due(None, 0, now));
        assert!(!is_due(Some(&open), 1000, long) && !is_due(Some(&open), 1100, now));
        assert!(is_due(Some(&open), 1100, long) && is_due(Some(&open), 1250, now));
        assert!(is_due(Some(&open), 900, now), "exchanged");
        let over = seen(true, State::Whole);
        assert!(!is_due(Some(&over), 1000, long) && is_due(Some(&over), 1001, now));
        let cut = seen(false, State::Cut);
        assert!(!is_due(Some(&cut), 1100, long) && is_due(Some(&cut), 10, now));
        assert!(is_due(Some(&cut), 1250, now) && is_due(Some(&cut), 1001, QUIET_CUT));
    }
}
