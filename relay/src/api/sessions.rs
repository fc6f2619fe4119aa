//! `/v1/sessions`, open ones, `/v1/sessions/{session}`, one, and `/v1/sessions/all`, those that were.
//!
//! Everybody has their own, and those open ones that they may join ([`super::joinable`]); who manages
//! people or reads evidence has everybody's. That somebody reads
//! what others did is on record before they have it; what is open now is no evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use belay_proto::api::{
    Guest, Joins, MAX_SESSIONS, Session, SessionOver, SessionsPage, SessionsRequest,
};
use belay_proto::error_line::printable;
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::names::{DeviceName, UserName};
use belay_proto::policy::AdminRight;
use belay_proto::recording::End;
use belay_proto::refusal::{Code, Refused};
use tokio::task::spawn_blocking;

use super::body::Strict;
use super::{Api, Caller, Failure, joinable};
use crate::recordings::Standing;
use crate::store::{EventKind, Over, Passed, Past, SessionRecord, StoreError, Whose};

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Session>>, Failure> {
    let mut sessions = api.store.open_sessions(Whose::All).await.map_err(store)?;
    if !reads_all(&caller) {
        sessions = joinable::known(&api, &caller, sessions).await.map_err(store)?;
    }
    Ok(Json(shown(&api, sessions).await?))
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(session): Path<String>,
) -> Result<Json<Session>, Failure> {
    let unknown = |code| Refused::new(code, "there is no such session", "see: belay sessions");
    let Ok(id) = session.parse::<SessionId>() else {
        return Err(unknown(Code::BadRequest).into());
    };
    let found = api.store.session(id).await.map_err(store)?;
    let mut found: Vec<_> = found.into_iter().collect();
    if !reads_all(&caller) {
        found = joinable::known(&api, &caller, found).await.map_err(store)?;
    }
    let shown = shown(&api, found).await?.pop();
    match shown {
        Some(session) => Ok(Json(session)),
        None => Err(caller.refuse(&api, unknown(Code::SessionOver)).await),
    }
}

/// Whether this person sees other people's sessions.
pub(super) fn reads_all(caller: &Caller) -> bool {
    caller.may(AdminRight::ManageUsers) || caller.may(AdminRight::ReadEvidence)
}

pub(super) async fn all(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<SessionsRequest>,
) -> Result<Json<SessionsPage>, Failure> {
    if request.count == 0 || request.count > MAX_SESSIONS {
        let cause = format!("sessions are read 1 to {MAX_SESSIONS} at a time");
        let refused = Refused::new(Code::BadRequest, cause, "ask for less");
        return Err(caller.refuse(&api, refused).await);
    }
    if reads_all(&caller) {
        let event = caller.actor().event(EventKind::EvidenceRead);
        api.store.record(event.detail(&reading(&request))).await.map_err(store)?;
    }
    let Some(past) = past(&api, &caller, &request).await? else {
        return Ok(Json(SessionsPage { sessions: Vec::new(), more: false }));
    };
    // One more tells whether there are more.
    let mut found =
        api.store.past_sessions(past, request.count.saturating_add(1)).await.map_err(store)?;
    let count = usize::try_from(request.count).unwrap_or(usize::MAX);
    let more = found.len() > count;
    found.truncate(count);
    Ok(Json(SessionsPage { sessions: shown(&api, found).await?, more }))
}

/// What is read, for the record.
fn reading(request: &SessionsRequest) -> String {
    let mut what = "the list of sessions".to_owned();
    let parts = [("user", &request.user), ("device", &request.device), ("login", &request.login)];
    for (part, value) in parts {
        if let Some(value) = value {
            what.push_str(&format!(", {part} {value}"));
        }
    }
    if let Some(since) = request.since {
        what.push_str(&format!(", since {}", crate::span::date(since)));
    }
    if let Some(before) = request.before {
        what.push_str(&format!(", before {before}"));
    }
    printable(&what)
}

/// What is asked for, in the store's words; `None` where nothing can be found: a name nobody has, or
/// somebody else's sessions for who has only their own.
async fn past(
    api: &Api,
    caller: &Caller,
    request: &SessionsRequest,
) -> Result<Option<Past>, Failure> {
    let mut past = Past { since: request.since, before: request.before, ..Past::default() };
    if let Some(user) = &request.user {
        let users = api.store.users().await.map_err(store)?;
        let Some(found) = users.into_iter().find(|one| one.name.as_str() == user) else {
            return Ok(None);
        };
        past.user = Some(found.id);
    }
    if !reads_all(caller) {
        if past.user.is_some_and(|user| user != caller.user.id) {
            return Ok(None);
        }
        past.user = Some(caller.user.id);
    }
    if let Some(device) = &request.device {
        let found = api.store.device_by_name_or_id(device).await.map_err(store)?;
        let Some(found) = found else { return Ok(None) };
        past.device = Some(found.id);
    }
    if let Some(login) = &request.login {
        let Ok(login) = login.parse() else { return Ok(None) };
        past.login = Some(login);
    }
    Ok(Some(past))
}

