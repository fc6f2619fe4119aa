//! A worker's life: order, login user, one connection, end.
//!
//! The steps up to the change of user run on one thread without a runtime, and
//! read nothing a peer has sent.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use russh::keys::ssh_key::PublicKey;
use russh::keys::{Certificate, PrivateKey};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::account::Account;
use super::control::{Control, write_events};
use super::event::WorkerEvent;
use super::gate::{Actions, Events};
use super::limits::{EVENTS, FAREWELL};
use super::order::WorkerOrder;
use super::ssh::{self, End, Rekey, Terms};
use super::stdio::{Stdio, StdioArgs};
use super::wire::Wire;
use super::{clock, lapse, privilege};

/// Arguments of `belay-agent worker`. Without any, a supervisor started it.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkerArgs {
    #[command(flatten)]
    stdio: StdioArgs,
}

/// Sends the log to standard error, as `RUST_LOG` says, or what matters.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env()
        // The library logs at INFO what we tell better as events.
        .unwrap_or_else(|_| EnvFilter::new("info,russh=warn"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let log = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(lapse::Watch.with_filter(LevelFilter::WARN));
    if let Err(error) = log.try_init() {
        tracing::debug!(%error, "there is a log already");
    }
}

/// Serves one session and returns the process's exit status.
pub fn main(args: &WorkerArgs) -> ExitCode {
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
struct Session {
    terms: Terms,
    host_key: PrivateKey,
    host_certificate: Option<Certificate>,
    account: Account,
}

fn supervised() -> anyhow::Result<()> {
    privilege::hide()?;
    // A group leader cannot, and needs not.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "the worker stays in its session");
    }
    let data = stdin().as_fd().try_clone_to_owned().context("no session on standard input")?;
    let control = std::io::stdout().as_fd().try_clone_to_owned().context("no control socket")?;
    release_stdio()?;
    let mut control = Control::new(control)?;
    let prepared =
        control.read().context("no order from the supervisor").and_then(|order| prepare(&order));
    let session = match prepared {
        Ok(session) => session,
        Err(error) => {
            let reason = format!("{error:#}");
            control.send(&WorkerEvent::Refused { reason: reason.clone() })?;
            control.send(&WorkerEvent::Ended { reason })?;
            return Err(error);
        }
    };
    control.send(&started(&session.account))?;
    let input = data.try_clone()?;
    run(session, input, data, Some(control))
}

fn prepare(order: &[u8]) -> anyhow::Result<Session> {
    let order = WorkerOrder::decode(order)?;
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
    Ok(Session { terms, host_key, host_certificate, account })
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
    run(Session { terms, host_key, host_certificate, account }, input, output, None)
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

fn run(
    session: Session,
    input: OwnedFd,
    output: OwnedFd,
    control: Option<Control>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only names are looked up off the thread.
        .max_blocking_threads(4)
        .build()?;
    runtime.block_on(async {
        let (sender, receiver) = mpsc::channel(EVENTS);
        let out = output.try_clone()?;
        let wire = Wire::new(input, output).context("the session's descriptors cannot be watched")?;
        let Session { terms, host_key, host_certificate, account } = session;
        let events = Events::new(sender.clone());
        let teller = async {
            match control {
                Some(control) => write_events(control.into_async()?, receiver).await,
                None => {
                    log_events(receiver).await;
                    Ok(())
                }
            }
        };
        tokio::pin!(teller);
        let End { reason, clean } = tokio::select! {
            end = ssh::serve(wire, out, terms, account, (host_key, host_certificate), events) => end,
            // It ends before us only when nobody listens.
            gone = &mut teller => {
                gone.context("the supervisor is gone")?;
                anyhow::bail!("the supervisor is gone");
            }
        };
        tracing::info!(%reason, "session ended");
        drop(sender.send(WorkerEvent::Ended { reason: reason.clone() }).await);
        drop(sender);
        match tokio::time::timeout(FAREWELL, teller).await {
            Ok(told) => told.context("the last events were not delivered")?,
            Err(_) => anyhow::bail!("the supervisor does not take the last events"),
        }
        anyhow::ensure!(clean, reason);
        Ok(())
    })
}

async fn log_events(mut events: mpsc::Receiver<WorkerEvent>) {
    while let Some(event) = events.recv().await {
        tracing::debug!(?event);
        if matches!(event, WorkerEvent::Ended { .. }) {
            break;
        }
    }
}
