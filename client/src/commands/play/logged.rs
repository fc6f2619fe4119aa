//! Whether a recording is the one whose end is in the relay's audit log.
//!
//! The device signs a recording, but the relay keeps it: it could leave the end away, or give another
//! recording of the same device under the same session. Once a recording has ended, the log has the
//! digest of its last segment, under checkpoints that others have too.

use belay_proto::audit::Checkpoint;
use belay_proto::evidence::{Ended, Exchanged, check_end};
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
        Ok(Logged {
            ends: entries.iter().filter_map(|one| Ended::of(&one.entry)).collect(),
            newest: entries.last().map_or(0, |last| last.entry.seq),
        })
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