/// As the interface shows them.
async fn shown(api: &Arc<Api>, sessions: Vec<SessionRecord>) -> Result<Vec<Session>, Failure> {
    // Their own, and whoever looks on.
    let users = api.store.users().await.map_err(store)?;
    let users: BTreeMap<_, _> = users.into_iter().map(|user| (user.id, user.name)).collect();
    let devices = device_names(api, &sessions).await?;
    let guests = guests(api, &sessions, &users).await?;
    let recordings = Arc::clone(&api.recordings);
    let looking = spawn_blocking(move || {
        let with = sessions.into_iter().map(|session| {
            let standing = recordings.standing(session.id);
            (session, standing.map_err(|error| error.to_string()))
        });
        with.collect::<Vec<_>>()
    });
    let looked = looking.await.map_err(|error| {
        tracing::error!(%error, "recordings cannot be looked at");
        Refused::new(Code::Internal, "sessions cannot be listed", "look at the relay's log")
    })?;
    let shown = looked.into_iter().filter_map(|(session, standing)| {
        let guests = guests.get(&session.id).cloned().unwrap_or_default();
        show(api, session, recording(standing), (&users, &devices), guests)
    });
    Ok(shown.collect())
}

/// Who has joined which of these sessions.
async fn guests(
    api: &Api,
    sessions: &[SessionRecord],
    users: &BTreeMap<UserId, UserName>,
) -> Result<BTreeMap<SessionId, Vec<Guest>>, Failure> {
    let wanted: BTreeSet<_> = sessions.iter().map(|session| session.id).collect();
    let mut guests: BTreeMap<SessionId, Vec<Guest>> = BTreeMap::new();
    for guest in api.store.open_sessions(Whose::Joining).await.map_err(store)? {
        let Some((join, user)) = guest.joins.zip(users.get(&guest.user)) else { continue };
        if wanted.contains(&join.session) {
            let may_type = join.may_type();
            let guest = Guest { user: user.clone(), session: guest.id, may_type };
            guests.entry(join.session).or_default().push(guest);
        }
    }
    Ok(guests)
}

/// Devices looked up one by one; of more the whole list is read.
const ONE_BY_ONE: usize = 64;

async fn device_names(
    api: &Api,
    sessions: &[SessionRecord],
) -> Result<BTreeMap<DeviceId, DeviceName>, Failure> {
    let wanted: BTreeSet<_> = sessions.iter().map(|session| session.device).collect();
    if wanted.len() > ONE_BY_ONE {
        return Ok(api.store.device_names().await.map_err(store)?);
    }
    let mut names = BTreeMap::new();
    for id in wanted {
        let found = api.store.device_by_id(id).await.map_err(store)?;
        names.extend(found.map(|device| (id, device.name)));
    }
    Ok(names)
}

type Names<'a> = (&'a BTreeMap<UserId, UserName>, &'a BTreeMap<DeviceId, DeviceName>);

fn show(
    api: &Api,
    session: SessionRecord,
    recording: String,
    (users, devices): Names<'_>,
    joined_by: Vec<Guest>,
) -> Option<Session> {
    let live = api.presence.attached(session.id);
    let Passed { up, down } = live.unwrap_or_default();
    let is_over = session.over.is_some();
    let watched_by = if is_over { Vec::new() } else { api.recordings.watching.by(session.id) };
    Some(Session {
        id: session.id,
        user: users.get(&session.user)?.clone(),
        device: devices.get(&session.device)?.clone(),
        login: session.login.to_string(),
        kind: session.kind,
        opened: session.opened,
        ends: session.ends,
        attached: live.is_some(),
        attachments: session.attachments,
        bytes_up: session.passed.up.saturating_add(up),
        bytes_down: session.passed.down.saturating_add(down),
        over: session.over.map(|Over { at, why }| SessionOver { at, why }),
        ending: session.killed.filter(|_| !is_over),
        device_online: Some(api.presence.holds_line(session.device)),
        recording: Some(recording),
        break_glass: session.break_glass,
        watched_by: watched_by.iter().filter_map(|who| users.get(who).cloned()).collect(),
        joins: session.joins.map(|join| Joins { session: join.session, may_type: join.may_type() }),
        joined_by,
    })
}

/// A recording's state in a word.
fn recording(standing: Result<Option<Standing>, String>) -> String {
    let word = match standing {
        Ok(None) => "none",
        Ok(Some(Standing { end: Some(End::Whole), .. })) => "whole",
        Ok(Some(Standing { end: Some(End::Cut), .. })) => "cut",
        Ok(Some(Standing { end: None, .. })) => "unfinished",
        Err(error) => {
            tracing::warn!(error, "a recording cannot be read");
            "unreadable"
        }
    };
    word.to_owned()
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}
