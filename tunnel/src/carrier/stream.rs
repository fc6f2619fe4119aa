//! One carrier and the halves of its streams. The only types that know which carrier it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why a stream was reset or refused, as a number both ends know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetCode(pub u32);

impl ResetCode {
    /// Whoever dialled is done and goes.
    pub const DONE: Self = Self(0);
    /// The other side of the splice went away without ending its stream.
    pub const GONE: Self = Self(1);
    /// A peer broke the protocol.
    pub const PROTOCOL: Self = Self(2);
    /// The session was cut: status, role or grant ended.
    pub const CUT: Self = Self(3);
}

/// A carrier ended.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct CarrierError(#[from] quinn::ConnectionError);

impl CarrierError {
    /// Whether silence ended it, not a word of either side.
    pub const fn is_timeout(&self) -> bool {
        matches!(self.0, quinn::ConnectionError::TimedOut)
    }

    /// Whether the peer ended it with a word of its own.
    pub const fn closed_by_peer(&self) -> bool {
        matches!(
            self.0,
            quinn::ConnectionError::ApplicationClosed(_) | quinn::ConnectionError::Reset
        )
    }

    /// What the peer said when it ended it: our code and its line.
    pub fn peer_said(&self) -> Option<(ResetCode, String)> {
        if let quinn::ConnectionError::ApplicationClosed(close) = &self.0 {
            let line = belay_proto::error_line::printable(&String::from_utf8_lossy(&close.reason));
            Some((reset_code(close.error_code), line))
        } else {
            None
        }
    }

    /// Whether the peer refused our certificate. In TLS 1.3 it judges it after our side of the
    /// handshake is done (RFC 8446 §4.4.2.4), so this can end a carrier that already seemed open.
    pub fn refuses_certificate(&self) -> bool {
        // RFC 8446 §6.2: bad, revoked, expired, unknown, unknown CA, decrypt error, required.
        self.alert().is_some_and(|alert| [42, 44, 45, 46, 48, 51, 116].contains(&alert))
    }

    /// The TLS alert (RFC 8446 §6) the peer ended the handshake with, if it did.
    pub fn alert(&self) -> Option<u8> {
        let code = match &self.0 {
            quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            quinn::ConnectionError::TransportError(error) => u64::from(error.code),
            quinn::ConnectionError::VersionMismatch
            | quinn::ConnectionError::ApplicationClosed(_)
            | quinn::ConnectionError::Reset
            | quinn::ConnectionError::TimedOut
            | quinn::ConnectionError::LocallyClosed
            | quinn::ConnectionError::CidsExhausted => return None,
        };
        // RFC 9001 §4.8: an alert travels as CRYPTO_ERROR, 0x0100 and the alert's number.
        code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
    }
}

/// A stream ended other than by its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset it, or will not read more.
    #[error("the peer gave the stream up (code {})", .0.0)]
    Reset(ResetCode),
    /// The carrier is gone.
    #[error("the line is gone")]
    Carrier,
}

/// Which end dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Device or client.
    Dialler,
    /// Relay.
    Acceptor,
}

/// A live connection to the relay, or from a dialler.
#[derive(Debug, Clone)]
pub struct Carrier(quinn::Connection);

impl Carrier {
    pub(super) const fn from_quic(connection: quinn::Connection) -> Self {
        Self(connection)
    }

