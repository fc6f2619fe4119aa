//! A worker's start: order, login user. What follows it is [`detachable`] or, on
//! standard input and output, a plain connection.
//!
//! The steps up to the change of user run on one thread without a runtime, and
//! read nothing a peer has sent.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use belay_proto::ids::SessionId;
use belay_proto::recording::{Policy, obligation};
use belay_proto::wire::open::Join;
use belay_tunnel::recording::{Sealer, recipients};
use clap::Args;
use nix::unistd::Uid;
use russh::keys::ssh_key::PublicKey;
use russh::keys::{Certificate, PrivateKey};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::account::Account;
use super::control::Control;
use super::detachable::{self, Moorings};
use super::event::WorkerEvent;
use super::gate::{Actions, Events};
use super::limits::{CLOSINGS, EVENTS};
use super::order::WorkerOrder;
use super::record::Recorder;
use super::ssh::{self, End, Rekey, Serving, Terms};
use super::stdio::{Stdio, StdioArgs};
use super::terminals::Terminals;
use super::wire::Wire;
use super::{clock, lapse, privilege, sys};
use crate::journal::Journal;

/// Arguments of `belay-agent worker`. Without any, a supervisor started it.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkerArgs {
    #[command(flatten)]
    stdio: StdioArgs,
}

/// Sends the log to the journal or, without one, to standard error: as `RUST_LOG` says, or what matters.
/// A worker has none: it closes every descriptor it was not given.
pub fn init_log(journal: Option<Journal>) {
    let filter = EnvFilter::try_from_default_env()
        // The library logs at INFO what we tell better as events.
        .unwrap_or_else(|_| EnvFilter::new("info,russh=warn"));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        Some(journal) => Box::new(journal),
        None => {
            let lines = tracing_subscriber::fmt::layer();
            Box::new(lines.with_writer(std::io::stderr).with_ansi(false))
        }
    };
    let log = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(lapse::Watch.with_filter(LevelFilter::WARN));
    if let Err(error) = log.try_init() {
        tracing::debug!(%error, "there is a log already");
    }
}

/// Serves one session and returns the process's exit status.
pub fn main(args: &WorkerArgs) -> ExitCode {
    sys::close_from_three();
    let result = if args.stdio.wanted() { on_stdio(&args.stdio) } else { supervised() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            // As ssh and sshd: the line itself failed.
            ExitCode::from(255)
        }
    }
}

/// All that is decided before the first byte.
pub(super) struct Session {
    pub(super) terms: Terms,
    pub(super) host_key: PrivateKey,
    pub(super) host_certificate: Option<Certificate>,
    pub(super) account: Account,
    pub(super) recording: Policy,
    pub(super) input: Input,
    /// What is recorded is sealed by it.
    pub(super) sealer: Option<Sealer>,
    /// The other session that this one joins.
    pub(super) joins: Option<Joins>,
}

/// A terminal of another session, and the way to it.
pub(super) struct Joins {
    join: Join,
    /// To that one's worker, until somebody uses it.
    host: Mutex<Option<OwnedFd>>,
}

impl Joins {
    /// The way there, once.
    pub(super) fn take(&self) -> Option<OwnedFd> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// For people: `join 0197… terminal 2, looks on`.
    pub(super) fn words(&self) -> String {
        let Join { session, terminal, .. } = &self.join;
        let terminal = terminal.map(|number| format!(" terminal {number}")).unwrap_or_default();
        let how = if self.join.may_type() { "may type" } else { "looks on" };
        format!("join {session}{terminal}, {how}")
    }
}

/// Whether what is typed at a recorded session's terminals is recorded too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// As far as the terminal echoes it.
    Recorded,
    Unrecorded,
}

impl Input {
    fn of(order: &WorkerOrder) -> Self {
        let wanted = order.obligations.iter().any(|named| named == obligation::RECORD_INPUT);
        if wanted { Self::Recorded } else { Self::Unrecorded }
    }
}

fn supervised() -> anyhow::Result<()> {
    privilege::hide()?;
    // A group leader cannot, and needs not.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "the worker stays in its session");
    }
    // Ours is the supervisor's user until the order says which login.
    let owner = Uid::effective();
    let listener = stdin().as_fd().try_clone_to_owned().context("no door on standard input")?;
    let control = std::io::stdout().as_fd().try_clone_to_owned().context("no control socket")?;
    release_stdio()?;
    let mut control = Control::new(control)?;
    let prepared = control
        .read()
        .context("no order from the supervisor")
        .and_then(|order| Ok(WorkerOrder::decode(&order)?))
        .and_then(|order| {
            let joins = match order.joins.clone() {
                Some(join) => {
                    let host = control.read_socket().context("no way to the session to join")?;
                    Some(Joins { join, host: Mutex::new(Some(host)) })
                }
                None => None,
            };
            Ok((prepare(&order, joins)?, order.windows))
        });
    let (session, windows) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let reason = format!("{error:#}");
            control.send(WorkerEvent::Refused { reason: reason.clone() })?;
            control.send(WorkerEvent::Ended { reason })?;
            return Err(error);
        }
    };
    control.send(started(&session.account))?;
    let moorings = Moorings { listener, control, owner, windows };
    runtime()?.block_on(detachable::serve(session, moorings))
}

