//! A resumable session's bytes as the SSH library wants them.
//!
//! Dropped, it ends the session's stream in order where the stream itself would
//! give it up: the library drops it when it is done, and what it has sent shall
//! still arrive.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use belay_tunnel::stream::{Ended, RecvEnd, SendEnd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{FIRST, NO_SSH};

pub(super) struct Greeted {
    send: SendEnd,
    recv: RecvEnd,
    begun: bool,
}

impl Greeted {
    pub(super) const fn new(send: SendEnd, recv: RecvEnd) -> Self {
        Self { send, recv, begun: false }
    }
}

impl Drop for Greeted {
    fn drop(&mut self) {
        self.send.finish();
    }
}

/// The resume layer's own violations are no bad SSH.
fn told_apart(error: io::Error) -> io::Error {
    let violation = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Ended>())
        .is_some_and(|ended| matches!(ended, Ended::Violation(_)));
    if violation { io::Error::other(error) } else { error }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = into.filled().len();
        ready!(Pin::new(&mut this.recv).poll_read(cx, into)).map_err(told_apart)?;
        if !this.begun
            && let Some(first) = into.filled().get(before)
        {
            this.begun = true;
            if *first != FIRST {
                let told = Pin::new(&mut this.send).poll_write(cx, NO_SSH);
                tracing::debug!(?told, "the peer does not speak SSH");
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
