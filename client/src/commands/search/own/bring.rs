//! Bringing sealed recordings that are new: downloaded, checked as `belay play` checks them, held against
//! the audit log, opened, and put in the index.
//!
//! Its law: a recording that is not the one whose end is in the log is not searched, and looked at again at
//! each search; one that had not ended is held against the log at each search, until it has. One that the
//! relay has no more leaves the index when the log says that it was deleted, and is missed until then.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use belay_proto::api::SealedRecording;
use belay_proto::ids::SessionId;
use belay_proto::refusal::Code;
use belay_tunnel::transcript::{Block, Gathering, Lines, NoText};
use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;

use super::file::{Head, State};
use super::{Index, Known};
use crate::api::Api;
use crate::commands::play::download;
use crate::commands::play::logged::{Ending, Ends};
use crate::commands::play::open::{Keys, is_sealed};
use crate::commands::play::proof::{Proven, prove};
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// Longest work on one recording; what it did not come to is left out.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// So many recordings take a while.
const MANY: usize = 20;

/// What is to be done with the recordings that are listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// New, of another length, or exchanged: to be read.
    pub(super) read: Vec<SessionId>,
    /// They had no end: to be read where the log has one now.
    pub(super) open: Vec<SessionId>,
}

impl Due {
    pub(super) fn of(listed: &[SealedRecording], known: &BTreeMap<SessionId, Known>) -> Self {
        let mut due = Self::default();
        for SealedRecording { session, bytes, .. } in listed {
            match known.get(session).map(|known| known.head) {
                Some(Head { bytes: before, ending, state })
                    if before == *bytes && state != State::Exchanged =>
                {
                    if ending == Ending::Open && state != State::Damaged {
                        due.open.push(*session);
                    }
                }
                // What was exchanged may have been put back.
                Some(_) | None => due.read.push(*session),
            }
        }
        due
    }
}

/// What came of bringing.
#[derive(Default)]
pub(super) struct Brought {
    /// How many could not be read, and why.
    pub(super) waiting: u64,
    pub(super) why: Option<Failure>,
    /// They were here, and the relay has them no more, though the log does not say that they were deleted.
    pub(super) missing: Vec<SessionId>,
}

/// What was read of a recording.
pub(super) struct Read {
    pub(super) state: State,
    pub(super) ending: Ending,
    pub(super) blocks: Vec<Block>,
}

impl Read {
    const fn nothing(state: State) -> Self {
        Self { state, ending: Ending::Open, blocks: Vec::new() }
    }
}

impl Index {
    /// Makes the index what the relay has: what was deleted leaves it, what is new or has grown is read.
    ///
    /// # Errors
    /// When the relay's log is not the one known before, or a file cannot be read or written here.
    pub(super) async fn bring(
        &self,
        (context, api): (&Context, &Api),
        ca: &CertificateDer<'static>,
        listed: &[SealedRecording],
    ) -> Result<Brought, Failure> {
        let known = self.known()?;
        let lengths: BTreeMap<SessionId, u64> =
            listed.iter().map(|one| (one.session, one.bytes)).collect();
        let gone = known.keys().filter(|session| !lengths.contains_key(*session));
        let gone: Vec<SessionId> = gone.copied().collect();
        let due = Due::of(listed, &known);
        let mut brought = Brought::default();
        if due == Due::default() && gone.is_empty() {
            return Ok(brought);
        }
        let mut ends = Ends::of(context).await?;
        for session in gone {
            match ends.session(session).await {
                Ok(logged) if logged.has_one() => brought.missing.push(session),
                Ok(_) => self.remove(session)?,
                // One that is too old to be asked.
                Err(failure) if failure.is_unknown_path() => self.remove(session)?,
                Err(failure) => {
                    brought.waiting = (due.read.len() + due.open.len()) as u64;
                    brought.why = Some(failure);
                    return Ok(brought);
                }
            }
        }
        (brought.waiting, brought.why) = self.read_all(due, (api, &mut ends), ca, &lengths).await?;
        Ok(brought)
    }

