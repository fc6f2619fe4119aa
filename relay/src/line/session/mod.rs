//! Sessions: asked for, decided, recorded, granted, delivered, spliced; and again, when a stream
//! was lost.
//!
//! `judge` says who may; `open` begins a session, of its own or to `join` another, `resume` gives one back, `take_over` gives it to
//! another client of its person; `deliver` hands it to the device, with what the client said `early`;
//! `pass` splices and settles what came of it. Its law: what the device hears of is durable before;
//! the end of a stream is not the end of a session. What passes is opaque.

mod deliver;
mod early;
mod join;
mod judge;
mod open;
mod pass;
mod resume;
mod take_over;

use std::net::SocketAddr;
use std::sync::Arc;

use belay_proto::ids::SessionId;
use belay_proto::limits::OPEN_DEADLINE;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Ended;
use belay_proto::wire::open::{Open, OpenAnswer, Opened};
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf};
use belay_tunnel::framed;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::Shared;
use super::registry::{LiveDevice, SessionGuard};
use crate::store::{Event, EventKind, SessionRecord, UserRecord};
use early::Early;
pub(super) use judge::still_allowed;
pub(super) use pass::{close, end_at_device};

/// Who asks.
pub(super) struct Caller {
    pub(super) user: UserRecord,
    pub(super) carrier: Carrier,
    pub(super) address: SocketAddr,
    pub(super) notices: mpsc::Sender<Ended>,
}

/// A session the device has taken, with its streams.
struct Taken {
    session: SessionRecord,
    guard: SessionGuard,
    line: Arc<LiveDevice>,
    to_device: SendHalf,
    from_device: RecvHalf,
    opened: Opened,
    /// The client had it before.
    again: bool,
}

/// Serves one stream a client opened, to its end.
pub(super) async fn serve(
    mut to_client: SendHalf,
    mut from_client: RecvHalf,
    caller: Caller,
    shared: &Arc<Shared>,
) {
    let open = match timeout(OPEN_DEADLINE, framed::read::<Open, _>(&mut from_client)).await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => {
            let refused = Refused::new(Code::BadRequest, error.to_string(), "upgrade the client");
            return refuse(&mut to_client, &mut from_client, &refused).await;
        }
        Err(_) => return from_client.stop(ResetCode::PROTOCOL),
    };
    let mut early = Early::new(from_client);
    let taken = take(&open, &caller, &to_client, &mut early, shared).await;
    let (mut from_client, said) = early.into_rest();
    match taken {
        Ok(taken) => {
            let answer = OpenAnswer { opened: Some(taken.opened.clone()), refused: None };
            if framed::write(&mut to_client, &answer).await.is_ok() {
                pass::pass(to_client, (from_client, said), taken, &caller, shared).await;
            } else {
                pass::unanswered(taken, &caller, shared).await;
            }
        }
        Err(refused) => refuse(&mut to_client, &mut from_client, &refused).await,
    }
}

async fn refuse(to_client: &mut SendHalf, from_client: &mut RecvHalf, refused: &Refused) {
    let answer = OpenAnswer { opened: None, refused: Some(refused.clone()) };
    if framed::write(to_client, &answer).await.is_ok() {
        to_client.finish();
    }
    from_client.stop(ResetCode::GONE);
}

/// Decides and delivers. Every refusal is in the store before it is told.
async fn take(
    open: &Open,
    caller: &Caller,
    to_client: &SendHalf,
    early: &mut Early,
    shared: &Arc<Shared>,
) -> Result<Taken, Refused> {
    let fresh = SessionId::from_uuid(Uuid::now_v7());
    let id = open.resume.as_ref().map_or(fresh, |resume| resume.session);
    let mut event = Event::new(EventKind::SessionRefused)
        .user(caller.user.id)
        .session(id)
        .source(caller.address);
    if let Some(login) = &open.login {
        event = event.login(login.clone());
    }
    if let Err(refused) = shared.flapping.open(caller.user.id) {
        shared.strangers.record(caller.address, event.refused(&refused)).await;
        return Err(refused);
    }
    let draining = shared.draining.is_cancelled().then(draining);
    let (outcome, recorded) = match (draining, &open.resume) {
        (Some(refused), _) => {
            let recorded = shared.store.record(event.refused(&refused)).await;
            (Err(refused), recorded)
        }
        (None, Some(resume)) => {
            let outcome = if resume.anew == Some(true) {
                let event = &mut event;
                take_over::take_over(open, resume, caller, (to_client, early), shared, event).await
            } else {
                resume::resume(open, resume, caller, (to_client, early), shared, &mut event).await
            };
            let recorded = match &outcome {
                Ok(_) => Ok(()),
                Err(refused) => shared.store.record(event.refused(refused)).await,
            };
            (outcome, recorded)
        }
        (None, None) => {
            let outcome = open::open(open, caller, shared, (id, early), &mut event).await;
            let recorded = match &outcome {
                Ok(_) => Ok(()),
                Err(refused) => {
                    let why = refused.cause();
                    shared.store.refuse_session(id, why, event.refused(refused)).await
                }
            };
            (outcome, recorded)
        }
    };
    match (recorded, outcome) {
        (Ok(()), outcome) => outcome,
        // That the store fails is what is being told already.
        (Err(_), Err(refused)) if refused.code() == Code::Store => Err(refused),
        (Err(error), _) => Err(Refused::from(&error)),
    }
}

fn draining() -> Refused {
    Refused::new(Code::Draining, "this relay is shutting down", "try again soon")
}
