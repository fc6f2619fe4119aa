//! A new session.

use std::sync::Arc;

use belay_proto::ids::SessionId;
use belay_proto::limits::{DELIVER_DEADLINE, SESSION_MAX};
use belay_proto::names::Login;
use belay_proto::policy::BreakGlass;
use belay_proto::recording::Policy;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Ended;
use belay_proto::wire::open::{Join, Open};
use belay_tunnel::clock;
use tokio::time::{Instant, timeout_at};

use super::super::Shared;
use super::super::registry::LiveDevice;
use super::deliver::{Delivered, NotTaken, Which, deliver};
use super::early::Early;
use super::{Caller, Taken, join, judge};
use crate::store::{
    DeviceRecord, Event, EventKind, OpenSessionError, Passed, SessionRecord, UserRecord,
};

/// Decides, records, delivers. `event` learns what a refusal's record should name.
pub(super) async fn open(
    open: &Open,
    caller: &Caller,
    shared: &Arc<Shared>,
    (id, early): (SessionId, &mut Early),
    event: &mut Event,
) -> Result<Taken, Refused> {
    let glass = judge::break_glass(open)?;
    let glass = glass.as_ref().map(BreakGlass::as_str);
    let (user, planned) = match &open.join {
        None => own(open, caller, shared, (event, glass)).await?,
        Some(join) => {
            let user = judge::person(shared, caller.user.id).await?;
            let planned = join::planned(open, join, &user, shared, (event, glass)).await?;
            (user, planned)
        }
    };
    let Planned { record, login, kind, actions, joins } = planned;
    let line = shared.registry.device(record.id).ok_or_else(|| judge::offline(&record))?;
    let bounds = (shared.limits.sessions_per_device, shared.limits.sessions_per_user);
    let (guard, _) = shared
        .registry
        .attach((id, user.id, record.id), bounds)
        .map_err(|full| judge::too_many(full, &record))?;
    let now = clock::now();
    let session = SessionRecord {
        id,
        user: user.id,
        device: record.id,
        login,
        kind,
        actions,
        opened: now,
        ends: now.plus(SESSION_MAX),
        over: None,
        attachments: 1,
        stream: 0,
        passed: Passed::default(),
        killed: None,
        break_glass: glass.map(str::to_owned),
        joins,
    };
    able(&line, &record, &session, shared)?;
    recorded(&session, &user, caller, shared).await?.map_err(|error| match error {
        OpenSessionError::DeviceFull => Refused::new(
            Code::Busy,
            format!("{} has all the sessions it takes, with and without a client", record.name),
            "end one: belay sessions lists them",
        ),
        OpenSessionError::Store(error) => judge::store(error),
    })?;
    if let Some(reason) = glass {
        let login = &session.login;
        tracing::warn!(
            session = %id, user = %user.name, device = %record.name, %login, reason,
            "glass broken: this session need not be recorded"
        );
    }
    // A change that came before the record was there has not looked at this session.
    let (user, record) = judge::still_allowed(shared, &session).await?;
    let (line, (to_device, from_device, opened)) =
        delivered(line, &session, (&user, &record), early, shared).await?;
    let login = &session.login;
    tracing::info!(session = %id, user = %user.name, device = %record.name, %login, "session open");
    Ok(Taken { session, guard, line, to_device, from_device, opened, again: false })
}

/// Whether the agent on this line can do what the session asks of it.
fn able(
    line: &LiveDevice,
    record: &DeviceRecord,
    session: &SessionRecord,
    shared: &Shared,
) -> Result<(), Refused> {
    if shared.limits.recording == Policy::Required && session.break_glass.is_none() {
        judge::recordable(line, record, &shared.limits)?;
    }
    if session.joins.is_some() && !line.able.joins {
        return Err(Refused::new(
            Code::DeviceRefused,
            format!("the agent of {} cannot let anybody join a session", record.name),
            "upgrade it",
        ));
    }
    Ok(())
}

