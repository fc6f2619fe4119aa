//! One attachment: a stream of the line, passed on to a session's worker untouched.
//!
//! Its law: an attachment's end is no session's end. Whatever breaks closes the other side, so that
//! the worker and the client both learn that it is lost; an end is passed on as an end only when
//! both directions came to theirs.

use std::time::Duration;

use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf};
use belay_tunnel::stream::{Reader, Sink, Source, Writer};
use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Pieces taken at once. A piece is at most one packet's payload.
const BATCH: usize = 64;

/// How long the second direction may take to end after the first. The resume layer ends both at
/// once and gives up after five seconds.
const LINGER: Duration = Duration::from_secs(6);

/// One direction broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the line: {0}")]
    Line(std::io::Error),
    #[error("the worker: {0}")]
    Worker(std::io::Error),
    #[error("one direction ended and the other did not")]
    Half,
    #[error("its client left it; the session waits for another")]
    Left,
}

/// Passes bytes until both directions have ended, or one broke. `goes_on` is whether the session
/// outlives the stream that has ended in order: to the relay that is a lost stream.
pub(super) async fn pass(
    mut send: SendHalf,
    mut recv: RecvHalf,
    socket: UnixStream,
    goes_on: impl Future<Output = bool>,
) -> Result<(), Broken> {
    let (read, write) = socket.into_split();
    let passed = both(&mut send, &mut recv, Reader::new(read), Writer::new(write)).await;
    let passed = match passed {
        Ok(()) if goes_on.await => Err(Broken::Left),
        passed => passed,
    };
    match &passed {
        Ok(()) => send.finish(),
        Err(_) => {
            send.reset(ResetCode::GONE);
            recv.stop(ResetCode::GONE);
        }
    }
    passed
}

async fn both(
    send: &mut SendHalf,
    recv: &mut RecvHalf,
    from_worker: Reader<OwnedReadHalf>,
    to_worker: Writer<OwnedWriteHalf>,
) -> Result<(), Broken> {
    let (up, down) = (up(from_worker, send), down(recv, to_worker));
    tokio::pin!(up, down);
    // The bytes of one direction may go on while the other has ended, as long as the resume layer
    // lets them.
    tokio::select! {
        ended = &mut up => {
            ended?;
            timeout(LINGER, down).await.unwrap_or(Err(Broken::Half))
        }
        ended = &mut down => {
            ended?;
            timeout(LINGER, up).await.unwrap_or(Err(Broken::Half))
        }
    }
}

/// To the worker. A socket knows no reset: one that broke is dropped, and the resume layer inside
/// misses its own end.
async fn down(recv: &mut RecvHalf, mut to: Writer<OwnedWriteHalf>) -> Result<(), Broken> {
    let mut pieces = [const { Bytes::new() }; BATCH];
    while let Some(count) = Source::receive(recv, &mut pieces).await.map_err(Broken::Line)? {
        let (filled, _) = pieces.split_at_mut(count.min(BATCH));
        to.send_all(filled).await.map_err(Broken::Worker)?;
    }
    to.finish().await.map_err(Broken::Worker)
}

/// From the worker.
async fn up(mut from: Reader<OwnedReadHalf>, send: &mut SendHalf) -> Result<(), Broken> {
    let mut pieces = [Bytes::new()];
    loop {
        let received = tokio::select! {
            received = from.receive(&mut pieces) => received.map_err(Broken::Worker)?,
            // While nothing comes, a reader that gave up must still be noticed.
            Err(gone) = send.stopped() => return Err(Broken::Line(std::io::Error::other(gone))),
        };
        if received.is_none() {
            return Ok(());
        }
        Sink::send_all(send, &mut pieces).await.map_err(Broken::Line)?;
    }
}
