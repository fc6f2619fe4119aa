//! The SSH server of a session: the only room that knows the SSH library.
//!
//! One connection, from its first byte to its last. The library runs the
//! protocol in one task; every channel that does something is a task of its
//! own in [`Shared::tasks`], which ends with the session.

mod attach;
mod auth;
mod cert;
mod channel;
mod config;
mod environment;
mod forward;
mod handler;
mod pump;
mod queue;
mod registry;
mod relay;
mod reverse;
mod seen;
mod spill;
mod tail;
mod target;
mod told;

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use russh::keys::ssh_key::PublicKey;
use russh::server::Handle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub(super) use cert::{Rights, shown};

use self::auth::Refusals;
use self::handler::Handler;
use self::registry::Registry;
use super::account::Account;
use super::event::WorkerEvent;
use super::gate::{Actions, Events};
use super::greeted::{Leave, Parting};
use super::limits::{FAREWELL, FAREWELL_TAKEN, LOGIN_GRACE};
use super::run::Session;
use super::terminals::Terminals;
use super::wire::NO_SSH;
use super::{clock, lapse};

/// What a session is held to.
pub(super) struct Terms {
    pub(super) session: Uuid,
    pub(super) user: String,
    pub(super) login: String,
    pub(super) actions: Actions,
    pub(super) authorities: Vec<PublicKey>,
    /// Keys that need no certificate: of the standard-input mode alone.
    pub(super) plain_keys: Vec<PublicKey>,
    /// Unix seconds by the relay's clock.
    pub(super) expires_at: Option<i64>,
    pub(super) env: Vec<(String, String)>,
    pub(super) rekey: Rekey,
    /// Variables taken from the client beside the fixed list: of the
    /// standard-input mode alone.
    pub(super) accept_env: Vec<String>,
}

/// When keys are exchanged anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rekey {
    /// Either way.
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

impl Default for Rekey {
    /// RFC 4253, section 9: after a gigabyte or an hour.
    fn default() -> Self {
        Self { bytes: 1 << 30, time: Duration::from_secs(3600) }
    }
}

/// Why a session ended.
pub(super) struct End {
    pub(super) reason: String,
    /// Nothing went wrong on the way.
    pub(super) clean: bool,
    /// It was ended from outside: nobody is waited for.
    pub(super) in_haste: bool,
}

impl End {
    fn clean(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), clean: true, in_haste: false }
    }

    fn fault(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), clean: false, in_haste: false }
    }

    pub(super) fn from_outside(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), clean: true, in_haste: true }
    }
}

/// An end from outside of the session.
pub(super) struct Because {
    /// One line, fit to be shown to the engineer.
    pub(super) reason: String,
    /// There is a client that can hear it.
    pub(super) reachable: bool,
    /// What becomes of the session.
    pub(super) leave: Leave,
}

/// What one connection is served with: the session's own.
pub(super) struct Serving {
    pub(super) session: Arc<Session>,
    pub(super) terminals: Arc<Terminals>,
    pub(super) events: Events,
    /// How the connection ends.
    pub(super) parting: Arc<Parting>,
}

/// What the handler and the channels' tasks share.
struct Shared {
    session: Arc<Session>,
    terminals: Arc<Terminals>,
    events: Events,
    registry: Registry,
    tasks: Mutex<JoinSet<()>>,
    handle: OnceLock<Handle>,
    authenticated: AtomicBool,
    refusals: Mutex<Refusals>,
}

impl Shared {
    fn terms(&self) -> &Terms {
        &self.session.terms
    }

    fn account(&self) -> &Account {
        &self.session.account
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a channel's task. It is aborted when the session is over.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        tasks.spawn(task);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a channel's task failed");
    }
}

