//! Whether a recording is the one whose end is in the relay's audit log.
//!
//! The device signs a recording, but the relay keeps it: it could leave the end away, or give another
//! recording of the same device under the same session. Once a recording has ended, the log has the
//! digest of its last segment, under checkpoints that others have too.

use belay_proto::evidence::{Ended, check_end};
use belay_proto::ids::SessionId;

use super::proof::Proven;
use crate::commands::audit::Log;
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// What the audit log says of a recording, each entry proven.
pub(super) struct Logged {
    ends: Vec<Ended>,
    /// The newest entry of the session.
    newest: u64,
    /// Whether the relay could be asked.
    compared: bool,
}

impl Logged {
    /// Asks the relay.
    pub(super) async fn of(context: &Context, session: SessionId) -> Result<Self, Failure> {
        let log = Log::of(context, None)?;
        let newest = log.trusted(&context.home).await?;
        let entries = match log.session(session, &newest.checkpoint).await {
            Err(failure) if failure.is_unknown_path() => {
                output::note(
                    "belay: the relay is too old to say what its audit log has of one session; the \
                     recording's end is not compared with it",
                );
                return Ok(Self { ends: Vec::new(), newest: 0, compared: false });
            }
            entries => entries?,
        };
        Ok(Self {
            compared: true,
            ends: entries.iter().filter_map(|one| Ended::of(&one.entry)).collect(),
            newest: entries.last().map_or(0, |last| last.entry.seq),
        })
    }

    /// Compares the recording's head with the log's.
    pub(super) async fn check(mut self, context: &Context, proven: &Proven) -> Result<(), Failure> {
        let whole = proven.has_end() && self.compared;
        if whole && self.ends.is_empty() {
            self = Self::of(context, proven.session).await?;
        }
        if whole && self.ends.is_empty() {
            output::note("belay: the audit log does not have the recording's end yet");
        }
        let last = proven.segments.last().map_or(0, |last| last.number);
        check_end(&self.ends, last, proven.head, whole).map_err(|exchanged| {
            let cause = format!("{exchanged}; nothing of it is shown");
            Failure::new("recording-broken", cause).remedy(format!(
                "keep what there is with --save FILE and look at it with belay play FILE; ask who had \
                 the relay's disk, and when: the log's entry {} is the newest of this session",
                self.newest
            ))
        })
    }
}
