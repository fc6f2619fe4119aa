//! Giving a session to another client of its person, on a fresh stream.
//!
//! Whose session it is and whether it is still allowed is asked as for a resume. Whoever has the
//! session now keeps it until the device has agreed: a device refuses where there is no terminal
//! to be had, and then nothing has happened. From there on the earlier client is told that the
//! session was taken over, by the number of the stream it still has.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::limits::RESUME_WAIT;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Open, Resume};
use belay_tunnel::carrier::SendHalf;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::Shared;
use super::super::registry::LiveDevice;
use super::super::revoke;
use super::deliver::{Delivered, NotTaken, Which, deliver};
use super::early::Early;
use super::resume::{RECORDED, found, given_up, judged, over};
use super::{Caller, Taken, draining, judge};
use crate::store::{Event, EventKind, SessionRecord};

/// Judges, waits for the device, records, delivers, and only then takes it from whoever has it.
/// `event` learns what a refusal's record should name.
pub(super) async fn take_over(
    open: &Open,
    resume: &Resume,
    caller: &Caller,
    (to_client, early): (&SendHalf, &mut Early),
    shared: &Arc<Shared>,
    event: &mut Event,
) -> Result<Taken, Refused> {
    let mut session = found(open, resume, caller, shared, event).await?;
    judged(&session, shared).await?;
    let wait = Duration::from_secs(resume.wait_seconds.unwrap_or(0).into()).min(RESUME_WAIT);
    let deadline = Instant::now() + wait;
    let line = tokio::select! {
        line = timeout_at(deadline, shared.registry.line_up(session.device)) => line.ok(),
        gone = to_client.stopped() => {
            tracing::debug!(session = %session.id, ?gone, "the client waits no longer");
            return Err(Refused::new(Code::Busy, "the client went away while it waited", ""));
        }
        () = shared.draining.cancelled() => return Err(draining()),
    };
    // Bounded, and not broken off: whoever has the session now would lose it to nobody.
    let handed = handed_over(&mut session, line, caller, early, shared).await?;
    let (line, (to_device, from_device, opened)) = handed;
    // Asked after the record is there, and again below: a change that came before there is an
    // attachment has not looked at it, one that comes later does.
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
    if let Err(refused) = judged(&session, shared).await {
        return Err(given_up(&guard, &session, refused, shared).await);
    }
    tracing::info!(session = %session.id, user = %caller.user.name, "session taken over");
    Ok(Taken { session, guard, line, to_device, from_device, opened, again: true })
}

/// Has the device give the session a fresh stream. Without a line it is refused.
async fn handed_over(
    session: &mut SessionRecord,
    line: Option<Arc<LiveDevice>>,
    caller: &Caller,
    early: &mut Early,
    shared: &Shared,
) -> Result<(Arc<LiveDevice>, Delivered), Refused> {
    let (user, record) = judged(session, shared).await?;
    let line = line.ok_or_else(|| judge::offline(&record))?;
    if !line.able.attaches {
        return Err(Refused::new(
            Code::DeviceRefused,
            format!("the agent of {} cannot give a session to another client", record.name),
            "upgrade it",
        ));
    }
    let event = session.event(EventKind::SessionTakenOver).source(caller.address);
    let stream = shared.store.take_over_session(session.id, event).await.map_err(judge::store)?;
    session.stream = stream.ok_or_else(|| over("the session is over"))?;
    let not = match deliver(&line, session, (&user, &record), Which::Fresh, early, shared).await {
        Ok(delivered) => return Ok((line, delivered)),
        Err(not) => not,
    };
    match &not {
        NotTaken::Refused(refused) if refused.code() == Code::SessionOver => {
            revoke::end(shared, session, refused).await;
        }
        NotTaken::Refused(_) | NotTaken::Unsigned(_) => {
            let back = shared.store.give_back_session(session.id, session.stream).await;
            back.map_err(judge::store)?;
        }
        // It may have done it: whoever had the session has to take it back.
        NotTaken::Silent(_) => {}
    }
    Err(not.into_refusal())
}