    /// Its name in logs and lists.
    pub const fn kind(&self) -> &'static str {
        "quic"
    }

    /// The peer's address as seen from here.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// The transport's own estimate of the round trip.
    pub fn round_trip(&self) -> Duration {
        self.0.rtt()
    }

    /// The certificate the peer proved, leaf only.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.0.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// Opens a stream. Waits while the peer's limit is reached. The peer learns of it with the
    /// first byte, so the opener writes first.
    ///
    /// # Errors
    /// [`CarrierError`] when the carrier is gone.
    pub async fn open(&self) -> Result<(SendHalf, RecvHalf), CarrierError> {
        let (send, recv) = self.0.open_bi().await?;
        Ok((SendHalf::new(send), RecvHalf(recv)))
    }

    /// Waits for the peer to open a stream.
    ///
    /// # Errors
    /// [`CarrierError`] when the carrier is gone.
    pub async fn accept(&self) -> Result<(SendHalf, RecvHalf), CarrierError> {
        let (send, recv) = self.0.accept_bi().await?;
        Ok((SendHalf::new(send), RecvHalf(recv)))
    }

    /// Raises the bounds that hold before a peer is known: streams it may open at once, and bytes
    /// it may have in flight over all of them.
    pub fn admit(&self, streams: u32, window: u32) {
        self.0.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        self.0.set_receive_window(VarInt::from_u32(window));
    }

    /// Ends everything on it at once. `reason` reaches the peer if the network does.
    pub fn close(&self, code: ResetCode, reason: &str) {
        self.0.close(VarInt::from_u32(code.0), reason.as_bytes());
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<CarrierError> {
        self.0.close_reason().map(CarrierError)
    }

    /// Waits for its end.
    pub async fn closed(&self) -> CarrierError {
        CarrierError(self.0.closed().await)
    }

    /// Bytes of UDP payload sent and received so far.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.0.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }
}

/// The sending half of a stream. Dropped without [`SendHalf::finish`] it is reset.
#[derive(Debug)]
pub struct SendHalf {
    stream: quinn::SendStream,
    ended: bool,
}

impl SendHalf {
    const fn new(stream: quinn::SendStream) -> Self {
        Self { stream, ended: false }
    }

    /// Sends pieces without copying them, waiting for the peer's window.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn send_all(&mut self, pieces: &mut [Bytes]) -> Result<(), StreamError> {
        self.stream.write_all_chunks(pieces).await.map_err(from_write)
    }

    /// Sends one piece.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn send(&mut self, piece: Bytes) -> Result<(), StreamError> {
        self.stream.write_chunk(piece).await.map_err(from_write)
    }

    /// Ends this direction cleanly. What was sent still arrives.
    pub fn finish(&mut self) {
        self.ended = true;
        // The only error is that it has ended already.
        if self.stream.finish().is_err() {
            tracing::trace!("finished a stream that had already ended");
        }
    }

    /// Gives this direction up; what is in flight may be lost.
    pub fn reset(&mut self, code: ResetCode) {
        self.ended = true;
        if self.stream.reset(VarInt::from_u32(code.0)).is_err() {
            tracing::trace!("reset a stream that had already ended");
        }
    }

    /// Waits until the peer will read no more: `Ok` when it has all up to a clean end.
    ///
    /// # Errors
    /// [`StreamError`] when it gave up or the carrier is gone.
    pub async fn stopped(&self) -> Result<(), StreamError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Reset(reset_code(code))),
            Err(_) => Err(StreamError::Carrier),
        }
    }

    /// Higher goes first when the carrier is full.
    pub fn set_priority(&self, priority: i32) {
        if self.stream.set_priority(priority).is_err() {
            tracing::trace!("set the priority of a stream that had already ended");
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        // quinn would finish it, and a crash would look like a clean end.
        if !self.ended {
            self.reset(ResetCode::GONE);
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct RecvHalf(quinn::RecvStream);

impl RecvHalf {
    /// Receives into `pieces` without copying; how many were filled, or `None` at the end.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn receive(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, StreamError> {
        self.0.read_chunks(pieces).await.map_err(from_read)
    }

    /// Tells the peer that no more will be read.
    pub fn stop(&mut self, code: ResetCode) {
        if self.0.stop(VarInt::from_u32(code.0)).is_err() {
            tracing::trace!("stopped a stream that had already ended");
        }
    }
}

fn reset_code(code: VarInt) -> ResetCode {
    ResetCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}

fn from_write(error: quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(code) => StreamError::Reset(reset_code(code)),
        quinn::WriteError::ConnectionLost(_)
        | quinn::WriteError::ClosedStream
        | quinn::WriteError::ZeroRttRejected => StreamError::Carrier,
    }
}

fn from_read(error: quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(code) => StreamError::Reset(reset_code(code)),
        quinn::ReadError::ConnectionLost(_)
        | quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => StreamError::Carrier,
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, buf)
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}
