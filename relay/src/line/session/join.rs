//! A new session that joins a terminal of another one.
//!
//! Who may have a shell with that login on that device may join: they could see and do all of it by
//! themselves. Whoever may not know of the session is told the same as if there were none. What it is
//! not: which of its terminals there are the device knows, and who is in them.

use belay_proto::names::UserName;
use belay_proto::policy::{Action, AdminRight};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Join, Open, kind};

use super::super::Shared;
use super::open::Planned;
use super::{Caller, judge, resume};
use crate::store::{Event, EventKind, SessionRecord, UserRecord};

/// What would be opened, if this person may join.
pub(super) async fn planned(
    open: &Open,
    join: &Join,
    user: &UserRecord,
    shared: &Shared,
    (event, glass): (&mut Event, Option<&str>),
) -> Result<Planned, Refused> {
    let unknown = || {
        let cause = "there is no such session that you may see";
        Refused::new(Code::SessionOver, cause, "see: belay sessions")
    };
    let host = shared.store.session(join.session).await.map_err(judge::store)?;
    let host = host.ok_or_else(unknown)?;
    let record = shared.store.device_by_id(host.device).await.map_err(judge::store)?;
    let record = record.ok_or_else(unknown)?;
    let decided = judge::decided(user, &record, &host.kind, &host.login, false);
    let may_join = decided.as_ref().is_ok_and(|allowed| allowed.may_join());
    if host.user != user.id && !may_join && !reads_all(user) {
        return Err(unknown());
    }
    *event = event.clone().device(host.device).login(host.login.clone());
    if let Some(why) = host.over.as_ref().map(|over| &over.why).or(host.killed.as_ref()) {
        let cause = format!("the session is over: {why}");
        return Err(Refused::new(Code::SessionOver, cause, "see: belay sessions"));
    }
    resume::same(open, &host, shared).await?;
    if host.kind != kind::SSH {
        return Err(Refused::new(Code::BadRequest, "the session has no terminals", ""));
    }
    if let Some(other) = &host.joins {
        return Err(Refused::new(
            Code::BadRequest,
            "the session itself joins another",
            format!("belay join {}", other.session),
        ));
    }
    judge::permitted(user, &record, &host.kind, &host.login, glass)?;
    if !may_join {
        return Err(Refused::new(
            Code::NotAllowed,
            "whoever joins must be allowed a shell of their own there",
            "ask an administrator for a role that allows it",
        ));
    }
    Ok(Planned {
        record,
        login: host.login,
        kind: host.kind,
        actions: vec![Action::Join.token().to_owned()],
        joins: Some(join.clone()),
    })
}

/// Whether this person sees everybody's sessions.
fn reads_all(user: &UserRecord) -> bool {
    let rights = [AdminRight::ManageUsers, AdminRight::ReadEvidence];
    user.roles.iter().any(|role| rights.iter().any(|right| role.may(*right)))
}

/// How it joins, for the record: `0197…, may type, terminal 2`.
pub(super) fn words(join: &Join) -> String {
    let how = if join.may_type() { "may type" } else { "looks on" };
    let terminal = join.terminal.map(|number| format!(", terminal {number}")).unwrap_or_default();
    format!("{how}{terminal}")
}

/// What stands in the record of the session that is joined.
pub(super) fn event(
    session: &SessionRecord,
    join: &Join,
    (host, guest): (&UserName, &UserName),
    caller: &Caller,
) -> Event {
    let how = words(join);
    Event::new(EventKind::SessionJoined)
        .user(session.user)
        .device(session.device)
        .session(join.session)
        .login(session.login.clone())
        .source(caller.address)
        .detail(&format!("{guest} joined {host} in session {}: {how}", session.id))
}

/// The name of whoever has the session that is joined.
pub(super) async fn host_name(join: &Join, shared: &Shared) -> Result<UserName, Refused> {
    let gone = || Refused::new(Code::SessionOver, "the session to join is gone", "");
    let host = shared.store.session(join.session).await.map_err(judge::store)?.ok_or_else(gone)?;
    let user = shared.store.user(host.user).await.map_err(judge::store)?.ok_or_else(gone)?;
    Ok(user.name)
}
