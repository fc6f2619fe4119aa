//! `/v1/recordings`: what auditors read. That they read it is on the record before they have it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use belay_proto::api::Recording;
use belay_proto::ids::SessionId;
use belay_proto::recording::End;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use tokio::task::spawn_blocking;

use super::{Api, Caller, Failure};
use crate::store::{EventKind, StoreError};

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Recording>>, Failure> {
    let event = caller.actor().event(EventKind::EvidenceRead).detail("the list of recordings");
    api.store.record(event).await.map_err(store)?;
    let recordings = Arc::clone(&api.recordings);
    let standings = read(spawn_blocking(move || recordings.list()).await)?;
    let users = api.store.users().await.map_err(store)?;
    let users: BTreeMap<_, _> = users.into_iter().map(|user| (user.id, user.name)).collect();
    let devices = api.store.device_names().await.map_err(store)?;
    let mut list = Vec::with_capacity(standings.len());
    for standing in standings {
        let session = api.store.session(standing.session).await.map_err(store)?;
        let of = session.as_ref();
        list.push(Recording {
            session: standing.session,
            user: of.and_then(|of| users.get(&of.user).cloned()),
            device: of.and_then(|of| devices.get(&of.device).cloned()),
            login: of.map(|of| of.login.to_string()),
            opened: of.map(|of| of.opened),
            last: UnixTime(standing.last_ms / 1000),
            segments: standing.last.map_or(0, |last| last.saturating_add(1)),
            bytes: standing.bytes,
            state: match standing.end {
                Some(End::Whole) => "whole",
                Some(End::Cut) => "cut",
                None => "unfinished",
            }
            .to_owned(),
        });
    }
    Ok(Json(list))
}

pub(super) async fn page(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((session, from)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let none = || {
        let cause = format!("there is no recording of session {session}");
        Refused::new(Code::BadRequest, cause, "belay play lists those there are")
    };
    let (Ok(id), Ok(from)) = (session.parse::<SessionId>(), from.parse::<u64>()) else {
        return Err(none().into());
    };
    let event = caller.actor().event(EventKind::EvidenceRead).session(id);
    let event = event.detail(&format!("its recording, from byte {from}"));
    api.store.record(event).await.map_err(store)?;
    let recordings = Arc::clone(&api.recordings);
    let page = read(spawn_blocking(move || recordings.page(id, from)).await)?;
    let Some(bytes) = page else {
        return Err(match api.store.tombstone(id).await.map_err(store)? {
            Some(tombstone) => super::retention::gone(&tombstone),
            None => none().into(),
        });
    };
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// What the disk gave.
pub(super) fn read<T>(read: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Failure> {
    let error = match read {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(error, "a recording cannot be read");
    Err(Refused::new(Code::Internal, "a recording cannot be read", "look at the relay's log")
        .into())
}