/// Serves one connection to its end. Programs on terminals go on where the client
/// went without having ended them.
///
/// `out` is a second handle on the wire, where there is one, for the line that a
/// peer gets who does not speak SSH; it is closed as soon as SSH begins.
/// `told_to_end` ends the session from outside.
pub(super) async fn serve<W: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    wire: W,
    out: Option<OwnedFd>,
    serving: Serving,
    told_to_end: impl Future<Output = Because>,
) -> End {
    lapse::forget();
    let Serving { session, terminals, events, parting } = serving;
    let host = (session.host_key.clone(), session.host_certificate.clone());
    let config = config::server(host.0, host.1, session.terms.rekey);
    let shared = Arc::new(Shared {
        session,
        terminals,
        events,
        registry: Registry::default(),
        tasks: Mutex::default(),
        handle: OnceLock::new(),
        authenticated: AtomicBool::new(false),
        refusals: Mutex::default(),
    });
    tokio::pin!(told_to_end);
    let greeting = russh::server::run_stream(config, wire, Handler::new(shared.clone()));
    let greeted = tokio::select! {
        greeted = timeout(LOGIN_GRACE, greeting) => greeted,
        because = &mut told_to_end => {
            parting.ours(because.leave);
            return End::from_outside(because.reason);
        }
    };
    let running = match greeted {
        Ok(Ok(running)) => running,
        Ok(Err(error)) if speaks_no_ssh(&error) => {
            // A pipe that is gone or full gets no answer.
            if let Some(out) = out
                && let Err(error) = rustix::io::write(&out, NO_SSH)
            {
                tracing::debug!(%error, "the peer did not wait for an answer");
            }
            return End::fault("the peer does not speak SSH 2");
        }
        Ok(Err(error)) => return End::fault(format!("no SSH client: {error}")),
        Err(_) => return End::fault("no SSH client spoke in time"),
    };
    drop(out);
    let handle = running.handle();
    // Nothing has run between this and the session's own task.
    drop(shared.handle.set(handle.clone()));

    tokio::pin!(running);
    let end = tokio::select! {
        ended = &mut running => how_it_ended(ended),
        signal = terminated() => {
            parting.ours(Leave::Outside);
            End::from_outside(format!("the worker was told to stop by {signal}"))
        }
        because = async {
            tokio::select! {
                reason = expiry(shared.terms()) => {
                    Because { reason, reachable: true, leave: Leave::Outside }
                }
                () = unauthenticated(&shared) => Because {
                    reason: "nobody authenticated in time".to_owned(),
                    reachable: true,
                    leave: Leave::Nobody,
                },
                because = &mut told_to_end => because,
            }
        } => {
            let Because { reason, reachable, leave } = because;
            parting.ours(leave);
            let line = format!("belay: {reason}");
            let farewell = async {
                let sent = handle
                    .disconnect(russh::Disconnect::ByApplication, line, String::new())
                    .await;
                if sent.is_ok() {
                    drop(running.await);
                }
            };
            // Whoever takes the session does not wait for whoever had it.
            let patience = if leave == Leave::Taken { FAREWELL_TAKEN } else { FAREWELL };
            if reachable && timeout(patience, farewell).await.is_err() {
                tracing::debug!("the client did not take its leave in time");
            }
            match leave {
                Leave::Nobody => End::fault(reason),
                Leave::Client | Leave::Taken | Leave::Outside => End::from_outside(reason),
            }
        }
    };
    let vanished = matches!(parting.leave(), Leave::Nobody | Leave::Taken);
    // Before terminals are closed: guests are told why.
    match parting.leave() {
        Leave::Outside => shared.terminals.over(&end.reason),
        Leave::Nobody if !shared.terminals.keeps() => shared.terminals.over(&end.reason),
        Leave::Client | Leave::Nobody | Leave::Taken => {}
    }
    finish(&shared, vanished && shared.terminals.keeps()).await;
    if !shared.authenticated.load(Ordering::Relaxed) {
        let reason = shared.refusals().reason();
        tracing::info!(%reason, "nobody was authenticated");
        if let Err(gone) = shared.events.send(WorkerEvent::Refused { reason }).await {
            tracing::warn!(%gone, "a refusal was not told");
        }
    }
    end
}

fn how_it_ended(ended: Result<(), russh::Error>) -> End {
    match ended {
        Ok(()) => End::clean("the client closed the connection"),
        // A client that just goes away, as most do: a pipe ends, a stream is given up.
        Err(russh::Error::IO(error))
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            End::clean("the client closed the connection")
        }
        Err(error) => End::fault(format!("the connection failed: {error}")),
    }
}

fn speaks_no_ssh(error: &russh::Error) -> bool {
    matches!(error, russh::Error::Version)
        || matches!(error, russh::Error::IO(error) if error.kind() == ErrorKind::InvalidData)
}

/// Lets programs take in what the client still sent them, then ends all tasks.
async fn finish(shared: &Shared, vanished: bool) {
    shared.registry.close_all(vanished);
    let mut tasks =
        std::mem::take(&mut *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
    let drained = timeout(FAREWELL, async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::debug!(left = tasks.len(), "channels cut at the end of the session");
    }
    tasks.shutdown().await;
}

/// A worker that is told to stop still closes its terminals and sockets. ssh
/// ends its `ProxyCommand` by SIGHUP.
pub(super) async fn terminated() -> &'static str {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut term), Ok(mut hup), Ok(mut int)) = signals else {
        tracing::warn!("signals cannot be watched");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = hup.recv() => "SIGHUP",
        _ = int.recv() => "SIGINT",
    }
}

async fn unauthenticated(shared: &Shared) {
    sleep(LOGIN_GRACE).await;
    if shared.authenticated.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Sleeps until the session's end by the wall clock, asked again every minute:
/// the clock may be set meanwhile. Says what there is to say then.
pub(super) async fn expiry(terms: &Terms) -> String {
    let Some(end) = terms.expires_at else { return std::future::pending().await };
    loop {
        let left = u64::try_from(end.saturating_sub(clock::unix_now())).unwrap_or(0);
        if left == 0 {
            return "the session's time is over: ask for a new grant".to_owned();
        }
        sleep(Duration::from_secs(left.min(60))).await;
    }
}
