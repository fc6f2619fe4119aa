//! One session: asked for, decided, recorded, granted, delivered, spliced, closed.
//!
//! The record is durable before the device hears of the session. What passes after that is opaque.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_proto::api::DeviceStatus;
use belay_proto::grant::{Grant, VERSION};
use belay_proto::ids::SessionId;
use belay_proto::limits::{DELIVER_DEADLINE, GRANT_OPEN_WITHIN, OPEN_DEADLINE, SESSION_MAX};
use belay_proto::names::Login;
use belay_proto::policy::{Facts, decide};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Ended;
use belay_proto::wire::open::{Deliver, DeliverAnswer, Open, OpenAnswer, Opened};
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf, splice};
use belay_tunnel::{clock, framed};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::admit::span;
use super::outcome::{Closing, Passed};
use super::registry::{Full, LiveDevice, SessionGuard};
use super::{Shared, client};
use crate::store::{DeviceRecord, Event, EventKind, StoreError, UserRecord};

/// Who asks.
pub(super) struct Caller {
    pub(super) user: UserRecord,
    pub(super) carrier: Carrier,
    pub(super) address: SocketAddr,
    pub(super) notices: mpsc::Sender<Ended>,
}

/// A session the device has taken.
struct Taken {
    id: SessionId,
    guard: SessionGuard,
    to_device: SendHalf,
    from_device: RecvHalf,
    opened: Opened,
    record: DeviceRecord,
    login: Login,
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
    match take(&open, &caller, shared).await {
        Ok(taken) => {
            let answer = OpenAnswer { opened: Some(taken.opened.clone()), refused: None };
            if framed::write(&mut to_client, &answer).await.is_ok() {
                pass(to_client, from_client, taken, &caller, shared).await;
            } else {
                closed(&taken, &caller, shared, "the client went away before it began").await;
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
async fn take(open: &Open, caller: &Caller, shared: &Arc<Shared>) -> Result<Taken, Refused> {
    let id = SessionId::from_uuid(Uuid::now_v7());
    let mut event = Event::new(EventKind::SessionRefused)
        .user(caller.user.id)
        .session(id)
        .source(caller.address);
    if let Some(login) = &open.login {
        event = event.login(login.clone());
    }
    let outcome = decided(open, caller, shared, id, &mut event).await;
    if let Err(refused) = &outcome
        && refused.code() != Code::Store
    {
        shared.store.record(event.refused(refused)).await.map_err(|error| Refused::from(&error))?;
    }
    outcome
}

async fn decided(
    open: &Open,
    caller: &Caller,
    shared: &Arc<Shared>,
    id: SessionId,
    event: &mut Event,
) -> Result<Taken, Refused> {
    if shared.draining.is_cancelled() {
        return Err(Refused::new(Code::Draining, "this relay is shutting down", "try again soon"));
    }
    let missing = |what| Refused::new(Code::BadRequest, format!("no {what} named"), "name one");
    let wanted = open.device.as_deref().ok_or_else(|| missing("device"))?;
    let login = open.login.clone().ok_or_else(|| missing("login"))?;
    let kind = open.kind.clone().ok_or_else(|| missing("session kind"))?;
    let store = |error: StoreError| Refused::from(&error);
    // Asked anew for every session: a role or a standing may have changed since the client came.
    let user = shared.store.user(caller.user.id).await.map_err(store)?;
    let user = user.filter(|user| !user.disabled).ok_or_else(|| {
        Refused::new(Code::UserDisabled, "your account is disabled", "ask an administrator")
    })?;
    let record = shared.store.device_by_name_or_id(wanted).await.map_err(store)?;
    // Whoever may not see a device is told the same as if it did not exist.
    let record = record
        .filter(|record| user.roles.iter().any(|role| role.covers(&record.labels)))
        .ok_or_else(|| unknown_device(wanted, &user))?;
    *event = event.clone().device(record.id);
    standing(&record)?;
    let allowed =
        decide(&Facts { roles: &user.roles, labels: &record.labels, kind: &kind, login: &login })
            .map_err(|denied| Refused::new(denied.code, denied.cause, denied.remedy))?;
    let device = shared.registry.device(record.id).ok_or_else(|| offline(&record))?;
    let bounds = (shared.limits.sessions_per_device, shared.limits.sessions_per_user);
    let guard = shared
        .registry
        .insert_session(id, (user.id, login.clone(), kind.clone()), &device, bounds)
        .map_err(|full| too_many(full, &record))?;
    let now = clock::now();
    let grant = Grant {
        version: VERSION,
        session: id,
        device: record.id,
        user: user.id,
        user_name: user.name.clone(),
        login: login.clone(),
        kind,
        actions: allowed.actions().iter().map(|action| action.token().to_owned()).collect(),
        issued: now,
        open_by: now.plus(GRANT_OPEN_WITHIN),
        ends: now.plus(SESSION_MAX),
        obligations: None,
    };
    let signed = shared.authority.sign_grant(&grant).map_err(|error| {
        tracing::error!(%error, "cannot sign a grant");
        Refused::new(Code::Internal, "the relay cannot sign a grant", "tell its operator")
    })?;
    let opening = Event::new(EventKind::SessionOpened)
        .user(user.id)
        .device(record.id)
        .session(id)
        .login(login.clone())
        .source(caller.address)
        .detail(&format!("{}: {}", grant.kind, grant.actions.join(" ")));
    shared.store.record(opening).await.map_err(store)?;
    let (to_device, from_device) = deliver(&device, &signed, &record).await?;
    let opened = Opened {
        session: id,
        device: record.id,
        device_name: Some(record.name.to_string()),
        grant: Some(signed.into()),
    };
    tracing::info!(session = %id, user = %user.name, device = %record.name, %login, "session open");
    Ok(Taken { id, guard, to_device, from_device, opened, record, login })
}

fn unknown_device(wanted: &str, user: &UserRecord) -> Refused {
    let (code, remedy) = if user.roles.is_empty() {
        (Code::NotAllowed, "you have no role; ask an administrator for one")
    } else {
        (Code::UnknownDevice, "see: belay devices")
    };
    Refused::new(code, format!("no device \"{wanted}\" that your roles cover"), remedy)
}

fn standing(record: &DeviceRecord) -> Result<(), Refused> {
    match record.status {
        DeviceStatus::Active => Ok(()),
        DeviceStatus::Quarantined => Err(Refused::new(
            Code::Quarantined,
            format!("{} is quarantined", record.name),
            format!("an administrator can run: belay device activate {}", record.name),
        )),
        DeviceStatus::Decommissioned => Err(Refused::new(
            Code::Decommissioned,
            format!("{} was decommissioned", record.name),
            "see: belay devices",
        )),
    }
}

fn offline(record: &DeviceRecord) -> Refused {
    let since = match record.last_seen {
        Some(seen) => format!("for {}", span(clock::now().distance(seen))),
        None => "and has never held a line".to_owned(),
    };
    let why = match &record.last_end {
        Some(why) => format!(" ({why})"),
        None => String::new(),
    };
    Refused::new(
        Code::Offline,
        format!("{} is offline {since}{why}", record.name),
        "check its power and network; belay devices shows when it is back",
    )
}

fn too_many(full: Full, record: &DeviceRecord) -> Refused {
    match full {
        Full::Device => Refused::new(
            Code::Busy,
            format!("{} has all the sessions it takes", record.name),
            "close one, or raise sessions_per_device in the relay's configuration",
        ),
        Full::User => Refused::new(
            Code::Busy,
            "you have all the sessions one person may have",
            "close one, or raise sessions_per_user in the relay's configuration",
        ),
    }
}

/// Hands the grant to the device and waits for its word.
async fn deliver(
    device: &LiveDevice,
    signed: &[u8],
    record: &DeviceRecord,
) -> Result<(SendHalf, RecvHalf), Refused> {
    let exchange = async {
        let (mut send, mut recv) = device.carrier.open().await.ok()?;
        framed::write(&mut send, &Deliver { grant: signed.to_vec().into() }).await.ok()?;
        let answer = framed::read::<DeliverAnswer, _>(&mut recv).await.ok()?;
        Some((send, recv, answer))
    };
    let silent = || {
        Refused::new(
            Code::DeviceSilent,
            format!("{} holds a line but does not answer", record.name),
            "try again; belay devices shows whether it is still there",
        )
    };
    match timeout(DELIVER_DEADLINE, exchange).await {
        Ok(Some((send, recv, DeliverAnswer { accepted: Some(_), refused: None }))) => {
            Ok((send, recv))
        }
        Ok(Some((_, _, DeliverAnswer { refused: Some(refused), .. }))) => Err(Refused::new(
            refusal_of_device(refused.code()),
            format!("{} refused: {}", record.name, refused.cause()),
            refused.remedy(),
        )),
        Ok(Some(_)) | Ok(None) | Err(_) => Err(silent()),
    }
}

/// Passes bytes until both directions have ended, somebody cuts the session, or its time is up.
async fn pass(
    to_client: SendHalf,
    from_client: RecvHalf,
    taken: Taken,
    caller: &Caller,
    shared: &Shared,
) {
    let Taken { id, guard, to_device, from_device, opened, record, login } = taken;
    let passed = Passed::default();
    let began = Instant::now();
    let ended = {
        let up = splice(from_client, to_device, |bytes| passed.count_up(bytes));
        let down = splice(from_device, to_client, |bytes| passed.count_down(bytes));
        let both = async { tokio::join!(up, down) };
        tokio::pin!(both);
        tokio::select! {
            (up, down) = &mut both => Ok((up, down)),
            reason = guard.cut() => Err(reason),
            // The device ends it too; this is for one that does not.
            () = tokio::time::sleep(SESSION_MAX + Duration::from_secs(60)) => Err(Some(
                Refused::new(Code::Expired, "the session's time is over", "open a new one"),
            )),
            () = shared.stop.cancelled() => Err(Some(
                Refused::new(Code::Draining, "this relay is shutting down", "connect again"),
            )),
        }
    };
    let seconds = began.elapsed().as_secs();
    let detail = match ended {
        Ok((up, down)) => {
            let left = caller.carrier.end();
            let left = left.is_some_and(|end| {
                end.peer_said().is_some_and(|(code, _)| code == ResetCode::DONE)
            });
            Closing { up, down, client_left: left, passed: &passed, seconds }.to_string()
        }
        Err(reason) => {
            let reason = reason.unwrap_or_else(|| Refused::new(Code::Internal, "cut", ""));
            // The queue is full only when the client reads nothing; its stream is reset anyway.
            if caller.notices.try_send(client::notice(id, &reason)).is_err() {
                tracing::debug!(session = %id, "a client did not take the word about its session");
            }
            format!("cut after {seconds} s: {}", reason.cause())
        }
    };
    tracing::info!(session = %id, user = %caller.user.name, device = %record.name, detail, "session closed");
    let closing = Closed { id, device: opened.device, login };
    record_closed(&closing, caller, shared, &detail).await;
}

struct Closed {
    id: SessionId,
    device: belay_proto::ids::DeviceId,
    login: Login,
}

async fn closed(taken: &Taken, caller: &Caller, shared: &Shared, detail: &str) {
    let closing = Closed { id: taken.id, device: taken.record.id, login: taken.login.clone() };
    record_closed(&closing, caller, shared, detail).await;
}

async fn record_closed(closed: &Closed, caller: &Caller, shared: &Shared, detail: &str) {
    let event = Event::new(EventKind::SessionClosed)
        .user(caller.user.id)
        .device(closed.device)
        .session(closed.id)
        .login(closed.login.clone())
        .source(caller.address)
        .detail(detail);
    if let Err(error) = shared.store.record(event).await {
        tracing::error!(session = %closed.id, %error, "cannot record that a session closed");
    }
}

/// Of what a device says, only codes that are its own to give are passed on.
fn refusal_of_device(code: Code) -> Code {
    if matches!(code, Code::BadGrant | Code::LoginNotAllowed | Code::Busy) {
        code
    } else {
        Code::DeviceRefused
    }
}
