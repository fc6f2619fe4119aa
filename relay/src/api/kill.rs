//! `/v1/sessions/{session}/kill`: ending a session for good.
//!
//! Its law: who and why is on record before anything ends. What it is not: it ends nothing itself;
//! whoever holds the session hears of the record (`line/revoke`), and a relay that was killed between
//! the two finds it at its start.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use belay_proto::api::{KillRequest, Killed, MAX_REASON};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use belay_proto::policy::AdminRight;
use belay_proto::refusal::{Code, Refused};

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::store::{EventKind, SessionRecord, StoreError};

pub(super) async fn kill(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(session): Path<String>,
    Strict(request): Strict<KillRequest>,
) -> Result<Json<Killed>, Failure> {
    let reason = match reason(&request) {
        Ok(reason) => reason,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let session = found(&api, &caller, &session).await?;
    let user = api.store.user(session.user).await.map_err(store)?;
    let device = api.store.device_by_id(session.device).await.map_err(store)?;
    let (Some(user), Some(device)) = (user, device) else {
        return Err(store(StoreError::Unreadable("a session")).into());
    };
    let line = format!("{} ended this session: {reason}", caller.user.name);
    let event = caller
        .actor()
        .event(EventKind::SessionKilled)
        .session(session.id)
        .device(session.device)
        .login(session.login.clone())
        .detail(&format!("of {}: {reason}", user.name));
    if !api.store.kill_session(session.id, line, event).await.map_err(store)? {
        // It ended, or somebody else was first, since it was looked at.
        let now = api.store.session(session.id).await.map_err(store)?;
        let refused = now.as_ref().and_then(over).unwrap_or_else(unknown);
        return Err(caller.refuse(&api, refused).await);
    }
    tracing::info!(session = %session.id, by = %caller.user.name, "session killed");
    Ok(Json(Killed {
        session: session.id,
        user: user.name,
        device: device.name,
        login: session.login.to_string(),
        device_online: api.presence.holds_line(session.device),
    }))
}

/// Why, as it is recorded and told.
fn reason(request: &KillRequest) -> Result<String, Refused> {
    let reason = request.reason.trim();
    let no = |cause: String| Refused::new(Code::BadRequest, cause, "say why in one line");
    if reason.is_empty() {
        return Err(no("a session is ended for a reason, and there is none".to_owned()));
    }
    if reason.len() > MAX_REASON {
        return Err(no(format!("the reason is longer than {MAX_REASON} bytes")));
    }
    Ok(printable(reason))
}

/// The session, when this person may end it and it is open. Who may not know of it is told the same
/// as if it had never been.
async fn found(api: &Api, caller: &Caller, wanted: &str) -> Result<SessionRecord, Failure> {
    let session = match wanted.parse::<SessionId>() {
        Ok(id) => api.store.session(id).await.map_err(store)?,
        Err(_) => None,
    };
    let own = |session: &SessionRecord| session.user == caller.user.id;
    let ends_any = caller.may(AdminRight::EndSession);
    let knows_all = ends_any || caller.may(AdminRight::ReadEvidence);
    let Some(session) = session.filter(|session| own(session) || knows_all) else {
        return Err(caller.refuse(api, unknown()).await);
    };
    let refused = if own(&session) || ends_any {
        over(&session)
    } else {
        let cause = format!(
            "the session is another's, and none of your roles has the right {}",
            AdminRight::EndSession.token()
        );
        Some(Refused::new(Code::NotAllowed, cause, "ask an administrator"))
    };
    match refused {
        Some(refused) => Err(caller.refuse(api, refused).await),
        None => Ok(session),
    }
}

fn unknown() -> Refused {
    Refused::new(Code::SessionOver, "there is no such session", "see: belay sessions")
}

/// What is said of a session that has ended or been killed.
fn over(session: &SessionRecord) -> Option<Refused> {
    let why = session.over.as_ref().map(|over| &over.why).or(session.killed.as_ref())?;
    Some(Refused::new(Code::SessionOver, format!("the session is over: {why}"), ""))
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}
