//! A stream the relay opened: its grant checked, its session started or found, its bytes passed on.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::{one_line, printable};
use belay_proto::grant::{Grant, GrantError};
use belay_proto::ids::SessionId;
use belay_proto::limits::OPEN_DEADLINE;
use belay_proto::recording::{Policy, obligation};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Accepted, Deliver, DeliverAnswer, Join, ResumeWindows, kind};
use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf};
use belay_tunnel::framed;
use tokio::net::UnixStream;
use tokio::time::timeout;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::keeper::{Kept, keep};
use super::sessions::Held;
use super::{Agent, attachment};
use crate::process_id::ProcessId;
use crate::session_dir::Record;
use crate::worker::door::{self, Anew, DoorError, Errand, Joined};
use crate::worker::{Knock, Word, Worker, WorkerEvent, WorkerOrder, spawn_joining};

/// This very program, even when its file was replaced by an upgrade.
const SELF: &str = "/proc/self/exe";

/// A 64 MB ARM board under load starts a process in a few seconds at worst.
const WORKER_STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Serves one stream the relay opened, to its end.
pub(super) async fn serve(mut send: SendHalf, mut recv: RecvHalf, agent: Arc<Agent>) {
    let deliver = match timeout(OPEN_DEADLINE, framed::read::<Deliver, _>(&mut recv)).await {
        Ok(Ok(deliver)) => deliver,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the relay opened a stream and sent no grant");
            return recv.stop(ResetCode::PROTOCOL);
        }
        Err(_) => return recv.stop(ResetCode::PROTOCOL),
    };
    match attach(&deliver, &agent).await {
        Ok((held, socket)) => {
            let session = held.session();
            let answer = DeliverAnswer { accepted: Some(Accepted {}), refused: None };
            if framed::write(&mut send, &answer).await.is_err() {
                return;
            }
            // Asked when both directions have ended in order: the end of the session's last stream
            // is the session's, and the end of another is not.
            let door = agent.sessions.dir.door(session);
            let goes_on = async {
                let standing = door::visit(&door, &Word::default()).await;
                standing.is_ok_and(|standing| standing.goes_on == Some(true))
            };
            match attachment::pass(send, recv, socket, goes_on).await {
                Ok(()) => tracing::debug!(%session, "an attachment ended"),
                Err(error) => tracing::info!(%session, %error, "session detached"),
            }
        }
        Err(refused) => {
            tracing::warn!(%refused, "session refused");
            let answer = DeliverAnswer { accepted: None, refused: Some(refused) };
            if framed::write(&mut send, &answer).await.is_ok() {
                send.finish();
            }
            recv.stop(ResetCode::GONE);
        }
    }
}

/// Finds or starts the session, and makes it an attachment.
async fn attach(deliver: &Deliver, agent: &Arc<Agent>) -> Result<(Arc<Held>, UnixStream), Refused> {
    let grant = agent.verify(&deliver.grant).map_err(|error| not_granted(&error))?;
    if grant.kind != kind::SSH {
        return Err(Refused::new(
            Code::BadRequest,
            format!("this agent knows no \"{}\" sessions", grant.kind),
            "upgrade the agent",
        ));
    }
    let (session, user, login) = (grant.session, &grant.user_name, &grant.login);
    let held = if grant.resume == Some(true) {
        agent.sessions.find(session, grant.user, login)?
    } else {
        let held = begin(&grant, agent).await?;
        if let Some(reason) = deliver.break_glass.as_deref().map(printable) {
            tracing::warn!(
                %session, %user, %login, reason,
                "glass broken: this session need not be recorded"
            );
        }
        held
    };
    let door = agent.sessions.dir.door(session);
    let resumed = grant.resume == Some(true);
    let socket = if resumed && grant.anew == Some(true) {
        match door::anew(&door).await.map_err(|error| unreached(session, &error))? {
            Anew::Given(socket) => socket,
            Anew::NoTerminal => {
                return Err(Refused::new(
                    Code::BadRequest,
                    "the session has no terminal that could be attached to",
                    "whoever opened it takes it up again by itself",
                ));
            }
            Anew::Unable => {
                return Err(Refused::new(
                    Code::BadRequest,
                    "the session was opened before the agent's upgrade and cannot be attached to",
                    "open a new one",
                ));
            }
        }
    } else {
        if resumed && is_waiting(&door).await {
            return Err(Refused::new(
                Code::BadRequest,
                "the client has left the session, and its terminals wait for another",
                format!("belay attach {session}"),
            ));
        }
        let connected = door::connect(&door, Errand::Attach).await;
        connected.map_err(|error| unreached(session, &error))?
    };
    tracing::info!(%session, %user, %login, resumed, anew = grant.anew, "session attached");
    Ok((held, socket))
}