/// What is to be opened, if everything else allows it.
pub(super) struct Planned {
    pub(super) record: DeviceRecord,
    pub(super) login: Login,
    pub(super) kind: String,
    /// By [`belay_proto::policy::Action::token`].
    pub(super) actions: Vec<String>,
    pub(super) joins: Option<Join>,
}

/// A session of its own.
async fn own(
    open: &Open,
    caller: &Caller,
    shared: &Shared,
    (event, glass): (&mut Event, Option<&str>),
) -> Result<(UserRecord, Planned), Refused> {
    let missing = |what| Refused::new(Code::BadRequest, format!("no {what} named"), "name one");
    let wanted = open.device.as_deref().ok_or_else(|| missing("device"))?;
    let login = open.login.clone().ok_or_else(|| missing("login"))?;
    let kind = open.kind.clone().ok_or_else(|| missing("session kind"))?;
    let user = judge::person(shared, caller.user.id).await?;
    let record = judge::device(shared, wanted, &user).await?;
    *event = event.clone().device(record.id);
    let allowed = judge::permitted(&user, &record, &kind, &login, glass)?;
    let actions = allowed.actions().iter().map(|action| action.token().to_owned()).collect();
    Ok((user, Planned { record, login, kind, actions, joins: None }))
}

/// Records that it is opened, and in the record of the session it joins, that it does.
async fn recorded(
    session: &SessionRecord,
    user: &UserRecord,
    caller: &Caller,
    shared: &Shared,
) -> Result<Result<(), OpenSessionError>, Refused> {
    let opening = session.event(EventKind::SessionOpened).source(caller.address);
    let detail = format!("{}: {}", session.kind, session.actions.join(" "));
    let Some(joins) = &session.joins else {
        return Ok(shared.store.open_session(session.clone(), opening.detail(&detail)).await);
    };
    let host = join::host_name(joins, shared).await?;
    let detail = format!("{detail}; session {} of {host}: {}", joins.session, join::words(joins));
    let joined = join::event(session, joins, (&host, &user.name), caller);
    Ok(shared.store.join_session(session.clone(), opening.detail(&detail), joined).await)
}

/// Hands the session over; once more, when the line was a dead one and the device is back on another
/// in time. What it answered on the first may be what was lost: then it has the session.
async fn delivered(
    line: Arc<LiveDevice>,
    session: &SessionRecord,
    who: (&UserRecord, &DeviceRecord),
    early: &mut Early,
    shared: &Shared,
) -> Result<(Arc<LiveDevice>, Delivered), Refused> {
    let deadline = Instant::now() + DELIVER_DEADLINE;
    let first = tokio::select! {
        first = deliver(&line, session, who, Which::First, early, shared) => Some(first),
        _ = shared.registry.newer_line(&line) => None,
    };
    match first {
        Some(Ok(delivered)) => return Ok((line, delivered)),
        Some(Err(NotTaken::Silent(refused))) => {
            let back = timeout_at(deadline, shared.registry.newer_line(&line)).await.is_ok();
            if !back {
                line.end_session(Ended { session: session.id, reason: refused.clone() });
                return Err(refused);
            }
        }
        Some(Err(not)) => return Err(not.into_refusal()),
        None => {}
    }
    let line = shared.registry.newer_line(&line).await;
    // Another agent may hold it, which can less.
    able(&line, who.1, session, shared).inspect_err(|refused| {
        // It may have the session from the line before.
        line.end_session(Ended { session: session.id, reason: refused.clone() });
    })?;
    let again = match deliver(&line, session, who, Which::First, early, shared).await {
        Err(NotTaken::Refused(refused)) if refused.code() == Code::BadGrant => {
            deliver(&line, session, who, Which::Same, early, shared).await
        }
        again => again,
    };
    again.map(|delivered| (line, delivered)).map_err(NotTaken::into_refusal)
}
