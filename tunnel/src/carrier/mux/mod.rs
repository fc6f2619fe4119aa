//! Many streams over one connection of WebSocket messages: what QUIC does by itself.
//!
//! `frame` is what stands in a message, `inbox` what has come of a stream, `stream` one stream,
//! `state` all of them, `driver` the one task that moves messages. Here are the handles: a
//! [`Multiplexed`] carrier and the halves of its streams.
//!
//! Its law: the carrier lives as long as a handle of it or of a stream, and ends with a word to the
//! peer when the last is dropped. A stream whose reader has stopped holds up nobody else.

mod driver;
mod frame;
mod inbox;
mod state;
mod stream;

pub(super) use driver::{Driver, Pace, end_of_io};
pub(super) use frame::MAX_MESSAGE;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::stream::{ResetCode, Side, StreamError};
use state::State;
use stream::{OUT_BUFFER, Receiving, Sending, Stream};

/// Why a carrier over WebSocket ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// This end closed it.
    #[error("closed by this end")]
    Local,
    /// The peer closed it and said why.
    #[error("closed by the peer: {} (code {})", belay_proto::error_line::printable(.1), .0.0)]
    Peer(ResetCode, String),
    /// The connection was closed or reset without a word.
    #[error("the connection was closed without a word")]
    Gone,
    /// Nothing came for too long.
    #[error("timed out")]
    Silent,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// TLS ended it with an alert of the peer's (RFC 8446 §6).
    #[error("TLS alert {0}")]
    Alert(u8),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// What all handles and the driver share.
struct Shared {
    state: Mutex<State>,
    sent: AtomicU64,
    received: AtomicU64,
    round_trip_us: AtomicU64,
    /// Whether the last words are on the wire and the driver has ended.
    over: watch::Sender<bool>,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle that keeps the carrier alive.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state().close(ResetCode::DONE, "");
    }
}

/// A carrier over WebSocket.
#[derive(Clone)]
pub(super) struct Multiplexed(Arc<Handle>);

impl fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").field("peer", &self.0.0.peer).finish_non_exhaustive()
    }
}

/// Who is at the other end, and what it may do.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Streams it may have open at once.
    pub(super) streams: u32,
    /// Whether it must be admitted before it may send more than a stranger.
    pub(super) stranger: bool,
}

