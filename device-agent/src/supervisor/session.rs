//! One session: its grant checked, its worker started, its bytes passed on untouched.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::grant::{Grant, GrantError, Verified};
use belay_proto::limits::OPEN_DEADLINE;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Accepted, Deliver, DeliverAnswer, kind};
use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf, from_socket, to_socket};
use belay_tunnel::framed;
use tokio::time::timeout;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Agent;
use super::utmp::Terminals;
use crate::worker::{Worker, WorkerEvent, WorkerOrder, spawn};

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
    match begin(&deliver.grant, &agent).await {
        Ok((grant, worker)) => {
            let answer = DeliverAnswer { accepted: Some(Accepted {}), refused: None };
            if framed::write(&mut send, &answer).await.is_ok() {
                pass(send, recv, worker, &grant).await;
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

async fn begin(encoded: &[u8], agent: &Agent) -> Result<(Verified<Grant>, Worker), Refused> {
    let grant = agent.verify(encoded).map_err(|error| not_granted(&error))?;
    if grant.kind != kind::SSH {
        return Err(Refused::new(
            Code::BadRequest,
            format!("this agent knows no \"{}\" sessions", grant.kind),
            "upgrade the agent",
        ));
    }
    if !agent.seen.take(grant.session, grant.open_by, agent.now()) {
        return Err(Refused::new(Code::BadGrant, "the grant was used before", "ask for a new one"));
    }
    let order = order(&grant, agent).map_err(|error| {
        tracing::error!(%error, "cannot make a worker's order");
        Refused::new(Code::Internal, error.to_string(), "look at the agent's log")
    })?;
    let worker = spawn(&order, Path::new(SELF)).await.map_err(|error| {
        tracing::error!(error = belay_proto::error_line::one_line(&error), "cannot start a worker");
        Refused::new(
            Code::Internal,
            "the device cannot start a session worker",
            "look at the agent's log; the device may be out of memory or processes",
        )
    })?;
    let worker = started(worker, &grant).await?;
    Ok((grant, worker))
}

/// Waits for the worker to have become the login user, so that a login which cannot be used is
/// refused in words instead of by a closed stream. The client's first bytes are on their way
/// meanwhile: it costs the worker's start, no round trip.
async fn started(mut worker: Worker, grant: &Grant) -> Result<Worker, Refused> {
    let refused = |reason: &str| Refused::new(Code::LoginNotAllowed, reason, "");
    loop {
        match timeout(WORKER_STARTS_WITHIN, worker.events.recv()).await {
            Ok(Some(WorkerEvent::Started { uid, pid, .. })) => {
                tracing::debug!(session = %grant.session, uid, pid, "worker started");
                return Ok(worker);
            }
            Ok(Some(WorkerEvent::Refused { reason } | WorkerEvent::Ended { reason })) => {
                return Err(refused(&reason));
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                return Err(Refused::new(
                    Code::Internal,
                    "the session worker ended at once",
                    "look at the agent's log",
                ));
            }
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

fn not_granted(error: &GrantError) -> Refused {
    Refused::new(
        Code::BadGrant,
        belay_proto::error_line::one_line(error),
        "if it stays so, check the relay's and the device's clocks",
    )
}

fn order(grant: &Grant, agent: &Agent) -> anyhow::Result<WorkerOrder> {
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
        obligations: grant.obligations.clone().unwrap_or_default(),
        env: Vec::new(),
    })
}

async fn pass(send: SendHalf, recv: RecvHalf, mut worker: Worker, grant: &Grant) {
    let (session, user, login) = (grant.session, &grant.user_name, &grant.login);
    tracing::info!(%session, %user, %login, pid = worker.pid(), "session open");
    let mut terminals = Terminals::new(user, login);
    let mut reason = None;
    {
        let Worker { data, events, .. } = &mut worker;
        let (from_worker, to_worker) = data.split();
        let listen = async {
            while let Some(event) = events.recv().await {
                tell(grant, &event, &mut terminals);
                if let WorkerEvent::Ended { reason: why } = event {
                    reason = Some(why);
                }
            }
        };
        let up = async {
            if let Err(error) = to_socket(recv, to_worker).await {
                tracing::debug!(%session, %error, "the way to the worker ended early");
            }
        };
        let down = async {
            let ((), ended) = tokio::join!(listen, from_socket(from_worker, send));
            if let Err(error) = ended {
                tracing::debug!(%session, %error, "the way from the worker ended early");
            }
        };
        tokio::pin!(up, down);
        // When the worker has ended, what a client still sends goes nowhere.
        tokio::select! {
            () = &mut down => {}
            () = &mut up => down.await,
        }
    }
    let status = match worker.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let reason = reason.unwrap_or_else(|| format!("the worker ended by itself ({status})"));
    tracing::info!(%session, %user, %login, reason, "session closed");
}

/// What a worker tells goes to the device's own log, under the engineer's name.
fn tell(grant: &Grant, event: &WorkerEvent, terminals: &mut Terminals) {
    let (session, user, login) = (grant.session, &grant.user_name, &grant.login);
    match event {
        WorkerEvent::Started { uid, pid, .. } => {
            tracing::debug!(%session, %user, %login, uid, pid, "worker started");
        }
        WorkerEvent::Authenticated { fingerprint, key_id, serial, .. } => {
            tracing::info!(%session, %user, %login, fingerprint, key_id, serial, "authenticated");
        }
        WorkerEvent::Refused { reason } => {
            tracing::warn!(%session, %user, %login, reason, "refused");
        }
        WorkerEvent::ChannelOpened { channel, kind, detail } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::info!(%session, %user, %login, channel, kind, detail, "channel open");
        }
        WorkerEvent::ChannelRefused { channel, kind, detail, reason } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::warn!(%session, %user, %login, channel, kind, detail, reason, "channel refused");
        }
        WorkerEvent::ChannelClosed { channel, kind, detail, exit, signal, bytes_in, bytes_out } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::info!(
                %session, %user, %login, channel, kind, detail, exit, signal, bytes_in, bytes_out,
                "channel closed"
            );
        }
        WorkerEvent::PtyOpened { tty, pid, .. } => terminals.opened(tty, *pid),
        WorkerEvent::PtyClosed { tty, pid, .. } => terminals.closed(tty, *pid),
        WorkerEvent::Ended { reason } => {
            tracing::debug!(%session, %user, %login, reason, "worker ended");
        }
    }
}
