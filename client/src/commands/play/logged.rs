//! Whether a recording is the one whose end is in the relay's audit log.
//!
//! The device signs a recording, but the relay keeps it: it could leave the end away, or give another
//! recording of the same device under the same session. Once a recording has ended, the log has the
//! digest of its last segment, under checkpoints that others have too.

use belay_proto::audit::{Checkpoint, Entry};
use belay_proto::evidence::{Ended, Exchanged, Tombstone, check_end};
use belay_proto::ids::SessionId;

use super::proof::Proven;
use crate::commands::audit::Log;
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// The relay's audit log, as far as it is proven to go on from what was known before.
pub(in crate::commands) struct Ends<'c> {
    context: &'c Context,
    log: Log,
    now: Checkpoint,
}

/// What it says of a recording, each entry proven. Asked before the recording is: what ends meanwhile is
/// no recording that was cut.
#[derive(Debug, Default)]
pub(in crate::commands) struct Logged {
    pub(in crate::commands) ends: Vec<Ended>,
    /// There was a recording.
    begun: bool,
    /// It was deleted, as it may be.
    deleted: bool,
    /// The newest entry of the session.
    newest: u64,
}

/// How a recording and the log agree on its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Ending {
    /// It is the one that the log has.
    Agreed,
    /// Neither has one.
    Open,
    /// It has one, and the log has none, or none any more: its texts go by audit_keep_days.
    Unlogged,
}

impl Logged {
    fn of(entries: &[Entry]) -> Self {
        let newest = entries.last().map_or(0, |last| last.seq);
        let ends: Vec<Ended> = entries.iter().filter_map(Ended::of).collect();
        let begun =
            !ends.is_empty() || entries.iter().any(|entry| entry.kind == "recording-started");
        let deleted = entries.iter().any(|entry| Tombstone::of(entry).is_some());
        Self { ends, begun, deleted, newest }
    }

    /// Whether the relay has a recording, if it is as the log says.
    pub(in crate::commands) const fn has_one(&self) -> bool {
        self.begun && !self.deleted
    }

    /// Whether a recording is the one that ended so.
    ///
    /// # Errors
    /// When it is not: it was cut, or is another.
    pub(in crate::commands) fn ending(&self, proven: &Proven) -> Result<Ending, Exchanged> {
        let last = proven.segments.last().map_or(0, |last| last.number);
        check_end(&self.ends, last, proven.head, proven.has_end())?;
        Ok(match (proven.has_end(), self.ends.is_empty()) {
            (true, false) => Ending::Agreed,
            (true, true) => Ending::Unlogged,
            (false, _) => Ending::Open,
        })
    }
}

impl<'c> Ends<'c> {
    /// Asks the relay how far its log goes.
    ///
    /// # Errors
    /// When it cannot be asked, or its log is not the one that was known before.
    pub(in crate::commands) async fn of(context: &'c Context) -> Result<Self, Failure> {
        let log = Log::of(context, None)?;
        let now = log.trusted(&context.home).await?.checkpoint;
        Ok(Self { context, log, now })
    }

    /// What it says of a session's recording.
    ///
    /// # Errors
    /// When the relay cannot be asked, or gives what it has no proof for.
    pub(in crate::commands) async fn session(&self, session: SessionId) -> Result<Logged, Failure> {
        let entries = self.log.session(session, &self.now).await?;
        let entries: Vec<Entry> = entries.into_iter().map(|one| one.entry).collect();
        Ok(Logged::of(&entries))
    }

    /// Holds a recording against what the log said of it; asks once more where it has ended since.
    ///
    /// # Errors
    /// When the relay cannot be asked.
    pub(in crate::commands) async fn hold(
        &mut self,
        proven: &Proven,
        logged: &mut Logged,
    ) -> Result<Result<Ending, Exchanged>, Failure> {
        if logged.ending(proven) == Ok(Ending::Unlogged) {
            *self = Self::of(self.context).await?;
            *logged = self.session(proven.session).await?;
        }
        Ok(logged.ending(proven))
    }
}

/// What the log says of the recording that is to be played.
pub(super) struct Asked<'c> {
    ends: Ends<'c>,
    logged: Logged,
}

impl<'c> Asked<'c> {
    /// Asks the relay. Nothing where it is too old to be asked.
    pub(super) async fn of(
        context: &'c Context,
        session: SessionId,
    ) -> Result<Option<Self>, Failure> {
        let ends = Ends::of(context).await?;
        match ends.session(session).await {
            Err(failure) if failure.is_unknown_path() => {
                output::note(
                    "belay: the relay is too old to say what its audit log has of one session; the \
                     recording's end is not compared with it",
                );
                Ok(None)
            }
            logged => Ok(Some(Self { logged: logged?, ends })),
        }
    }

    /// Compares the recording's head with the log's.
    pub(super) async fn check(mut self, proven: &Proven) -> Result<(), Failure> {
        match self.ends.hold(proven, &mut self.logged).await? {
            Ok(Ending::Agreed | Ending::Open) => Ok(()),
            Ok(Ending::Unlogged) => {
                output::note("belay: the audit log does not have the recording's end");
                Ok(())
            }
            Err(exchanged) => {
                let cause = format!("{exchanged}; nothing of it is shown");
                Err(Failure::new("recording-broken", cause).remedy(format!(
                    "keep what there is with --save FILE and look at it with belay play FILE; ask who \
                     had the relay's disk, and when: the log's entry {} is the newest of this session",
                    self.logged.newest
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn entry(kind: &str, detail: &str) -> Entry {
        let entry =
            serde_json::json!({"seq": 7, "at": 1_800_000_000, "kind": kind, "detail": detail});
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn a_recording_that_was_begun_is_there_until_it_is_deleted() {
        let opened = entry("session-opened", "");
        let begun = entry("recording-started", "");
        let end = format!("last segment 2, SHA-256 {}", "ab".repeat(32));
        let ended = entry("recording-ended", &end);
        let stone = entry("recording-deleted", &format!("{end}, 4711 bytes, whole; by the rule x"));
        let has = |entries: &[&Entry]| {
            let entries: Vec<Entry> = entries.iter().map(|entry| (*entry).clone()).collect();
            Logged::of(&entries).has_one()
        };
        assert!(!has(&[]) && !has(&[&opened]), "the log's texts go after a time");
        assert!(has(&[&opened, &begun]) && has(&[&ended]));
        assert!(!has(&[&opened, &begun, &ended, &stone]));
        let unread = entry("recording-deleted", "nobody knows what");
        assert!(has(&[&begun, &ended, &unread]), "no tombstone");
    }
}