/// Whether the stream a client would come back to is over, and the session is not.
async fn is_waiting(door: &Path) -> bool {
    let standing = door::visit(door, &Word::default()).await;
    standing.is_ok_and(|standing| standing.waits == Some(true))
}

fn unreached(session: SessionId, error: &DoorError) -> Refused {
    tracing::warn!(%session, error = one_line(error), "cannot attach a session");
    if error.is_gone() {
        Refused::new(Code::SessionOver, "the session is over", "open a new one")
    } else {
        Refused::new(Code::Busy, one_line(error), "the device may be overloaded; try again")
    }
}

/// A session that was not there before.
async fn begin(grant: &Grant, agent: &Arc<Agent>) -> Result<Arc<Held>, Refused> {
    if !agent.seen.take(grant.session, grant.open_by, agent.now()) {
        return Err(Refused::new(Code::BadGrant, "the grant was used before", "ask for a new one"));
    }
    recordable(grant, agent)?;
    let place = agent.sessions.reserve(grant.session)?;
    let (joins, host) = match &grant.joins {
        Some(join) => {
            let (socket, join) = seated(join, grant, agent).await?;
            (Some(join), Some(socket))
        }
        None => (None, None),
    };
    let order = order(grant, joins, agent).map_err(|error| {
        tracing::error!(%error, "cannot make a worker's order");
        Refused::new(Code::Internal, error.to_string(), "look at the agent's log")
    })?;
    let door = agent.sessions.dir.bind(grant.session).map_err(|error| not_started(&error))?;
    let spawned = spawn_joining(&order, Path::new(SELF), door, host).await;
    let worker = spawned.map_err(|error| not_started(&error))?;
    let (worker, process) = started(worker, grant).await?;
    let record = record(grant, agent, process);
    // Without it the session works, and ends with this supervisor.
    if let Err(error) = agent.sessions.dir.write(&record) {
        tracing::warn!(session = %grant.session, %error, "a session's record cannot be written");
    }
    tracing::info!(
        session = %grant.session, user = %grant.user_name, login = %grant.login,
        pid = process.pid(), "session open"
    );
    let held = Held::new(&record);
    place.keep(Arc::clone(&held));
    let (control, child) = worker.into_parts();
    let kept = Kept { held: Arc::clone(&held), record, control, child: Some(child) };
    agent.sessions.keepers.spawn(keep(Arc::clone(agent), kept));
    Ok(held)
}

/// A seat at a terminal of the session that the new one joins. What passes over the socket is not for
/// this process: it goes to the new session's worker.
async fn seated(join: &Join, grant: &Grant, agent: &Agent) -> Result<(OwnedFd, Join), Refused> {
    let host = agent.sessions.find_host(join.session, &grant.login)?.session();
    let knock = Knock {
        name: grant.user_name.to_string(),
        session: grant.session.to_string(),
        join: join.clone(),
    };
    let answer = door::join(&agent.sessions.dir.door(host), &knock).await;
    match answer.map_err(|error| unreached(host, &error))? {
        Joined::Seated(socket, number) => {
            let socket = socket.into_std().map_err(|error| not_started(&error))?;
            Ok((OwnedFd::from(socket), Join { terminal: Some(number), ..join.clone() }))
        }
        Joined::Refused(why) => Err(Refused::new(Code::BadRequest, why, "see: belay sessions")),
        Joined::Unable => Err(Refused::new(
            Code::BadRequest,
            "the session was opened before the agent's upgrade and cannot be joined",
            "open a new one",
        )),
    }
}

/// What the grant obliges this device to. A recording that is to be made as well as it can be is not
/// begun where there is no place for it.
fn obligations(grant: &Grant, agent: &Agent) -> Vec<String> {
    let mut obligations = grant.obligations.clone().unwrap_or_default();
    if agent.spool.is_none() {
        obligations.retain(|named| named != obligation::RECORD);
    }
    obligations
}

