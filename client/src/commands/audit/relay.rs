//! The relay's audit log, asked for over HTTPS.

use std::time::Duration;

use belay_proto::api::{
    LogCheckpoint, LogConsistencyRequest, LogEntries, LogEntriesRequest, LogProof, path,
};
use belay_proto::audit::{BadCheckpoint, Checkpoint, Digest, MAX_PAGE, NoteError, VerifierKey};
use belay_proto::refusal::Code;
use belay_tunnel::pki::NoteVerifier;
use hyper::Method;

use super::known::Known;
use crate::api::Api;
use crate::failure::Failure;
use crate::run::Context;

/// Pauses while the relay says that it is asked too often.
const PATIENCE: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// The log of the relay one is logged in at.
pub(super) struct Log {
    api: Api,
    pub(super) known: Known,
    /// The key given on the command line.
    key: Option<VerifierKey>,
}

/// A checkpoint of the relay whose signature was checked.
pub(super) struct Newest {
    pub(super) key: VerifierKey,
    pub(super) checkpoint: Checkpoint,
    pub(super) note: String,
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

impl Log {
    pub(super) fn of(context: &Context, key: Option<VerifierKey>) -> Result<Self, Failure> {
        let login = context.home.live_login()?;
        let known = Known::of(&context.home, &login.record().relay)?;
        Ok(Self { api: Api::of(&login)?, known, key })
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
    pub(super) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, Failure> {
        let request = LogConsistencyRequest { old, new };
        let proof: LogProof = self.api.send(Method::POST, path::LOG_CONSISTENCY, &request).await?;
        Ok(proof.hashes)
    }
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
