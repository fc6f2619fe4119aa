//! A channel joined to a socket: what all forwards have in common.

use std::os::fd::OwnedFd;
use std::pin::pin;

use russh::ChannelWriteHalf;
use russh::server::Msg;
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pump::{Input, inward, outward};
use super::registry::Entry;
use super::tail::tail;
use crate::worker::gate::Admitted;
use crate::worker::limits::COPY_CHUNK;
use crate::worker::process::read_some;
use crate::worker::sys;

/// Copies both ways until both have ended; each end of file is passed on.
pub(super) async fn relay(
    socket: OwnedFd,
    client: &ChannelWriteHalf<Msg>,
    entry: &Entry,
    leave: &Admitted,
) -> std::io::Result<()> {
    let socket = sys::watch(socket, Interest::READABLE | Interest::WRITABLE)?;
    let mut input = pin!(async {
        tokio::select! {
            () = inward(&entry.queue, &socket, leave, Input::Pipe(None)) => {}
            // What the client sent before it closed still counts.
            () = entry.closed.cancelled() => tail(&entry.queue, &socket, leave, None).await,
        }
        // The other side may have closed already.
        if let Err(error) = rustix::net::shutdown(socket.get_ref(), Shutdown::Write) {
            tracing::trace!(%error, "a forward's target is gone");
        }
    });
    let mut output = pin!(async {
        tokio::select! {
            () = outward(&socket, client, None, leave, None) => {}
            () = entry.closed.cancelled() => swallow(&socket).await,
        }
        client.eof().await
    });
    let (mut input_done, mut output_done) = (false, false);
    while !(input_done && output_done) {
        tokio::select! {
            () = &mut input, if !input_done => input_done = true,
            sent = &mut output, if !output_done => {
                output_done = true;
                if sent.is_err() {
                    break;
                }
            }
            () = entry.closed.cancelled() => {
                let discarded = async {
                    if !output_done {
                        drop(output.await);
                    }
                    std::future::pending::<()>().await;
                };
                if !input_done {
                    tokio::select! {
                        () = input => {}
                        () = discarded => {}
                    }
                }
                return Ok(());
            }
        }
    }
    if client.close().await.is_err() {
        tracing::debug!("the connection ended before its forward");
    }
    Ok(())
}

/// A target that waits to be heard would read nothing more.
async fn swallow(socket: &AsyncFd<OwnedFd>) {
    let mut buffer = vec![0; COPY_CHUNK];
    while read_some(socket, &mut buffer).await.is_some() {}
}