/// Whether a session that must be recorded can be.
fn recordable(grant: &Grant, agent: &Agent) -> Result<(), Refused> {
    let required = Policy::of(grant.obligations.as_deref().unwrap_or_default()) == Policy::Required;
    let has_room = agent.spool.as_ref().is_some_and(|spool| !spool.is_full());
    if required && !has_room {
        return Err(Refused::new(
            Code::Busy,
            "sessions must be recorded, and the device has no room for a recording",
            "it has when the relay has taken what waits there; look at the disks of both; in an \
             emergency, --break-glass",
        ));
    }
    Ok(())
}

fn not_started(error: &(dyn std::error::Error + 'static)) -> Refused {
    tracing::error!(error = one_line(error), "cannot start a worker");
    Refused::new(
        Code::Internal,
        "the device cannot start a session worker",
        "look at the agent's log; the device may be out of memory or processes",
    )
}

/// Waits for the worker to have become the login user, so that a login which cannot be used is
/// refused in words instead of by a closed stream. The client's first bytes are on their way
/// meanwhile: it costs the worker's start, no round trip.
async fn started(mut worker: Worker, grant: &Grant) -> Result<(Worker, ProcessId), Refused> {
    let refused = |reason: &str| Refused::new(Code::LoginNotAllowed, reason, "");
    loop {
        match timeout(WORKER_STARTS_WITHIN, worker.control.next()).await {
            Ok(Ok(Some(WorkerEvent::Started { uid, .. }))) => {
                // Not what it says of itself: it is the login user's by now.
                let Some(process) = worker.pid().and_then(ProcessId::of) else {
                    return Err(ended_at_once());
                };
                tracing::debug!(session = %grant.session, uid, pid = process.pid(), "worker started");
                return Ok((worker, process));
            }
            Ok(Ok(Some(WorkerEvent::Refused { reason } | WorkerEvent::Ended { reason }))) => {
                return Err(refused(&reason));
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None) | Err(_)) => return Err(ended_at_once()),
            Err(_) => {
                if let Err(error) = worker.kill() {
                    tracing::warn!(%error, "a worker that does not start cannot be killed");
                }
                return Err(Refused::new(
                    Code::Busy,
                    "the session worker did not start in time",
                    "the device may be overloaded; try again",
                ));
            }
        }
    }
}

fn ended_at_once() -> Refused {
    Refused::new(Code::Internal, "the session worker ended at once", "look at the agent's log")
}

fn not_granted(error: &GrantError) -> Refused {
    Refused::new(
        Code::BadGrant,
        one_line(error),
        "if it stays so, check the relay's and the device's clocks",
    )
}

fn record(grant: &Grant, agent: &Agent, process: ProcessId) -> Record {
    Record {
        session: grant.session,
        user: grant.user,
        user_name: grant.user_name.clone(),
        login: grant.login.clone(),
        kind: grant.kind.clone(),
        started: agent.now(),
        ends: grant.ends,
        process,
        terminals: Vec::new(),
        obligations: obligations(grant, agent),
    }
}

fn order(grant: &Grant, joins: Option<Join>, agent: &Agent) -> anyhow::Result<WorkerOrder> {
    let key = agent.state.host_key()?;
    Ok(WorkerOrder {
        session: Uuid::from_bytes(*grant.session.as_bytes()),
        user: grant.user_name.to_string(),
        login: grant.login.to_string(),
        actions: grant.actions.clone(),
        host_key: Zeroizing::new(key.as_bytes().to_vec()),
        host_certificate: Some(agent.state.host_certificate()?),
        user_cas: agent.enrolment.ssh_user_cas.clone(),
        clock_correction: agent.correction.load(std::sync::atomic::Ordering::Relaxed),
        expires_at: grant.ends.0,
        obligations: obligations(grant, agent),
        env: Vec::new(),
        joins,
        recipients: grant.recipients.clone().unwrap_or_default(),
        // A relay that names none lets nobody come back.
        windows: grant.windows.unwrap_or(ResumeWindows { interactive: 0, other: 0 }),
    })
}
