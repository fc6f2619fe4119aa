//! `/v1/audit/…`: the audit log, for those who may read evidence.
//!
//! Its law: a reading is in the log before it is answered. One record covers what the same person
//! reads on from there within ten minutes; otherwise whoever follows the log would fill it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::{
    LogCheckpoint, LogConsistencyRequest, LogEntries, LogEntriesRequest, LogInclusionRequest,
    LogProof,
};
use belay_proto::audit::MAX_PAGE;
use belay_proto::refusal::{Code, Refused};

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::store::{EventKind, StoreError};

pub(super) async fn checkpoint(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<LogCheckpoint>, Failure> {
    reading(&api, &caller, None).await?;
    let newest = api.store.checkpoint().await.map_err(store)?;
    // The reading itself is an entry.
    let (size, note) = newest.ok_or_else(|| store(StoreError::Unreadable("no audit log")))?;
    let cosigned = api.store.cosigned().await.map_err(store)?.map(|(_, note)| note);
    Ok(Json(LogCheckpoint { vkey: api.store.log_key().to_string(), size, note, cosigned }))
}

pub(super) async fn entries(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<LogEntriesRequest>,
) -> Result<Json<LogEntries>, Failure> {
    if request.count == 0 || request.count > MAX_PAGE {
        let cause = format!("entries are read 1 to {MAX_PAGE} at a time");
        return Err(bad(&api, &caller, cause).await);
    }
    reading(&api, &caller, Some(request.after)).await?;
    let newest = api.store.checkpoint().await.map_err(store)?.map_or(0, |(size, _)| size);
    let upto = newest.min(request.after.saturating_add(request.count.into()));
    let page = api.store.log_page(request.after, upto).await.map_err(store)?;
    Ok(Json(LogEntries {
        upto: upto.max(request.after),
        entries: page.entries,
        leaves: page.leaves,
        checkpoints: page.checkpoints,
    }))
}

pub(super) async fn consistency(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<LogConsistencyRequest>,
) -> Result<Json<LogProof>, Failure> {
    reading(&api, &caller, None).await?;
    let LogConsistencyRequest { old, new } = request;
    match api.store.log_consistency(old, new).await.map_err(store)? {
        Some(hashes) => Ok(Json(LogProof { hashes })),
        None => {
            let cause = format!("no log of {new} entries here begins with one of {old}");
            Err(bad(&api, &caller, cause).await)
        }
    }
}

pub(super) async fn inclusion(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<LogInclusionRequest>,
) -> Result<Json<LogProof>, Failure> {
    reading(&api, &caller, None).await?;
    let LogInclusionRequest { seq, size } = request;
    match api.store.log_inclusion(seq, size).await.map_err(store)? {
        Some(hashes) => Ok(Json(LogProof { hashes })),
        None => {
            let cause = format!("no log of {size} entries here has an entry {seq}");
            Err(bad(&api, &caller, cause).await)
        }
    }
}

/// Records that this person reads: entries after the first `after`, or checkpoints and proofs.
async fn reading(api: &Api, caller: &Caller, after: Option<u64>) -> Result<(), Failure> {
    if api.readings.covers(caller.user.id, after) {
        return Ok(());
    }
    let what = match after {
        Some(after) => format!("the audit log from entry {} on", after.saturating_add(1)),
        None => "checkpoints and proofs of the audit log".to_owned(),
    };
    let event = caller.actor().event(EventKind::EvidenceRead);
    api.store.record(event.detail(&format!("{what}, for ten minutes"))).await.map_err(store)?;
    api.readings.begun(caller.user.id, after);
    Ok(())
}

async fn bad(api: &Api, caller: &Caller, cause: String) -> Failure {
    caller.refuse(api, Refused::new(Code::BadRequest, cause, "ask for less")).await
}

fn store(error: StoreError) -> Failure {
    Refused::from(&error).into()
}
