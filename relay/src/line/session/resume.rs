//! Giving a session back to its client.
//!
//! The relay's record says whose it is, on which device, and what was granted; the client only
//! names it. Somebody else is told what is told of a session that never was. While the device has
//! no line the answer is held back, for as long as the client and the relay are both there.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::ids::DeviceId;
use belay_proto::limits::RESUME_WAIT;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Open, Resume};
use belay_tunnel::carrier::SendHalf;
use belay_tunnel::clock;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::Shared;
use super::super::registry::{Ending, LiveDevice, SessionGuard};
use super::super::revoke;
use super::deliver::{Delivered, NotTaken, Which, deliver};
use super::early::Early;
use super::{Caller, Taken, draining, judge};
use crate::store::{DeviceRecord, Event, EventKind, Over, SessionRecord, UserRecord};

/// How long the attachment that is replaced has to record its end, so that the record reads in the
/// order things happened. It waits for nothing but the store.
pub(super) const RECORDED: Duration = Duration::from_secs(5);

/// Judges, waits for the device, records, delivers. `event` learns what a refusal's record should
/// name.
pub(super) async fn resume(
    open: &Open,
    resume: &Resume,
    caller: &Caller,
    (to_client, early): (&SendHalf, &mut Early),
    shared: &Arc<Shared>,
    event: &mut Event,
) -> Result<Taken, Refused> {
    let session = found(open, resume, caller, shared, event).await?;
    if resume.stream.unwrap_or(0) != session.stream {
        return Err(Refused::new(
            Code::SessionOver,
            "the session was taken over by another client",
            format!("belay attach {} takes it back", session.id),
        ));
    }
    let (_, record) = judged(&session, shared).await?;
    let bounds = (shared.limits.sessions_per_device, shared.limits.sessions_per_user);
    let (guard, old) = shared
        .registry
        .attach((session.id, session.user, session.device), bounds)
        .map_err(|full| judge::too_many(full, &record))?;
    if let Some(old) = old
        && timeout(RECORDED, old.left()).await.is_err()
    {
        tracing::warn!(session = %session.id, "an attachment that was replaced does not end");
    }
    let wait = Duration::from_secs(resume.wait_seconds.unwrap_or(0).into()).min(RESUME_WAIT);
    let deadline = Instant::now() + wait;
    let taken = tokio::select! {
        taken = attached(&session, deadline, caller, early, shared) => taken,
        ending = guard.ended() => Err(match ending {
            Ending::Replaced => {
                Refused::new(Code::Busy, "the session was taken up on another line", "")
            }
            Ending::OverAtDevice(reason) | Ending::Cut(reason) => reason,
        }),
        gone = to_client.stopped() => {
            tracing::debug!(session = %session.id, ?gone, "the client waits no longer");
            Err(Refused::new(Code::Busy, "the client went away while it waited", ""))
        }
        () = shared.draining.cancelled() => Err(draining()),
    };
    match taken {
        Ok((line, (to_device, from_device, opened))) => {
            tracing::info!(session = %session.id, user = %caller.user.name, "session resumed");
            Ok(Taken { session, guard, line, to_device, from_device, opened, again: true })
        }
        Err(refused) => Err(given_up(&guard, &session, refused, shared).await),
    }
}

/// Takes an attachment off that did not come about; what there is to say.
pub(super) async fn given_up(
    guard: &SessionGuard,
    session: &SessionRecord,
    refused: Refused,
    shared: &Shared,
) -> Refused {
    match guard.release() {
        // Whoever cut it left it to this attachment to close it.
        Some(Ending::Cut(reason) | Ending::OverAtDevice(reason)) => {
            revoke::end(shared, session, &reason).await;
            reason
        }
        Some(Ending::Replaced) | None => refused,
    }
}

