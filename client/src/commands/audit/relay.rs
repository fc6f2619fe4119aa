//! The relay's audit log, asked for over HTTPS.

use std::time::Duration;

use belay_proto::api::{
    LogCheckpoint, LogConsistencyRequest, LogEntries, LogEntriesRequest, LogInclusionRequest,
    LogProof, LogSession, LogSessionRequest, MAX_SESSION_PAGE, path,
};
use belay_proto::audit::{
    BadCheckpoint, Checkpoint, Digest, Entry, Finding, MAX_PAGE, NoteError, VerifierKey, leaf_hash,
    verify_consistency, verify_inclusion,
};
use belay_proto::evidence::MAX_ENTRIES;
use belay_proto::ids::SessionId;
use belay_proto::refusal::Code;
use belay_tunnel::pki::NoteVerifier;
use hyper::Method;

use super::known::Known;
use super::show;
use crate::api::Api;
use crate::failure::Failure;
use crate::home::Home;
use crate::run::Context;

/// Pauses while the relay says that it is asked too often.
const PATIENCE: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// The log of the relay one is logged in at.
pub(in crate::commands) struct Log {
    api: Api,
    pub(in crate::commands) known: Known,
    /// The key given on the command line.
    key: Option<VerifierKey>,
}

/// A checkpoint of the relay whose signature was checked.
pub(in crate::commands) struct Newest {
    pub(in crate::commands) key: VerifierKey,
    pub(in crate::commands) checkpoint: Checkpoint,
    pub(in crate::commands) note: String,
    /// The newest one that witnesses cosigned, as the relay gave it.
    pub(super) cosigned: Option<String>,
}

impl Newest {
    /// The newest one that witnesses cosigned, in the place of the newest of all.
    pub(super) fn cosigned(self) -> Result<Self, Failure> {
        let note = self.cosigned.clone().ok_or_else(|| {
            Failure::new("audit", "no witness has cosigned this log yet")
                .remedy("the relay's operator names witnesses in relay.toml")
        })?;
        let checkpoint = Checkpoint::open(&note, &self.key, &NoteVerifier::from(&self.key))
            .map_err(|error| strange(&format!("its cosigned checkpoint: {error}")))?;
        Ok(Self { checkpoint, note, ..self })
    }
}

/// An entry whose inclusion in the log was proven.
pub(in crate::commands) struct ProvenEntry {
    /// The line that is the leaf.
    pub(in crate::commands) line: String,
    /// What it says.
    pub(in crate::commands) entry: Entry,
    /// The proof.
    pub(in crate::commands) hashes: Vec<Digest>,
}

impl Log {
    pub(in crate::commands) fn of(
        context: &Context,
        key: Option<VerifierKey>,
    ) -> Result<Self, Failure> {
        let login = context.home.live_login()?;
        let known = Known::of(&context.home, &login.record().relay)?;
        Ok(Self { api: Api::of(&login)?, known, key })
    }

    /// The interface it is asked over.
    pub(in crate::commands) const fn api(&self) -> &Api {
        &self.api
    }

    /// The newest checkpoint, by the key that is expected: the one given, or seen before.
    pub(super) async fn newest(&self) -> Result<Newest, Failure> {
        let said: LogCheckpoint = self.api.get(path::LOG_CHECKPOINT).await?;
        let key: VerifierKey = said.vkey.parse().map_err(|e| strange(&format!("its key: {e}")))?;
        let expected = self.key.as_ref().or(self.known.key.as_ref());
        if let Some(expected) = expected.filter(|expected| **expected != key) {
            return Err(other_key(expected, &key.to_string()));
        }
        match Checkpoint::open(&said.note, &key, &NoteVerifier::from(&key)) {
            Ok(checkpoint) => {
                Ok(Newest { key, checkpoint, note: said.note, cosigned: said.cosigned })
            }
            Err(BadCheckpoint::Note(NoteError::OtherKey { by })) => Err(other_key(&key, &by)),
            Err(error) => Err(strange(&format!("its newest checkpoint: {error}"))),
        }
    }

    /// Entries behind the first `after`, none behind the first `upto`.
    pub(super) async fn page(&self, after: u64, upto: u64) -> Result<LogEntries, Failure> {
        let wanted = upto.saturating_sub(after).clamp(1, MAX_PAGE.into());
        let count = u32::try_from(wanted).unwrap_or(MAX_PAGE);
        let request = LogEntriesRequest { after, count };
        let page = self.ask(&request).await?;
        let most = after.saturating_add(wanted);
        if page.upto < after || page.upto > most || page.entries.len() as u64 > wanted {
            return Err(strange("more entries than were asked for"));
        }
        Ok(page)
    }

