//! `/v1/holds`, and the deletion of a recording: what must stay, and what goes before its time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use belay_proto::api::{Hold, HoldRelease, HoldRequest, MAX_REASON, Reason, RecordingDeleted};
use belay_proto::error_line::{one_line, printable};
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::names::{DeviceName, UserName};
use belay_proto::refusal::{Code, Refused};

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::retention::{self, DeleteError};
use crate::span::date;
use crate::store::{
    BuryError, EventKind, HoldError, HoldRecord, NewHold, StoreError, Target, Tombstone,
};

pub(super) async fn holds(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Hold>>, Failure> {
    let event = caller.actor().event(EventKind::EvidenceRead).detail("the list of holds");
    api.store.record(event).await.map_err(store)?;
    let holds = api.store.holds().await.map_err(store)?;
    let names = Names::load(&api).await?;
    Ok(Json(holds.into_iter().map(|hold| names.show(hold)).collect()))
}

pub(super) async fn hold(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<HoldRequest>,
) -> Result<Json<Hold>, Failure> {
    let HoldRequest { session, device, user, reason } = request;
    let wanted = match (session, device, user) {
        (Some(session), None, None) => Ok(NewHold::Session(session)),
        (None, Some(device), None) => Ok(NewHold::Device(device)),
        (None, None, Some(user)) => Ok(NewHold::User(user)),
        _ => {
            let cause = "a hold is on one session, or one device, or one person";
            Err(Refused::new(Code::BadRequest, cause, "name one of them"))
        }
    };
    let asked = wanted.and_then(|wanted| Ok((wanted, checked(&reason)?)));
    let (wanted, reason) = match asked {
        Ok(asked) => asked,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let placed = api.store.place_hold(wanted, reason, caller.actor()).await;
    answer(&api, &caller, placed).await
}

pub(super) async fn release(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(hold): Path<String>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Result<Json<Hold>, Failure> {
    let number = hold.parse::<u64>().map_err(|_| {
        let cause = format!("\"{}\" is no hold's number", printable(&hold));
        Refused::new(Code::BadRequest, cause, "belay hold list shows them")
    });
    let asked = number.and_then(|number| Ok((number, checked(&reason)?)));
    let (number, reason) = match asked {
        Ok(asked) => asked,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let released = api.store.release_hold(number, reason, caller.actor()).await;
    answer(&api, &caller, released).await
}

async fn answer(
    api: &Api,
    caller: &Caller,
    done: Result<HoldRecord, HoldError>,
) -> Result<Json<Hold>, Failure> {
    match done {
        Ok(hold) => Ok(Json(Names::load(api).await?.show(hold))),
        Err(error @ HoldError::Store(_)) => Err(Refused::from(&error).into()),
        Err(error) => Err(caller.refuse(api, Refused::from(&error)).await),
    }
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(session): Path<String>,
    Strict(Reason { reason }): Strict<Reason>,
) -> Result<Json<RecordingDeleted>, Failure> {
    let session = session.parse::<SessionId>().map_err(|_| {
        let cause = format!("\"{}\" is no session's id", printable(&session));
        Refused::new(Code::BadRequest, cause, "belay play lists those that were recorded")
    });
    let asked = session.and_then(|session| Ok((session, checked(&reason)?)));
    let (session, reason) = match asked {
        Ok(asked) => asked,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let why = format!("before its time, by {}: {reason}", caller.user.name);
    let by = Some(caller.actor());
    let error = match retention::delete(&api.store, &api.recordings, session, why, by).await {
        Ok(tombstone) => return Ok(Json(show(&tombstone))),
        Err(error) => error,
    };
    Err(match error {
        DeleteError::None(_) => match api.store.tombstone(session).await.map_err(store)? {
            Some(tombstone) => gone(&tombstone),
            None => {
                let remedy = "belay play lists those there are";
                caller.refuse(&api, Refused::new(Code::BadRequest, error.to_string(), remedy)).await
            }
        },
        DeleteError::UnderWay(_) => {
            Refused::new(Code::Busy, error.to_string(), "see whether it is gone in a moment").into()
        }
        DeleteError::Bury(BuryError::Store(error)) => store(error).into(),
        DeleteError::Bury(error) => caller.refuse(&api, Refused::from(&error)).await,
        DeleteError::Disk(..) => {
            tracing::error!(error = %one_line(&error), "a recording was not deleted");
            let remedy = "ask the relay's operator to look at its log; it is tried again by itself";
            Refused::new(Code::Internal, error.to_string(), remedy).into()
        }
    })
}

/// A recording that is not there any more: when it went and why (RFC 9110 §15.5.11).
pub(super) fn gone(tombstone: &Tombstone) -> Failure {
    let Tombstone { session, at, why, .. } = tombstone;
    let what = tombstone.detail();
    let what = what.split(';').next().unwrap_or_default();
    let cause = format!(
        "the recording of session {session} was deleted on {} {why}; it had: {what}",
        date(*at)
    );
    let remedy = "its tombstone is in the audit log: recording-deleted";
    Failure::with(StatusCode::GONE, Refused::new(Code::BadRequest, cause, remedy))
}

fn show(tombstone: &Tombstone) -> RecordingDeleted {
    RecordingDeleted {
        session: tombstone.session,
        at: tombstone.at,
        why: tombstone.why.clone(),
        last_segment: tombstone.last,
        head: tombstone.head_hex(),
        bytes: tombstone.bytes,
        state: tombstone.state.clone(),
    }
}

/// A reason that can stand in the record.
fn checked(reason: &str) -> Result<String, Refused> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON {
        let cause = format!("a reason has 1 to {MAX_REASON} bytes");
        return Err(Refused::new(Code::BadRequest, cause, "say why, in one line"));
    }
    Ok(printable(reason))
}

/// What ids are called now.
struct Names {
    users: BTreeMap<UserId, UserName>,
    devices: BTreeMap<DeviceId, DeviceName>,
}

impl Names {
    async fn load(api: &Api) -> Result<Self, Refused> {
        let users = api.store.users().await.map_err(store)?;
        let devices = api.store.device_names().await.map_err(store)?;
        Ok(Self { users: users.into_iter().map(|user| (user.id, user.name)).collect(), devices })
    }

    fn show(&self, hold: HoldRecord) -> Hold {
        let (what, target, name) = match hold.target {
            Target::Session(id) => ("session", id.to_string(), None),
            Target::Device(id) => {
                ("device", id.to_string(), self.devices.get(&id).map(ToString::to_string))
            }
            Target::User(id) => {
                ("user", id.to_string(), self.users.get(&id).map(ToString::to_string))
            }
        };
        Hold {
            id: hold.id,
            what: what.to_owned(),
            target,
            name,
            reason: hold.reason,
            placed: hold.placed,
            placed_by: self.users.get(&hold.placed_by).cloned(),
            released: hold.released.map(|(at, by, reason)| HoldRelease {
                at,
                by: self.users.get(&by).cloned(),
                reason,
            }),
        }
    }
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}
