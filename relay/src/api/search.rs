//! `/v1/search`: which recordings show a text. What was asked is in the log before it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::{MAX_SEARCH_HITS, MAX_SEARCH_TEXT, SearchAnswer, SearchHit, SearchRequest};
use belay_proto::error_line::{one_line, printable};
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::names::{DeviceName, UserName};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::search::{Asked, Found, Hit, SearchError};
use crate::store::{EventKind, StoreError};

pub(super) async fn search(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<SearchRequest>,
) -> Result<Json<SearchAnswer>, Failure> {
    let asked = match asked(&api, &request).await {
        Ok(asked) => asked,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let event = caller.actor().event(EventKind::EvidenceRead).detail(&recorded(&request));
    api.store.record(event).await.map_err(store)?;
    let found = api.search.find(&asked).await.map_err(|error| {
        let line = one_line(&error);
        match error {
            SearchError::NotYet | SearchError::Busy => {
                Refused::new(Code::Busy, line, "try again in a moment")
            }
            SearchError::Index(_) => {
                tracing::error!(error = line, "a search failed");
                let cause = "the search index cannot be read";
                Refused::new(Code::Internal, cause, "ask the relay's operator to look at its log")
            }
        }
    })?;
    Ok(Json(shown(&api, found).await?))
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}

/// What stands in the log.
fn recorded(request: &SearchRequest) -> String {
    let mut text = format!("a search of recordings for \"{}\"", request.text);
    if let Some(device) = &request.device {
        text.push_str(&format!(", on {device}"));
    }
    if let Some(user) = &request.user {
        text.push_str(&format!(", of {user}"));
    }
    if let Some(since) = request.since {
        text.push_str(&format!(", since {}", since.0));
    }
    text
}

async fn asked(api: &Api, request: &SearchRequest) -> Result<Asked, Refused> {
    let bad = |cause: String| Refused::new(Code::BadRequest, cause, "ask for something else");
    let text = &request.text;
    if text.trim().is_empty() || text.len() > MAX_SEARCH_TEXT || text.contains('\n') {
        return Err(bad(format!(
            "a text to search for has 1 to {MAX_SEARCH_TEXT} bytes, in one line"
        )));
    }
    if request.limit == 0 || request.limit > MAX_SEARCH_HITS {
        return Err(bad(format!("a search gives 1 to {MAX_SEARCH_HITS} lines at a time")));
    }
    let device = match &request.device {
        Some(wanted) => {
            let device = api.store.device_by_name_or_id(wanted).await.map_err(store)?;
            let device = device.ok_or_else(|| bad(format!("there is no device \"{wanted}\"")))?;
            Some(device.id.as_bytes().to_vec())
        }
        None => None,
    };
    let user = match &request.user {
        Some(wanted) => {
            let users = api.store.users().await.map_err(store)?;
            let user = users.into_iter().find(|user| user.name.as_str() == wanted);
            let user = user.ok_or_else(|| bad(format!("there is no person \"{wanted}\"")))?;
            Some(user.id.as_bytes().to_vec())
        }
        None => None,
    };
    Ok(Asked {
        text: text.clone(),
        since_ms: request.since.map_or(0, |since| since.0.saturating_mul(1000)),
        device,
        user,
        limit: usize::try_from(request.limit).unwrap_or(1),
    })
}

async fn shown(api: &Api, found: Found) -> Result<SearchAnswer, Failure> {
    let users = api.store.users().await.map_err(store)?;
    let users: BTreeMap<UserId, UserName> =
        users.into_iter().map(|user| (user.id, user.name)).collect();
    let devices = api.store.devices().await.map_err(store)?;
    let devices: BTreeMap<DeviceId, DeviceName> =
        devices.into_iter().map(|device| (device.id, device.name)).collect();
    let Found { hits, complete, searched, cut, sealed, damaged, waiting } = found;
    let hits = hits.into_iter().map(|hit| {
        let Hit { session, user, device, login, track, at_ms, offset_ms, kind, line, command } =
            hit;
        let user = user.and_then(|id| UserId::from_slice(&id));
        let device = device.and_then(|id| DeviceId::from_slice(&id));
        SearchHit {
            session,
            user: user.and_then(|id| users.get(&id).cloned()),
            device: device.and_then(|id| devices.get(&id).cloned()),
            login,
            track,
            at: UnixTime(at_ms / 1000),
            offset_ms,
            kind: kind.to_owned(),
            line: printable(&line),
            command: command.map(|command| printable(&command)),
        }
    });
    Ok(SearchAnswer { hits: hits.collect(), complete, searched, waiting, sealed, damaged, cut })
}
