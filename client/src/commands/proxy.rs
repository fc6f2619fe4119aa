//! `belay proxy HOST`: the data path of plain `ssh`.
//!
//! Bytes are passed as they come: from the descriptor into a piece, the piece into the session, and
//! back without a copy. ssh's first words leave with `Open`, before the relay has answered. While
//! the line is down ssh is simply not read from for as long as it fills the replay buffer.

use std::pin::Pin;
use std::time::Duration;

use belay_proto::names::Login as LoginName;
use belay_tunnel::stream::{RecvEnd, SendEnd};
use bytes::Bytes;
use tokio::time::timeout;

use super::break_glass::Glass;
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::kept::Session;
use crate::line::Line;
use crate::output;
use crate::run::Context;
use crate::stdio::{self, Sink, Source, Which};

/// Pieces taken at once. A piece is at most one packet's payload.
const BATCH: usize = 64;

/// How long the last words may take: two round trips where they arrive. Nobody waits for us
/// meanwhile: ssh has ended, and its standard error was let go of.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long ssh, which has hung up, may take to close its end of the pipe: it does so as it exits.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Used by the block of belay ssh-config; by hand:\n\nExample:\n  ssh -o ProxyCommand='belay proxy --login %r %h' root@pump-17.belay"
)]
pub struct Args {
    /// The device: NAME, NAME.belay, UUID or UUID.belay
    host: DeviceRef,
    /// The account ssh will log in to
    #[arg(long, short = 'l', value_name = "ACCOUNT", env = "BELAY_LOGIN", default_value = "root")]
    login: LoginName,
    #[command(flatten)]
    glass: Glass,
}

/// Carries one connection.
///
/// # Errors
/// When the session is refused, or ends for good before ssh is done with it.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let glass = args.glass.reason()?;
    let login = context.home.live_login()?;
    let local = |e: std::io::Error| {
        Failure::new("input", format!("cannot use standard input and output: {e}"))
    };
    let stdin = Source::stdin().map_err(local)?;
    let stdout = Sink::open(Which::Out).map_err(local)?;
    let line = Line::connect(&login).await?;
    let Session { send, recv, mut kept } =
        Session::open(context.home.clone(), line, (&args.host, &args.login), glass).await?;
    let mut up = Up(Some(Box::pin(up(stdin, send))));
    let done = tokio::select! {
        done = carry(&mut up, down(recv, stdout)) => done,
        // ssh hangs up on its ProxyCommand when it ends; the device is to hear that.
        () = told_to_end() => Done::Left,
    };
    // What ssh said last is in the pipe by then, and it matters: without its goodbye the device
    // takes it for killed, and keeps its terminal.
    let last_words = match done {
        Done::Left => {
            // ssh's own, and whoever started it may wait for its end: there is nothing to say there.
            stdio::let_go_of_stderr();
            match up.0 {
                Some(_) => timeout(LAST_WORDS, up.ended()).await.ok(),
                None => None,
            }
        }
        Done::Ended | Done::Gone | Done::Broken(_) => None,
    };
    drop(last_words);
    // Our end with it: what was not finished is reset.
    drop(up);
    match done {
        Done::Broken(failure) => {
            kept.leave(GOODBYE).await;
            Err(failure)
        }
        Done::Ended | Done::Left => {
            // ssh has its end, and nobody shall wait for ours by our standard error.
            stdio::let_go_of_stderr();
            kept.leave(GOODBYE).await;
            Ok(())
        }
        // Why, the keeper knows.
        Done::Gone => kept.end().await,
    }
}

/// How the carrying came to its end.
enum Done {
    /// The device's side ended, and everything was written out.
    Ended,
    /// ssh went away.
    Left,
    /// The session is over.
    Gone,
    /// Our own descriptors broke.
    Broken(Failure),
}

/// Waits for a hang-up or a termination. Where signals cannot be taken, for ever.
#[cfg(unix)]
async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (hang_up, terminate) = (signal(SignalKind::hangup()), signal(SignalKind::terminate()));
    if let (Ok(mut hang_up), Ok(mut terminate)) = (hang_up, terminate) {
        tokio::select! {
            _ = hang_up.recv() => {}
            _ = terminate.recv() => {}
        }
    } else {
        std::future::pending::<()>().await;
    }
}

#[cfg(not(unix))]
async fn told_to_end() {
    std::future::pending::<()>().await;
}

/// The session is over when the device's side is: ssh reads our end as the end of its connection.
/// Our side may end sooner, and is then only half closed.
async fn carry(
    up: &mut Up<impl Future<Output = Result<SendEnd, Done>>>,
    down: impl Future<Output = Done>,
) -> Done {
    tokio::pin!(down);
    tokio::select! {
        done = &mut down => done,
        sent = up.ended() => match sent {
            Ok(finished) => {
                let done = down.await;
                drop(finished);
                done
            }
            Err(Done::Broken(failure)) => Done::Broken(failure),
            // What broke the way up, the way down ends with too; it brings the last bytes.
            Err(Done::Ended | Done::Left | Done::Gone) => down.await,
        },
    }
}

/// The way up, until it has ended.
struct Up<F>(Option<Pin<Box<F>>>);

impl<F: Future> Up<F> {
    /// Waits for its end, once. Cancel-safe.
    async fn ended(&mut self) -> F::Output {
        let Some(up) = &mut self.0 else { return std::future::pending().await };
        let ended = up.await;
        self.0 = None;
        ended
    }
}

/// Standard input to the session. The end that is handed back has been finished.
async fn up(mut stdin: Source, mut send: SendEnd) -> Result<SendEnd, Done> {
    loop {
        match stdin.next().await {
            Ok(Some(mut bytes)) => {
                if send.send(&mut bytes).await.is_err() {
                    return Err(Done::Gone);
                }
            }
            Ok(None) => {
                send.finish();
                return Ok(send);
            }
            Err(error) => {
                let failure = Failure::new("input", format!("cannot read standard input: {error}"));
                return Err(Done::Broken(failure));
            }
        }
    }
}

async fn down(mut recv: RecvEnd, stdout: Sink) -> Done {
    let broken = |error: std::io::Error| Done::Broken(output::write_failure(&error));
    let mut pieces = [const { Bytes::new() }; BATCH];
    loop {
        match recv.receive(&mut pieces).await {
            Ok(Some(count)) => {
                let (filled, _) = pieces.split_at_mut(count.min(BATCH));
                if let Err(error) = stdout.write_pieces(filled).await {
                    return broken(error);
                }
            }
            Ok(None) => {
                return match stdout.finish().await {
                    Ok(()) => Done::Ended,
                    Err(error) => broken(error),
                };
            }
            Err(_) => return Done::Gone,
        }
    }
}
