//! `belay proxy HOST`: the data path of plain `ssh`.
//!
//! Bytes are passed as they come: from the descriptor into a piece, the piece into the carrier, and
//! back without a copy. ssh's first words leave with `Open`, before the relay has answered.

use belay_proto::names::Login as LoginName;
use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf};
use bytes::Bytes;

use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::line::{Answering, Line, stream_failure};
use crate::output;
use crate::run::Context;
use crate::stdio::{Sink, Source, Which};

/// Pieces taken at once. A piece is at most one packet's payload.
const BATCH: usize = 64;

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
}

/// Carries one connection.
///
/// # Errors
/// When the session is refused or the line is lost.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let local = |e: std::io::Error| {
        Failure::new("input", format!("cannot use standard input and output: {e}"))
    };
    let stdin = Source::stdin().map_err(local)?;
    let stdout = Sink::open(Which::Out).map_err(local)?;
    let line = Line::connect(&login).await?;
    let (send, answering) = line.open(&args.host, &args.login).await?.split();
    let result = tokio::select! {
        result = carry(stdin, send, answering, stdout) => result,
        // ssh hangs up on its ProxyCommand when it ends; the relay is to hear that too.
        () = told_to_end() => Ok(()),
    };
    let result = match result {
        Ok(()) => Ok(()),
        Err(failure) => Err(line.explain(failure).await),
    };
    line.close().await;
    result
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

async fn carry(
    stdin: Source,
    send: SendHalf,
    answering: Answering,
    stdout: Sink,
) -> Result<(), Failure> {
    let up = up(stdin, send);
    let down = async {
        let (recv, _) = answering.answer().await?;
        down(recv, stdout).await
    };
    tokio::pin!(up, down);
    // The session is over when the device's side is: ssh reads our end as the end of its
    // connection. Our side may end sooner, and is then only half closed.
    tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => {
            // What broke the way up, the way down explains; it also brings the last bytes. When it
            // ends well, the device had simply read enough.
            match (down.await, ended) {
                (Ok(()), Err(failure)) if failure.is_loss() => Ok(()),
                (last, ended) => last.and(ended),
            }
        }
    }
}

async fn up(mut stdin: Source, mut send: SendHalf) -> Result<(), Failure> {
    loop {
        let chunk = tokio::select! {
            chunk = stdin.next() => chunk,
            stopped = send.stopped() => return stopped.map_err(|e| stream_failure(&e)),
        };
        match chunk {
            Ok(Some(bytes)) => send.send(bytes).await.map_err(|e| stream_failure(&e))?,
            Ok(None) => {
                send.finish();
                return Ok(());
            }
            Err(error) => {
                send.reset(ResetCode::GONE);
                return Err(Failure::new("input", format!("cannot read standard input: {error}")));
            }
        }
    }
}

async fn down(mut recv: RecvHalf, stdout: Sink) -> Result<(), Failure> {
    let broken = |error: std::io::Error| output::write_failure(&error);
    let mut pieces = [const { Bytes::new() }; BATCH];
    loop {
        match recv.receive(&mut pieces).await.map_err(|e| stream_failure(&e))? {
            Some(count) => {
                let (filled, _) = pieces.split_at_mut(count.min(BATCH));
                if let Err(error) = stdout.write_pieces(filled).await {
                    recv.stop(ResetCode::GONE);
                    return Err(broken(error));
                }
            }
            None => return stdout.finish().await.map_err(broken),
        }
    }
}