fn prepare(order: &WorkerOrder, joins: Option<Joins>) -> anyhow::Result<Session> {
    clock::correct(order.clock_correction)?;
    let host_key =
        PrivateKey::from_openssh(&*order.host_key).context("the order's host key is not valid")?;
    let host_certificate = match &order.host_certificate {
        Some(line) => Some(
            Certificate::from_openssh(line.trim())
                .context("the order's host certificate is not valid")?,
        ),
        None => None,
    };
    let authorities = order
        .user_cas
        .iter()
        .map(|line| {
            PublicKey::from_openssh(line.trim()).context("the order's user authority is not valid")
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let terms = Terms {
        session: order.session,
        user: order.user.clone(),
        login: order.login.clone(),
        actions: Actions::from_tokens(&order.actions),
        authorities,
        plain_keys: Vec::new(),
        expires_at: Some(i64::try_from(order.expires_at).unwrap_or(i64::MAX)),
        env: order.env.clone(),
        rekey: Rekey::default(),
        accept_env: Vec::new(),
    };
    let account = take_on(&terms.login)?;
    let recording = Policy::of(&order.obligations);
    let sealer = sealer(order, recording)?;
    let input = Input::of(order);
    Ok(Session { terms, host_key, host_certificate, account, recording, input, sealer, joins })
}

/// Nothing is recorded in plain where sealing was asked for: without auditors there is no session.
fn sealer(order: &WorkerOrder, recording: Policy) -> anyhow::Result<Option<Sealer>> {
    let wanted = order.obligations.iter().any(|named| named == obligation::SEAL);
    if recording == Policy::Off || (!wanted && order.recipients.is_empty()) {
        return Ok(None);
    }
    let recipients = recipients(&order.recipients).context(
        "the recording is to be sealed, and the relay names nobody it could be sealed to",
    )?;
    Ok(Some(Sealer::new(SessionId::from_uuid(order.session), &recipients)?))
}

fn take_on(login: &str) -> anyhow::Result<Account> {
    let account = Account::admit(login, clock::unix_now())?;
    privilege::become_user(&account)?;
    Ok(account)
}

fn on_stdio(args: &StdioArgs) -> anyhow::Result<()> {
    let Stdio { mut terms, host_key, host_certificate, clock_correction, lasts } = args.read()?;
    clock::correct(clock_correction)?;
    terms.expires_at = lasts.map(|seconds| clock::unix_now().saturating_add(seconds));
    let input = stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    release_stdio()?;
    let account = take_on(&terms.login)?;
    tracing::debug!(event = ?started(&account));
    // Nobody is there who could keep a recording.
    let recording = Policy::Off;
    let session = Session {
        terms,
        host_key,
        host_certificate,
        account,
        recording,
        input: Input::Unrecorded,
        sealer: None,
        joins: None,
    };
    runtime()?.block_on(serve_pipes(session, input, output))
}

/// Nothing but the wire itself may hold the peer's descriptors: whoever keeps a
/// copy open hides the end of the connection from the other side.
fn release_stdio() -> anyhow::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

fn started(account: &Account) -> WorkerEvent {
    WorkerEvent::Started {
        login: account.name.clone(),
        uid: account.uid.as_raw(),
        pid: std::process::id(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only names are looked up off the thread.
        .max_blocking_threads(4)
        .build()
}

/// Serves whoever is at the other end of standard input and output.
async fn serve_pipes(session: Session, input: OwnedFd, output: OwnedFd) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel(EVENTS + CLOSINGS);
    let out = output.try_clone()?;
    let wire = Wire::new(input, output).context("the session's descriptors cannot be watched")?;
    let events = Events::new(sender.clone(), Recorder::default());
    // There is no door to come back through.
    let terminals = Terminals::new(events.clone(), false, (&session.terms.user, false));
    let (session, parting) = (Arc::new(session), Arc::default());
    let serving = Serving { session, terminals: Arc::clone(&terminals), events, parting };
    let teller = log_events(receiver);
    tokio::pin!(teller);
    let never = std::future::pending();
    let End { reason, clean, .. } = tokio::select! {
        end = ssh::serve(wire, Some(out), serving, never) => end,
        () = &mut teller => anyhow::bail!("the events have no way out"),
    };
    terminals.hang_up_all().await;
    tracing::info!(%reason, "session ended");
    drop(sender.send(WorkerEvent::Ended { reason: reason.clone() }).await);
    teller.await;
    anyhow::ensure!(clean, reason);
    Ok(())
}

async fn log_events(mut events: mpsc::Receiver<WorkerEvent>) {
    while let Some(event) = events.recv().await {
        tracing::debug!(?event);
        if matches!(event, WorkerEvent::Ended { .. }) {
            break;
        }
    }
}
