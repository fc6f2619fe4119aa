//! Moving bytes between a channel and a descriptor.
//!
//! Outward the library's window holds us back; inward the channel's
//! [`Queue`] does. Both copy in large pieces and never block the thread.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::unix::AsyncFd;

use super::queue::Queue;
use crate::worker::gate::Admitted;
use crate::worker::limits::COPY_CHUNK;
use crate::worker::process::read_some;
use crate::worker::record::Track;

/// RFC 4254, section 5.2: `SSH_EXTENDED_DATA_STDERR`.
pub(super) const STDERR: u32 = 1;

/// What a client's bytes go into.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// A program's standard input; its track tells their length and digest.
    Pipe(Option<&'a Track>),
    /// A terminal: they are typed.
    Terminal(&'a Track),
}

impl Input<'_> {
    fn write(self, fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(track) => track.type_into(fd, bytes),
            Self::Pipe(track) => {
                let written = rustix::io::write(fd, bytes)?;
                if let Some(track) = track {
                    track.input(bytes.get(..written).unwrap_or_default());
                }
                Ok(written)
            }
        }
    }
}

/// From the client's queue into `sink`, until the client ends or the sink
/// breaks; a broken sink abandons the queue.
pub(super) async fn inward(
    queue: &Queue,
    sink: &AsyncFd<OwnedFd>,
    admitted: &Admitted,
    into: Input<'_>,
) {
    while queue.ready().await {
        if let Input::Terminal(track) = into {
            track.room_to_type().await;
        }
        let written = match sink.writable().await {
            Ok(mut guard) => {
                guard.try_io(|fd| queue.consume(|bytes| into.write(fd.get_ref(), bytes)))
            }
            Err(error) => Ok(Err(error)),
        };
        match written {
            Ok(Ok(bytes)) => admitted.received(bytes as u64),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the program reads no more");
                queue.abandon();
                return;
            }
            Err(_would_block) => {}
        }
    }
}

/// From `source` to the client, until it ends (a terminal ends with `EIO`) or
/// the channel is gone.
pub(super) async fn outward(
    source: &AsyncFd<OwnedFd>,
    client: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
    admitted: &Admitted,
    track: Option<&Track>,
) {
    let mut buffer = vec![0; COPY_CHUNK];
    loop {
        if let Some(track) = track {
            track.room().await;
        }
        let Some(read) = read_some(source, &mut buffer).await else { return };
        admitted.sending();
        let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        match (track, extended) {
            (Some(track), None) => track.output(&bytes),
            (Some(track), Some(_)) => track.error(&bytes),
            (None, _) => {}
        }
        let sent = match extended {
            None => client.data_bytes(bytes).await,
            Some(code) => client.extended_data_bytes(code, bytes).await,
        };
        if sent.is_err() {
            return;
        }
        admitted.sent(read as u64);
    }
}
