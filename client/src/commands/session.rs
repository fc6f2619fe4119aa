//! What `shell`, `exec`, `attach` and `join` share: one session, from the login to the exit status.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::names::Login as LoginName;
use tokio::time::timeout;

use super::break_glass::Glass;
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::kept::Entry;
use crate::line::Line;
use crate::run::Context;
use crate::ssh::{self, Job, PtyRequest, Work};
use crate::stdio::{Sink, Source, Which};
use crate::terminal::{self, Local, Size};

/// How long the last words may take. Where they arrive this takes a round trip; a device that misses
/// them keeps a session with nothing in it for as long as one whose client may come back.
const GOODBYE: Duration = Duration::from_millis(300);

/// The same with a terminal: a device that misses them keeps it for another client. Where they
/// arrive this takes a round trip.
const GOODBYE_TERMINAL: Duration = Duration::from_secs(1);

/// How long the keeper may take to say why a session ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Which device, as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The device: its name or UUID
    device: DeviceRef,
    /// The account on the device
    #[arg(long, short = 'l', value_name = "ACCOUNT", env = "BELAY_LOGIN", default_value = "root")]
    login: LoginName,
    #[command(flatten)]
    glass: Glass,
}

impl Target {
    pub(super) fn new(device: DeviceRef, login: LoginName) -> Self {
        Self { device, login, glass: Glass::default() }
    }
}

/// Whether to ask for a terminal over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pty {
    /// When a person types here.
    WhenInteractive,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Runs `work` on the device in a session of its own; the process's exit status.
pub(super) async fn run(
    context: &Context,
    target: Target,
    work: Work,
    pty: Pty,
) -> Result<u8, Failure> {
    let entry = Entry::New(target.glass.reason()?);
    run_in(context, target, entry, work, pty).await
}

/// The same in a session that begins as is said.
pub(super) async fn run_in(
    context: &Context,
    target: Target,
    entry: Entry,
    work: Work,
    pty: Pty,
) -> Result<u8, Failure> {
    let login = context.home.live_login()?;
    let out = Arc::new(Sink::open(Which::Out).map_err(no_output)?);
    let err = Arc::new(Sink::open(Which::Err).map_err(no_output)?);
    let interactive = terminal::is_interactive();
    let pty = match pty {
        Pty::WhenInteractive => interactive,
        Pty::Always => true,
        Pty::Never => false,
    };
    let goodbye = if pty { GOODBYE_TERMINAL } else { GOODBYE };
    let line = Line::connect(&login).await?;
    let target = (&target.device, &target.login, entry);
    let (mut connected, mut kept) =
        ssh::connect(&context.home, line, &login, target, out, err).await?;
    let job = Job {
        work,
        pty: pty.then(|| PtyRequest {
            term: std::env::var("TERM").unwrap_or_else(|_| "dumb".into()),
            size: if interactive { Size::now() } else { Size::USUAL },
            modes: terminal::modes(),
        }),
        environment: locale(),
    };
    let stdin = Source::stdin()
        .map_err(|e| Failure::new("input", format!("cannot use standard input: {e}")))?;
    let mut local = Local::new(pty && interactive)
        .map_err(|e| Failure::new("terminal", format!("cannot take the terminal: {e}")))?;
    let exit = ssh::run(&mut connected, &job, stdin, &mut local, kept.weather()).await;
    // The terminal is itself again before anything is said on it.
    drop(local);
    connected.hang_up().await;
    match exit {
        Ok(exit) => {
            kept.leave(goodbye).await;
            Ok(exit.0)
        }
        // The keeper knows better why the session broke, when it did.
        Err(failure) if failure.is_loss() => match timeout(LAST_WORDS, kept.end()).await {
            Ok(Err(why)) => Err(why),
            Ok(Ok(())) | Err(_) => Err(failure),
        },
        Err(failure) => {
            kept.leave(goodbye).await;
            Err(failure)
        }
    }
}

fn no_output(error: io::Error) -> Failure {
    Failure::new("output", format!("cannot use standard output and error: {error}"))
}

/// What ssh sends on most systems (SendEnv LANG LC_*); the device takes what it allows.
fn locale() -> Vec<(String, String)> {
    let wanted = |name: &str| name == "LANG" || name.starts_with("LC_");
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| wanted(name))
        .take(MAX_VARIABLES)
        .collect()
}

/// Variables sent: there are fourteen of these in POSIX and glibc together.
const MAX_VARIABLES: usize = 32;