    /// Reads what is due. How many could not be, and why.
    async fn read_all(
        &self,
        Due { read: mut due, open }: Due,
        (api, ends): (&Api, &mut Ends<'_>),
        ca: &CertificateDer<'static>,
        lengths: &BTreeMap<SessionId, u64>,
    ) -> Result<(u64, Option<Failure>), Failure> {
        for session in open {
            match ends.session(session).await {
                Ok(logged) if logged.ends.is_empty() => {}
                Ok(_) => due.push(session),
                Err(failure) => return Ok((due.len() as u64, Some(failure))),
            }
        }
        // Ids begin with their time: the newest first, so that a search that is broken off has those.
        due.sort_by_key(|session| Reverse(*session));
        let tell = due.len() > MANY && output::is_terminal();
        if tell {
            output::note(format!(
                "belay: reading {} sealed recordings that are new here; what is read is kept",
                due.len()
            ));
        }
        for (place, session) in due.iter().enumerate() {
            let read = match self.read(*session, (api, &mut *ends), ca).await {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(failure) => return Ok(((due.len() - place) as u64, Some(failure))),
            };
            let bytes = lengths.get(session).copied().unwrap_or_default();
            let Read { state, ending, blocks } = read;
            self.put(*session, Head { bytes, state, ending }, &blocks)?;
            if tell && (place + 1) % MANY == 0 {
                output::note(format!("belay: {} of {}", place + 1, due.len()));
            }
        }
        Ok((0, None))
    }

    /// One recording; nothing when it was deleted meanwhile.
    async fn read(
        &self,
        session: SessionId,
        (api, ends): (&Api, &mut Ends<'_>),
        ca: &CertificateDer<'static>,
    ) -> Result<Option<Read>, Failure> {
        let failed = |error: tokio::task::JoinError| {
            Failure::new("internal", format!("reading a recording failed: {error}"))
        };
        let mut logged = ends.session(session).await?;
        let file = match download(api, &session.to_string()).await {
            Ok(file) => file,
            Err(failure) if failure.token() == Code::BadRequest.token() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let ca = ca.clone();
        let proven = spawn_blocking(move || proven(session, &file, &ca)).await.map_err(failed)?;
        let Some(proven) = proven else { return Ok(Some(Read::nothing(State::Damaged))) };
        let Ok(ending) = ends.hold(&proven, &mut logged).await? else {
            return Ok(Some(Read::nothing(State::Exchanged)));
        };
        let keys = self.keys.clone();
        let gathered = spawn_blocking(move || gathered(&proven, &keys)).await.map_err(failed)?;
        let (state, blocks) = gathered;
        Ok(Some(Read { state, ending, blocks }))
    }
}

/// A recording of this session, all of it as its device signed it.
pub(super) fn proven(session: SessionId, file: &[u8], ca: &CertificateDer<'_>) -> Option<Proven> {
    prove(file, ca).ok().filter(|proven| proven.session == session)
}

/// The blocks of a recording, and how far they go.
pub(super) fn gathered(proven: &Proven, keys: &Keys) -> (State, Vec<Block>) {
    let begun = Instant::now();
    let opener = match is_sealed(proven).then(|| keys.opener_of(proven)) {
        None => None,
        Some(Ok(Some(opener))) => Some(opener),
        Some(Ok(None)) => return (State::Foreign, Vec::new()),
        Some(Err(_)) => return (State::Damaged, Vec::new()),
    };
    let (mut lines, mut gathering) = (Lines::default(), Gathering::default());
    let (mut blocks, mut out, mut state) = (Vec::new(), Vec::new(), State::Whole);
    for segment in &proven.segments {
        match lines.take(segment, opener.as_ref(), &mut out) {
            Ok(()) => {}
            Err(NoText::Sealed | NoText::Nonsense(_)) => {
                state = State::Damaged;
                break;
            }
        }
        for line in out.drain(..) {
            blocks.extend(gathering.push(line).ok().flatten());
        }
        if lines.is_full() || begun.elapsed() > READ_WITHIN {
            state = State::Cut;
            break;
        }
    }
    lines.finish(&mut out);
    for line in out.drain(..) {
        blocks.extend(gathering.push(line).ok().flatten());
    }
    blocks.extend(gathering.finish().ok().flatten());
    if state == State::Whole && lines.is_cut() {
        state = State::Cut;
    }
    (state, blocks)
}
