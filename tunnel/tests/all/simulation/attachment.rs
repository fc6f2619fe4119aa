//! One attachment at the device: a stream of the line, passed on to the worker's socket, as
//! `device-agent/src/supervisor/attachment.rs` does it.

use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::stream::{Reader, Sink as _, Source as _, Writer};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex, split};
use tokio::time::timeout;

use super::carrier::Gone;
use super::pipe::{RecvHalf, SendHalf};
use super::session::TAKEN;
use super::worker::Worker;

/// Bytes a socket holds each way.
const SOCKET: usize = 64 << 10;

const BATCH: usize = 64;

/// How long the second direction may take to end after the first.
const LINGER: Duration = Duration::from_secs(6);

/// Answers what was delivered, and passes bytes until both directions have ended or one broke.
pub(super) async fn serve(mut send: SendHalf, mut recv: RecvHalf, worker: Arc<Worker>) {
    if recv.byte().await.is_err() || send.send(Bytes::from_static(&[TAKEN])).await.is_err() {
        return;
    }
    let (ours, theirs) = duplex(SOCKET);
    worker.attach(theirs);
    if both(&mut send, &mut recv, ours).await.is_ok() {
        send.finish();
    }
}

async fn both(send: &mut SendHalf, recv: &mut RecvHalf, socket: DuplexStream) -> Result<(), Gone> {
    let (read, write) = split(socket);
    let (up, down) = (up(Reader::new(read), send), down(recv, Writer::new(write)));
    tokio::pin!(up, down);
    tokio::select! {
        biased;
        ended = &mut up => {
            ended?;
            timeout(LINGER, down).await.unwrap_or(Err(Gone))
        }
        ended = &mut down => {
            ended?;
            timeout(LINGER, up).await.unwrap_or(Err(Gone))
        }
    }
}

async fn down<W>(recv: &mut RecvHalf, mut to: Writer<W>) -> Result<(), Gone>
where
    W: AsyncWrite + Unpin + Send,
{
    let mut pieces = [const { Bytes::new() }; BATCH];
    while let Some(count) = recv.receive(&mut pieces).await? {
        to.send_all(&mut pieces[..count]).await.map_err(|_| Gone)?;
    }
    to.finish().await.map_err(|_| Gone)
}

async fn up<R>(mut from: Reader<R>, send: &mut SendHalf) -> Result<(), Gone>
where
    R: AsyncRead + Unpin + Send,
{
    let mut pieces = [Bytes::new()];
    loop {
        let received = tokio::select! {
            biased;
            received = from.receive(&mut pieces) => received.map_err(|_| Gone)?,
            () = send.stopped() => return Err(Gone),
        };
        if received.is_none() {
            return Ok(());
        }
        send.send(std::mem::take(&mut pieces[0])).await?;
    }
}
