//! What a client had sent to a channel before it closed it: its program may still take that in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout};

use super::queue::Queue;
use crate::worker::gate::Admitted;
use crate::worker::limits::TAIL_IDLE_MAX;
use crate::worker::record::Track;

/// A socket has room some time before it says so.
const LOOK: Duration = Duration::from_secs(1);

/// From the queue of a closed channel into `sink`, for as long as it takes some of it. What the kernel's own buffer
/// holds a program can read later as well.
pub(super) async fn tail(
    queue: &Queue,
    sink: &AsyncFd<OwnedFd>,
    leave: &Admitted,
    track: Option<&Track>,
) {
    let put = |fd: &AsyncFd<OwnedFd>| {
        queue.consume(|bytes| {
            let written = rustix::io::write(fd, bytes)?;
            if let Some(track) = track {
                track.input(bytes.get(..written).unwrap_or_default());
            }
            Ok(written)
        })
    };
    let mut taken_at = Instant::now();
    while queue.ready().await {
        let written = match timeout(LOOK, sink.writable()).await {
            Ok(Ok(mut room)) => {
                room.try_io(put).unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => put(sink),
        };
        match written {
            Ok(bytes) => {
                leave.received(bytes as u64);
                taken_at = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if taken_at.elapsed() > TAIL_IDLE_MAX {
                    tracing::debug!("a program does not read what its client left");
                    break;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the program reads no more");
                break;
            }
        }
    }
    queue.abandon();
}
