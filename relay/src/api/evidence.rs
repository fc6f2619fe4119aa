//! `/v1/audit/session`, `/v1/evidence`: one session's part of the audit log, and what the relay signs
//! of it.
//!
//! Its law is that of all evidence: that it is read is in the log before it is answered. And nothing
//! is signed that was not checked: a recording goes into the list as far as its device signed it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::{Evidence, EvidenceRequest, LogSession, LogSessionRequest, SessionFacts};
use belay_proto::audit::Digest;
use belay_proto::error_line::one_line;
use belay_proto::evidence::{Listed, MAX_ENTRIES, Manifest, Recorded, base64, sha256};
use belay_proto::ids::SessionId;
use belay_proto::refusal::{Code, Refused};
use belay_tunnel::clock;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::recordings::{Walk, WalkError};
use crate::store::{EventKind, SessionRecord, StoreError};

pub(super) async fn log(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<LogSessionRequest>,
) -> Result<Json<LogSession>, Failure> {
    let LogSessionRequest { session, after, size } = request;
    let event = caller.actor().event(EventKind::EvidenceRead).session(session);
    let detail = format!("its entries of the audit log, behind {after}");
    api.store.record(event.detail(&detail)).await.map_err(store)?;
    match api.store.log_session(session, after, size).await.map_err(store)? {
        Some(found) => Ok(Json(found)),
        None => {
            let cause = format!("there is no log of {size} entries here yet");
            let refused = Refused::new(Code::BadRequest, cause, "ask for less");
            Err(caller.refuse(&api, refused).await)
        }
    }
}

/// Signs what makes up a bundle of a session.
pub(super) async fn bundle(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<EvidenceRequest>,
) -> Result<Json<Evidence>, Failure> {
    let id = request.session;
    let Some(session) = api.store.session(id).await.map_err(store)? else {
        let cause = format!("there was no session {id}");
        let refused = Refused::new(Code::BadRequest, cause, "belay play lists those recorded");
        return Err(caller.refuse(&api, refused).await);
    };
    let event = caller.actor().event(EventKind::EvidenceRead).session(id);
    api.store.record(event.detail("a bundle of its evidence")).await.map_err(store)?;
    // In this order: each grant is in the log then, and each end that is in the log, in the recording.
    let grants = api.store.grants(id).await.map_err(store)?;
    let newest = api.store.checkpoint_read().await.map_err(store)?;
    let (checkpoint, note) = newest.ok_or_else(|| store(StoreError::Unreadable("no log")))?;
    // Whose entry has lost its text to a rule is named by nothing any more.
    let issued = api.store.issued(id, checkpoint.size).await.map_err(store)?;
    let grants: Vec<Vec<u8>> =
        grants.into_iter().filter(|grant| issued.contains(&sha256(grant).0)).collect();
    let leaves = api.store.session_leaves(id, checkpoint.size).await.map_err(store)?;
    let leaves = leaves.ok_or_else(|| {
        let cause = format!("the session has more than {MAX_ENTRIES} entries in the audit log");
        Refused::new(Code::BadRequest, cause, "use: belay audit export")
    })?;
    let recording = recorded(&api, id).await?;
    let facts = facts(&api, session).await?;
    let digests: Vec<Digest> = grants.iter().map(|grant| sha256(grant)).collect();
    let ca = api.authority.ca();
    let manifest = Manifest {
        origin: checkpoint.origin,
        session: id,
        made: clock::now(),
        size: checkpoint.size,
        root: checkpoint.root,
        entries: Listed::of(&leaves),
        grants: Listed::of(&digests),
        recording,
        ca: sha256(ca),
        facts: sha256(facts.as_bytes()),
    };
    Ok(Json(Evidence {
        vkey: api.store.log_key().to_string(),
        manifest: api.store.sign_manifest(&manifest).map_err(store)?,
        checkpoint: note,
        ca: base64(ca),
        facts,
        grants: grants.iter().map(|grant| base64(grant)).collect(),
    }))
}

/// How far the recording goes that is there now, all of it checked.
async fn recorded(api: &Api, session: SessionId) -> Result<Option<Recorded>, Failure> {
    let (recordings, ca) = (Arc::clone(&api.recordings), api.authority.ca().clone());
    let permit = Arc::clone(&api.walks).acquire_owned().await;
    // Who waits no longer is read nothing for.
    let stop = CancellationToken::new();
    let _waits = stop.clone().drop_guard();
    let walked = spawn_blocking(move || {
        let _permit = permit;
        let Some(mut walk) = Walk::begin(&recordings, session, &ca)? else { return Ok(None) };
        while !stop.is_cancelled() && walk.next()?.is_some() {}
        Ok::<_, WalkError>(walk.recorded())
    });
    let error = match walked.await {
        Ok(Ok(recorded)) => return Ok(recorded),
        Ok(Err(error)) => one_line(&error),
        Err(error) => error.to_string(),
    };
    tracing::error!(%session, error, "a recording is not what its device signed");
    let cause =
        format!("the recording of session {session} is not what its device signed: {error}");
    let remedy = "take a copy of DATA/recordings for the auditors, and look at the relay's disk";
    Err(Refused::new(Code::Internal, cause, remedy).into())
}

async fn facts(api: &Api, session: SessionRecord) -> Result<String, Failure> {
    let user = api.store.user(session.user).await.map_err(store)?;
    let device = api.store.device_by_id(session.device).await.map_err(store)?;
    let facts = SessionFacts {
        session: session.id,
        user: session.user,
        user_name: user.map(|user| user.name),
        device: session.device,
        device_name: device.map(|device| device.name),
        login: session.login.to_string(),
        kind: session.kind,
        actions: session.actions,
        opened: session.opened,
        ends: session.ends,
        closed: session.over.as_ref().map(|over| over.at),
        why: session.over.map(|over| over.why),
        attachments: session.attachments,
        bytes_up: session.passed.up,
        bytes_down: session.passed.down,
    };
    serde_json::to_string(&facts)
        .map_err(|_| Refused::new(Code::Internal, "the session's facts do not encode", "").into())
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}
