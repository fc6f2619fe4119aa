//! Bringing sealed recordings that are new: downloaded, checked as `belay play` checks them, opened, and
//! put in the index.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use belay_proto::api::SealedRecording;
use belay_proto::ids::SessionId;
use belay_proto::refusal::Code;
use belay_tunnel::transcript::{Block, Gathering, Lines, NoText};
use rustls_pki_types::CertificateDer;

use super::file::{Head, State};
use super::{Index, Known};
use crate::api::Api;
use crate::commands::play::download;
use crate::commands::play::open::{Keys, is_sealed};
use crate::commands::play::proof::prove;
use crate::failure::Failure;
use crate::output;

/// Longest work on one recording; what it did not come to is left out.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// So many recordings take a while.
const MANY: usize = 20;

impl Index {
    /// Makes the index what the relay has: what is gone leaves it, what is new or has grown is read. Says how
    /// many could not be, and why.
    ///
    /// # Errors
    /// When a file cannot be read or written here.
    pub(super) async fn bring(
        &self,
        api: &Api,
        ca: &CertificateDer<'static>,
        listed: &[SealedRecording],
    ) -> Result<(u64, Option<Failure>), Failure> {
        let known = self.known()?;
        let there: BTreeSet<SessionId> = listed.iter().map(|one| one.session).collect();
        for gone in known.keys().filter(|session| !there.contains(*session)) {
            self.remove(*gone)?;
        }
        let is_due = |one: &&SealedRecording| {
            known.get(&one.session).is_none_or(|Known { head, .. }| head.bytes != one.bytes)
        };
        // Ids begin with their time: the newest first, so that a search that is broken off has those.
        let due: Vec<&SealedRecording> = listed.iter().rev().filter(is_due).collect();
        let tell = due.len() > MANY && output::is_terminal();
        if tell {
            output::note(format!(
                "belay: reading {} sealed recordings that are new here; what is read is kept",
                due.len()
            ));
        }
        for (place, SealedRecording { session, bytes, .. }) in due.iter().enumerate() {
            let file = match download(api, &session.to_string()).await {
                Ok(file) => file,
                // Deleted meanwhile.
                Err(failure) if failure.token() == Code::BadRequest.token() => continue,
                Err(failure) => return Ok(((due.len() - place) as u64, Some(failure))),
            };
            let (session, ca, keys) = (*session, ca.clone(), self.keys.clone());
            let read = tokio::task::spawn_blocking(move || read(session, &file, &ca, &keys));
            let (state, blocks) = read.await.map_err(|error| {
                Failure::new("internal", format!("reading a recording failed: {error}"))
            })?;
            self.put(session, Head { bytes: *bytes, state }, &blocks)?;
            if tell && (place + 1) % MANY == 0 {
                output::note(format!("belay: {} of {}", place + 1, due.len()));
            }
        }
        Ok((0, None))
    }
}

/// The blocks of a recording, and how far they go.
pub(super) fn read(
    session: SessionId,
    file: &[u8],
    ca: &CertificateDer<'_>,
    keys: &Keys,
) -> (State, Vec<Block>) {
    let begun = Instant::now();
    let Some(proven) = prove(file, ca).ok().filter(|proven| proven.session == session) else {
        return (State::Damaged, Vec::new());
    };
    let opener = match is_sealed(&proven).then(|| keys.opener_of(&proven)) {
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