    /// Whoever reads a long log asks faster than one person may, and waits a moment then.
    async fn ask(&self, request: &LogEntriesRequest) -> Result<LogEntries, Failure> {
        let mut patience = PATIENCE;
        loop {
            match self.api.send(Method::POST, path::LOG_ENTRIES, request).await {
                Err(failure) if failure.token() == Code::Busy.token() && patience > 0 => {
                    patience -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// A proof that the log of `new` entries begins with the one of `old`.
    pub(in crate::commands) async fn consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Result<Vec<Digest>, Failure> {
        if old == 0 || old == new {
            return Ok(Vec::new());
        }
        let request = LogConsistencyRequest { old, new };
        let proof: LogProof = self.api.send(Method::POST, path::LOG_CONSISTENCY, &request).await?;
        Ok(proof.hashes)
    }

    /// What is wrong when the log of `now` does not begin with the one of `old`. Up to entry `agree`
    /// both are known to be the same.
    pub(super) async fn goes_on(
        &self,
        old: &Checkpoint,
        now: &Checkpoint,
        agree: u64,
    ) -> Result<Option<Finding>, Failure> {
        if old.size > now.size {
            return Ok(Some(Finding::Shorter { have: now.size, signed: old.size }));
        }
        let proof = self.consistency(old.size, now.size).await?;
        let good = verify_consistency(old.size, old.root, now.size, now.root, &proof);
        Ok((!good).then_some(Finding::OtherHistory { size: old.size, agree }))
    }

    /// The newest checkpoint, proven to go on from the one that was known before. It is what is known
    /// from now on.
    pub(in crate::commands) async fn trusted(&self, home: &Home) -> Result<Newest, Failure> {
        let newest = self.newest().await?;
        match &self.known.note {
            Some(note) => {
                let old = Checkpoint::open(note, &newest.key, &NoteVerifier::from(&newest.key));
                let old = old.map_err(|e| strange(&format!("what was known of it before: {e}")))?;
                self.must_begin_with(&old, &newest.checkpoint).await?;
            }
            None => show::first_sight(&newest.key),
        }
        self.known.keep(home, &newest.key, &newest.note)?;
        Ok(newest)
    }

    /// Makes sure that the log of `now` begins with the one of `old`.
    pub(in crate::commands) async fn must_begin_with(
        &self,
        old: &Checkpoint,
        now: &Checkpoint,
    ) -> Result<(), Failure> {
        match self.goes_on(old, now, 0).await? {
            Some(finding) => Err(not_intact(&finding)),
            None => Ok(()),
        }
    }

    /// The proof that the log of `now` has an entry, checked.
    pub(super) async fn inclusion(
        &self,
        line: &str,
        seq: u64,
        now: &Checkpoint,
    ) -> Result<Option<Vec<Digest>>, Failure> {
        let request = LogInclusionRequest { seq, size: now.size };
        let proof: LogProof = self.api.send(Method::POST, path::LOG_INCLUSION, &request).await?;
        Ok(included(line, seq, &proof.hashes, now).then_some(proof.hashes))
    }

    /// All entries that name a session, in the log's order, each proven to be in the log of `now`. That
    /// there are no others is the relay's word.
    pub(in crate::commands) async fn session(
        &self,
        session: SessionId,
        now: &Checkpoint,
    ) -> Result<Vec<ProvenEntry>, Failure> {
        let (mut all, mut after) = (Vec::new(), 0);
        while after < now.size {
            let request = LogSessionRequest { session, after, size: now.size };
            let page: LogSession = self.api.send(Method::POST, path::LOG_SESSION, &request).await?;
            if page.upto <= after || page.entries.len() > MAX_SESSION_PAGE as usize {
                return Err(strange("more of a session's entries than were asked for"));
            }
            for found in page.entries {
                let entry: Option<Entry> = serde_json::from_str(&found.entry).ok();
                let entry = entry.filter(|entry| {
                    entry.session == Some(session)
                        && entry.seq > after
                        && included(&found.entry, entry.seq, &found.hashes, now)
                });
                let Some(entry) = entry else {
                    return Err(strange("an entry that it has no proof for"));
                };
                after = entry.seq;
                all.push(ProvenEntry { line: found.entry, entry, hashes: found.hashes });
            }
            if all.len() > MAX_ENTRIES {
                return Err(strange("more entries of one session than any has"));
            }
            after = page.upto;
        }
        Ok(all)
    }
}

fn included(line: &str, seq: u64, proof: &[Digest], now: &Checkpoint) -> bool {
    let leaf = leaf_hash(line.as_bytes());
    seq > 0 && verify_inclusion(leaf, seq - 1, now.size, proof, now.root)
}

fn not_intact(finding: &Finding) -> Failure {
    Failure::new("audit", finding.to_string())
        .remedy("keep what you exported before, and see: belay audit verify")
}

fn strange(what: &str) -> Failure {
    Failure::new("audit", format!("the relay's audit log cannot be taken: {what}"))
        .remedy("keep what you exported before; ask the relay's operator")
}

fn other_key(expected: &VerifierKey, by: &str) -> Failure {
    Failure::new(
        "audit-key",
        format!("the audit log's key was replaced: it was {expected}, and now {by} signs"),
    )
    .remedy(
        "if the operator says so by another way, give the new one: belay audit verify --key KEY",
    )
}
