//! What was verified before, kept in `audit.json`: of each relay, the log's key and the newest
//! checkpoint that was found good.

use std::collections::BTreeMap;

use belay_proto::audit::VerifierKey;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::home::{File, Home};

/// The layout of the file.
const LAYOUT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    layout: u32,
    /// By the relay's address.
    logs: BTreeMap<String, Stored>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    vkey: String,
    note: String,
}

/// What is known of one relay's log.
#[derive(Debug, Clone, Default)]
pub(in crate::commands) struct Known {
    pub(in crate::commands) relay: String,
    pub(in crate::commands) key: Option<VerifierKey>,
    pub(in crate::commands) note: Option<String>,
}

impl Known {
    /// What is known of this relay's log; nothing when it was never looked at.
    pub(super) fn of(home: &Home, relay: &str) -> Result<Self, Failure> {
        let mut record = read(home)?;
        let stored = record.logs.remove(relay);
        Self::from_stored(home, relay, stored)
    }

    /// What is known of the log of this name, whichever relay it is of.
    pub(in crate::commands) fn named(home: &Home, name: &str) -> Result<Self, Failure> {
        for (relay, stored) in read(home)?.logs {
            let known = Self::from_stored(home, &relay, Some(stored))?;
            if known.key.as_ref().is_some_and(|key| key.name() == name) {
                return Ok(known);
            }
        }
        Ok(Self::default())
    }

    fn from_stored(home: &Home, relay: &str, stored: Option<Stored>) -> Result<Self, Failure> {
        let mut known = Self { relay: relay.to_owned(), key: None, note: None };
        if let Some(Stored { vkey, note }) = stored {
            known.key = Some(vkey.parse().map_err(|e| damaged(home, &format!("{e}")))?);
            known.note = Some(note);
        }
        Ok(known)
    }

    /// Keeps what was found good.
    pub(super) fn keep(&self, home: &Home, key: &VerifierKey, note: &str) -> Result<(), Failure> {
        let mut record = read(home)?;
        let stored = Stored { vkey: key.to_string(), note: note.to_owned() };
        record.logs.insert(self.relay.clone(), stored);
        let json = serde_json::to_vec_pretty(&record)
            .map_err(|e| Failure::new("internal", format!("cannot encode audit.json: {e}")))?;
        home.write(File::AuditLog, &json)
    }
}

fn read(home: &Home) -> Result<Record, Failure> {
    if !home.path(File::AuditLog).exists() {
        return Ok(Record { layout: LAYOUT, logs: BTreeMap::new() });
    }
    let record: Record = serde_json::from_str(&home.read(File::AuditLog)?)
        .map_err(|e| damaged(home, &e.to_string()))?;
    if record.layout == LAYOUT {
        Ok(record)
    } else {
        Err(damaged(home, "it is of another version of this program"))
    }
}

fn damaged(home: &Home, why: &str) -> Failure {
    let path = home.path(File::AuditLog);
    Failure::new("home-damaged", format!("{} cannot be read: {why}", path.display()))
        .remedy("put it back from a backup; without it nothing of before is compared with")
}
