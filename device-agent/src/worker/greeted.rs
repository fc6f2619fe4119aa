//! A resumable session's bytes as the SSH library wants them, and how they came to their end.
//!
//! Dropped, it ends the session's stream in order where the stream itself would give it up: the
//! library drops it when it is done, and what it has sent shall still arrive. Where terminals stay
//! behind, it gives the stream up instead: the client is to go, and the session is not over.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use belay_tunnel::stream::{Ended, RecvEnd, ResetCode, SendEnd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dock::Harbour;
use super::terminals::Terminals;
use super::wire::{FIRST, NO_SSH};

/// The session's terminals wait for another client; this stream is over.
const LEFT: ResetCode = ResetCode(4);

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// The client said goodbye.
    Client,
    /// It went without a word, or what it said was no SSH.
    Nobody,
    /// Another client has the session.
    Taken,
    /// The session was ended from outside.
    Outside,
}

/// What becomes of the session when a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its terminals wait for another client, or one has them already.
    GoesOn,
    Over,
}

/// How a connection ends, for both who carry it and who serve it.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Ended from our side, and why.
    ours: OnceLock<Leave>,
    /// The client's own goodbye came before the end of its bytes.
    goodbye: AtomicBool,
    fate: OnceLock<Fate>,
    closed: AtomicBool,
}

impl Parting {
    /// It ends from our side. The first reason counts.
    pub(super) fn ours(&self, leave: Leave) {
        self.ours.get_or_init(|| leave);
    }

    pub(super) fn leave(&self) -> Leave {
        let goodbye = self.goodbye.load(Ordering::Relaxed);
        let theirs = if goodbye { Leave::Client } else { Leave::Nobody };
        self.ours.get().copied().unwrap_or(theirs)
    }

    /// Decided once, at the end, by who ended it and what is left behind.
    pub(super) fn fate(&self, terminals: &Terminals) -> Fate {
        *self.fate.get_or_init(|| {
            let left_behind = match self.leave() {
                Leave::Client => terminals.any_waits(),
                Leave::Nobody => !terminals.is_empty(),
                Leave::Taken => true,
                Leave::Outside => false,
            };
            if left_behind && terminals.keeps() { Fate::GoesOn } else { Fate::Over }
        })
    }

    /// Whether the stream was ended as its end calls for.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

pub(super) struct Greeted {
    send: SendEnd,
    recv: RecvEnd,
    begun: bool,
    /// The client's bytes have ended.
    ended: bool,
    parting: Arc<Parting>,
    terminals: Arc<Terminals>,
    harbour: Arc<Harbour>,
}

impl Greeted {
    pub(super) fn new(
        (send, recv): (SendEnd, RecvEnd),
        parting: Arc<Parting>,
        terminals: Arc<Terminals>,
        harbour: Arc<Harbour>,
    ) -> Self {
        Self { send, recv, begun: false, ended: false, parting, terminals, harbour }
    }

    /// Ends the stream as its end calls for.
    fn close(&mut self) {
        if self.parting.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        match (self.parting.fate(&self.terminals), self.parting.leave()) {
            // Whoever took it has a stream of his own.
            (Fate::GoesOn, Leave::Taken) => self.send.finish(),
            (Fate::GoesOn, Leave::Client | Leave::Nobody | Leave::Outside) => {
                self.send.reset(LEFT);
            }
            (Fate::Over, _) => {
                self.harbour.is_over();
                self.send.finish();
            }
        }
    }
}

impl Drop for Greeted {
    fn drop(&mut self) {
        self.close();
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
        let read = ready!(Pin::new(&mut this.recv).poll_read(cx, into)).map_err(told_apart);
        this.ended |= read.is_err() || into.filled().len() == before;
        read?;
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

    /// The library is done: before the end of the client's bytes only where the client said
    /// goodbye (RFC 4253, section 11.1), or where we did.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.parting.goodbye.store(true, Ordering::Relaxed);
        }
        self.close();
        Poll::Ready(Ok(()))
    }
}
