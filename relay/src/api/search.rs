//! `/v1/search`: which recordings show a text, and which are sealed. What was asked is in the log before it is
//! answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::{
    MAX_SEALED_PAGE, MAX_SEARCH_HITS, MAX_SEARCH_TEXT, SealedPage, SealedRecording, SealedRequest,
    SearchAnswer, SearchHit, SearchRequest,
};
use belay_proto::error_line::{one_line, printable};
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::names::{DeviceName, UserName};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::search::{Asked, Found, Hit, Sealed, SearchError};
use crate::store::{EventKind, StoreError};

/// Others have their turn by then, or the index is further.
const AGAIN: Duration = Duration::from_secs(1);

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
    let found = api.search.find(&asked).await.map_err(refused)?;
    Ok(Json(shown(&api, found).await?))
}

pub(super) async fn sealed(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<SealedRequest>,
) -> Result<Json<SealedPage>, Failure> {
    let SealedRequest { after, count } = request;
    if count == 0 || count > MAX_SEALED_PAGE {
        let cause = format!("there are 1 to {MAX_SEALED_PAGE} recordings at a time");
        let refused = Refused::new(Code::BadRequest, cause, "ask for something else");
        return Err(caller.refuse(&api, refused).await);
    }
    let event = caller.actor().event(EventKind::EvidenceRead);
    api.store.record(event.detail("the list of sealed recordings")).await.map_err(store)?;
    let mut found = api.search.sealed(after, count + 1).await.map_err(refused)?;
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let more = found.len() > most;
    found.truncate(most);
    let names = Names::of(&api).await?;
    let recordings = found.into_iter().map(|sealed| {
        let Sealed { session, user, device, login, bytes } = sealed;
        let device_id = device.as_deref().and_then(DeviceId::from_slice);
        let (user, device) = (names.user(user.as_deref()), names.device(device.as_deref()));
        SealedRecording { session, user, device, device_id, login, bytes }
    });
    Ok(Json(SealedPage { recordings: recordings.collect(), more }))
}

fn refused(error: SearchError) -> Refused {
    let line = one_line(&error);
    match error {
        SearchError::NotYet | SearchError::Busy => {
            Refused::new(Code::Busy, line, "try again in a moment").retry_after(AGAIN)
        }
        SearchError::Index(_) => {
            tracing::error!(error = line, "a search failed");
            let cause = "the search index cannot be read";
            Refused::new(Code::Internal, cause, "ask the relay's operator to look at its log")
        }
    }
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

/// Everybody's and every device's name.
struct Names {
    users: BTreeMap<UserId, UserName>,
    devices: BTreeMap<DeviceId, DeviceName>,
}

impl Names {
    async fn of(api: &Api) -> Result<Self, Refused> {
        let users = api.store.users().await.map_err(store)?;
        let devices = api.store.device_names().await.map_err(store)?;
        Ok(Self { users: users.into_iter().map(|user| (user.id, user.name)).collect(), devices })
    }

    fn user(&self, id: Option<&[u8]>) -> Option<UserName> {
        self.users.get(&UserId::from_slice(id?)?).cloned()
    }

    fn device(&self, id: Option<&[u8]>) -> Option<DeviceName> {
        self.devices.get(&DeviceId::from_slice(id?)?).cloned()
    }
}

async fn shown(api: &Api, found: Found) -> Result<SearchAnswer, Failure> {
    let names = Names::of(api).await?;
    let Found { hits, complete, searched, cut, sealed, damaged, waiting, growing } = found;
    let hits = hits.into_iter().map(|hit| {
        let Hit { session, user, device, login, track, at_ms, offset_ms, kind, line, command } =
            hit;
        SearchHit {
            session,
            user: names.user(user.as_deref()),
            device: names.device(device.as_deref()),
            login,
            track,
            at: UnixTime(at_ms / 1000),
            offset_ms,
            kind: kind.to_owned(),
            line: printable(&line),
            command: command.map(|command| printable(&command)),
        }
    });
    Ok(SearchAnswer {
        hits: hits.collect(),
        complete,
        searched,
        waiting,
        growing,
        sealed,
        damaged,
        cut,
    })
}