/// The session that is named, when it is the caller's own and open.
pub(super) async fn found(
    open: &Open,
    resume: &Resume,
    caller: &Caller,
    shared: &Shared,
    event: &mut Event,
) -> Result<SessionRecord, Refused> {
    judge::person(shared, caller.user.id).await?;
    let session = shared.store.session(resume.session).await.map_err(judge::store)?;
    let session = session
        .filter(|session| session.user == caller.user.id)
        .ok_or_else(|| over("you have no such session"))?;
    *event = event.clone().device(session.device).login(session.login.clone());
    if let Some(Over { why, .. }) = &session.over {
        return Err(over(&format!("the session is over: {why}")));
    }
    if session.ends <= clock::now() {
        return Err(over("the session's time is over"));
    }
    same(open, &session, shared).await?;
    Ok(session)
}

pub(super) fn over(cause: &str) -> Refused {
    Refused::new(Code::SessionOver, cause, "open a new session")
}

/// What the client says of the session must not differ from the record. A device that was renamed
/// meanwhile is still the same.
pub(super) async fn same(
    open: &Open,
    session: &SessionRecord,
    shared: &Shared,
) -> Result<(), Refused> {
    let differs = |what: &str| {
        let cause = format!("the session has another {what}");
        Err(Refused::new(Code::BadRequest, cause, "open a new session"))
    };
    if open.kind.as_ref().is_some_and(|kind| *kind != session.kind) {
        return differs("kind");
    }
    if open.login.as_ref().is_some_and(|login| *login != session.login) {
        return differs("login");
    }
    let Some(named) = open.device.as_deref() else { return Ok(()) };
    let id = match named.parse::<DeviceId>() {
        Ok(id) => Some(id),
        Err(_) => {
            let record = shared.store.device_by_name_or_id(named).await.map_err(judge::store)?;
            record.map(|record| record.id)
        }
    };
    if id.is_some_and(|id| id != session.device) { differs("device") } else { Ok(()) }
}

/// Whether it is still allowed. One that is not is over, not only refused.
pub(super) async fn judged(
    session: &SessionRecord,
    shared: &Shared,
) -> Result<(UserRecord, DeviceRecord), Refused> {
    let allowed = judge::still_allowed(shared, session).await;
    if let Err(refused) = &allowed
        && refused.code() != Code::Store
    {
        revoke::end(shared, session, refused).await;
    }
    allowed
}

/// Waits for the device's line and hands the session over; again, when the line was a dead one and
/// the device comes back on another in time.
async fn attached(
    session: &SessionRecord,
    deadline: Instant,
    caller: &Caller,
    early: &mut Early,
    shared: &Arc<Shared>,
) -> Result<(Arc<LiveDevice>, Delivered), Refused> {
    let mut recorded = false;
    loop {
        let line = timeout_at(deadline, shared.registry.line_up(session.device)).await;
        if line.is_ok() && !recorded {
            let event = session.event(EventKind::SessionResumed).source(caller.address);
            let open = shared.store.resume_session(session.id, event).await;
            if !open.map_err(judge::store)? {
                return Err(over("the session is over"));
            }
            recorded = true;
        }
        // Asked after the record is there: a change that came before has not looked at this
        // attachment, one that comes later does.
        let (user, record) = judged(session, shared).await?;
        let line = line.map_err(|_| judge::offline(&record))?;
        let delivering = deliver(&line, session, (&user, &record), Which::Same, early, shared);
        let delivered = tokio::select! {
            delivered = delivering => delivered,
            _ = shared.registry.newer_line(&line) => continue,
        };
        match delivered {
            Ok(delivered) => return Ok((line, delivered)),
            Err(NotTaken::Refused(refused)) => {
                if refused.code() == Code::SessionOver {
                    revoke::end(shared, session, &refused).await;
                }
                return Err(refused);
            }
            Err(NotTaken::Silent(refused)) => {
                let now = shared.registry.device(session.device);
                if now.is_some_and(|now| now.epoch == line.epoch) || deadline <= Instant::now() {
                    return Err(refused);
                }
            }
            Err(NotTaken::Unsigned(refused)) => return Err(refused),
        }
    }
}