impl Multiplexed {
    fn new(side: Side, peer: Peer) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(side, peer.streams, peer.stranger)),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
            over: watch::Sender::new(false),
            peer: peer.address,
            certificate: peer.certificate,
        });
        (Self(Arc::new(Handle(Arc::clone(&shared)))), shared)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.state()
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        self.0.0.peer
    }

    pub(super) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.0.certificate.clone()
    }

    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.0.0.round_trip_us.load(Ordering::Relaxed))
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        let shared = &self.0.0;
        (shared.sent.load(Ordering::Relaxed), shared.received.load(Ordering::Relaxed))
    }

    pub(super) fn admit(&self, streams: u32) {
        self.state().admit(streams);
    }

    pub(super) fn close(&self, code: ResetCode, reason: &str) {
        self.state().close(code, reason);
    }

    pub(super) fn end(&self) -> Option<End> {
        self.state().end.clone()
    }

    /// Waits for its end.
    pub(super) async fn closed(&self) -> End {
        poll_fn(|cx| {
            let mut state = self.state();
            match state.end.clone() {
                Some(end) => Poll::Ready(end),
                None => {
                    state.end_waiting.add(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until the last words are on the wire.
    pub(super) async fn drained(&self) {
        let mut over = self.0.0.over.subscribe();
        // The sender is in what this handle holds, so it cannot be gone.
        if over.wait_for(|over| *over).await.is_err() {
            tracing::trace!("the carrier is gone");
        }
    }

    pub(super) async fn open(&self) -> Result<(SendSide, RecvSide), End> {
        let id = poll_fn(|cx| {
            let mut state = self.state();
            if let Some(end) = state.end.clone() {
                return Poll::Ready(Err(end));
            }
            match state.open() {
                Some(id) => Poll::Ready(Ok(id)),
                None => {
                    state.open_waiting.add(cx);
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok(self.halves(id))
    }

    pub(super) async fn accept(&self) -> Result<(SendSide, RecvSide), End> {
        let id = poll_fn(|cx| {
            let mut state = self.state();
            if let Some(id) = state.accept() {
                return Poll::Ready(Ok(id));
            }
            if let Some(end) = state.end.clone() {
                return Poll::Ready(Err(end));
            }
            state.accept_waiting.add(cx);
            Poll::Pending
        })
        .await?;
        Ok(self.halves(id))
    }

    fn halves(&self, id: u32) -> (SendSide, RecvSide) {
        (SendSide { carrier: self.clone(), id }, RecvSide { carrier: self.clone(), id })
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub(super) struct SendSide {
    carrier: Multiplexed,
    id: u32,
}

impl SendSide {
    /// Whether a piece can be taken.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.carrier.state();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(StreamError::Carrier));
        };
        match stream.sending {
            Sending::Open if stream.out_length < OUT_BUFFER => Poll::Ready(Ok(())),
            Sending::Open => {
                stream.send_waiting.add(cx);
                Poll::Pending
            }
            Sending::Stopped(code) => Poll::Ready(Err(StreamError::Reset(code))),
            // Like a QUIC stream that is written to after its end.
            Sending::Finishing | Sending::Finished | Sending::Taken | Sending::Reset => {
                Poll::Ready(Err(StreamError::Carrier))
            }
        }
    }

    /// Takes a piece, after [`Self::poll_room`].
    pub(super) fn push(&self, piece: Bytes) {
        self.carrier.state().push(self.id, piece);
    }

    pub(super) async fn send(&self, piece: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_room(cx)).await?;
        self.push(piece);
        Ok(())
    }

    pub(super) fn finish(&self) {
        self.carrier.state().finish(self.id);
    }

    pub(super) fn reset(&self, code: ResetCode) {
        self.carrier.state().reset(self.id, code);
    }

    /// Waits until the peer will read no more.
    pub(super) async fn stopped(&self) -> Result<(), StreamError> {
        poll_fn(|cx| {
            let mut state = self.carrier.state();
            let Some(stream) = state.streams.get_mut(&self.id) else {
                return Poll::Ready(Err(StreamError::Carrier));
            };
            match stream.sending {
                Sending::Taken => Poll::Ready(Ok(())),
                Sending::Stopped(code) => Poll::Ready(Err(StreamError::Reset(code))),
                Sending::Reset => Poll::Ready(Err(StreamError::Carrier)),
                Sending::Open | Sending::Finishing | Sending::Finished => {
                    stream.stop_waiting.add(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for SendSide {
    fn drop(&mut self) {
        self.carrier.state().let_go(self.id, |stream| stream.send_held = false);
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) struct RecvSide {
    carrier: Multiplexed,
    id: u32,
}

impl RecvSide {
    /// Up to `most` bytes; `None` at the end.
    pub(super) fn poll_piece(
        &self,
        cx: &Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.carrier.state();
        if let Some(piece) = state.take(self.id, most) {
            return Poll::Ready(Ok(Some(piece)));
        }
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(StreamError::Carrier));
        };
        match stream.receiving {
            Receiving::Open => {
                stream.recv_waiting.add(cx);
                Poll::Pending
            }
            Receiving::Ended => Poll::Ready(Ok(None)),
            Receiving::Reset(code) => Poll::Ready(Err(StreamError::Reset(code))),
            // Like a QUIC stream that is read after it was stopped.
            Receiving::Stopped | Receiving::StoppedAndEnded => {
                Poll::Ready(Err(StreamError::Carrier))
            }
        }
    }

    /// Fills `pieces` with what is there; waits only for the first.
    pub(super) async fn receive(&self, pieces: &mut [Bytes]) -> Result<Option<usize>, StreamError> {
        poll_fn(|cx| {
            let mut filled = 0;
            for place in pieces.iter_mut() {
                if filled == 0 {
                    match ready!(self.poll_piece(cx, usize::MAX))? {
                        Some(piece) => *place = piece,
                        None => return Poll::Ready(Ok(None)),
                    }
                } else {
                    match self.carrier.state().take(self.id, usize::MAX) {
                        Some(piece) => *place = piece,
                        None => break,
                    }
                }
                filled += 1;
            }
            Poll::Ready(Ok(Some(filled)))
        })
        .await
    }

    pub(super) fn stop(&self, code: ResetCode) {
        self.carrier.state().stop(self.id, code);
    }
}

impl Drop for RecvSide {
    fn drop(&mut self) {
        let mut state = self.carrier.state();
        state.stop(self.id, ResetCode::DONE);
        state.let_go(self.id, |stream: &mut Stream| stream.recv_held = false);
    }
}
