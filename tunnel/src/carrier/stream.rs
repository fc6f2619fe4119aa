//! One carrier and the halves of its streams. The only types that know which carrier it is.
//!
//! Its law: both carriers end a stream or themselves in the same ways, with the same codes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::end::{CarrierError, reset_code};
use super::mux::{Multiplexed, RecvSide, SendSide};
use super::quic::DialledFrom;

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

/// Bytes taken from a writer at once, over WebSocket.
const PIECE: usize = 64 * 1024;

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
pub struct Carrier(Over);

#[derive(Debug, Clone)]
enum Over {
    /// A dialled one keeps what it was dialled from.
    Quic(quinn::Connection, Option<Arc<DialledFrom>>),
    Socket(Multiplexed),
}

impl Carrier {
    pub(super) const fn from_quic(
        connection: quinn::Connection,
        from: Option<Arc<DialledFrom>>,
    ) -> Self {
        Self(Over::Quic(connection, from))
    }

    pub(super) const fn from_socket(multiplexed: Multiplexed) -> Self {
        Self(Over::Socket(multiplexed))
    }

    /// Its name in logs and lists.
    pub const fn kind(&self) -> &'static str {
        match &self.0 {
            Over::Quic(..) => "quic",
            Over::Socket(_) => "websocket",
        }
    }

    /// Whether it is the one to move back from when QUIC can be had.
    pub const fn is_fallback(&self) -> bool {
        matches!(self.0, Over::Socket(_))
    }

    /// The peer's address as seen from here; through a proxy, the proxy's.
    pub fn remote_address(&self) -> SocketAddr {
        match &self.0 {
            Over::Quic(connection, _) => connection.remote_address(),
            Over::Socket(socket) => socket.remote_address(),
        }
    }

    /// The transport's own estimate of the round trip.
    pub fn round_trip(&self) -> Duration {
        match &self.0 {
            Over::Quic(connection, _) => connection.rtt(),
            Over::Socket(socket) => socket.round_trip(),
        }
    }

    /// The largest datagram the path is known to carry, over QUIC: 1,200 bytes at first, more once
    /// larger ones were acknowledged (RFC 8899).
    pub fn path_mtu(&self) -> Option<u16> {
        match &self.0 {
            Over::Quic(connection, _) => Some(connection.stats().path.current_mtu),
            Over::Socket(_) => None,
        }
    }

    /// The certificate the peer proved, leaf only.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        match &self.0 {
            Over::Quic(connection, _) => {
                let chain = connection.peer_identity()?;
                let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
                chain.into_iter().next()
            }
            Over::Socket(socket) => socket.peer_certificate(),
        }
    }

    /// Opens a stream. Waits while the peer's limit is reached. The peer learns of it with the
    /// first byte, so the opener writes first.
    ///
    /// # Errors
    /// [`CarrierError`] when the carrier is gone.
    pub async fn open(&self) -> Result<(SendHalf, RecvHalf), CarrierError> {
        match &self.0 {
            Over::Quic(connection, _) => Ok(quic_halves(connection.open_bi().await?)),
            Over::Socket(socket) => Ok(socket_halves(socket.open().await?)),
        }
    }

    /// Waits for the peer to open a stream.
    ///
    /// # Errors
    /// [`CarrierError`] when the carrier is gone.
    pub async fn accept(&self) -> Result<(SendHalf, RecvHalf), CarrierError> {
        match &self.0 {
            Over::Quic(connection, _) => Ok(quic_halves(connection.accept_bi().await?)),
            Over::Socket(socket) => Ok(socket_halves(socket.accept().await?)),
        }
    }

    /// Raises the bounds that hold before a peer is known: streams it may open at once, and bytes
    /// it may have in flight over all of them (over WebSocket, its streams' windows bound those).
    pub fn admit(&self, streams: u32, window: u32) {
        match &self.0 {
            Over::Quic(connection, _) => {
                connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
                connection.set_receive_window(VarInt::from_u32(window));
            }
            Over::Socket(socket) => socket.admit(streams),
        }
    }

    /// Ends everything on it at once. `reason` reaches the peer if the network does.
    pub fn close(&self, code: ResetCode, reason: &str) {
        match &self.0 {
            Over::Quic(connection, _) => {
                connection.close(VarInt::from_u32(code.0), reason.as_bytes());
            }
            Over::Socket(socket) => socket.close(code, reason),
        }
    }

    /// After [`Self::close`]: waits until the last words are on the wire, at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        let drained = async {
            match &self.0 {
                Over::Quic(_, Some(from)) => from.endpoint.wait_idle().await,
                // The relay drains its one endpoint by itself.
                Over::Quic(_, None) => {}
                Over::Socket(socket) => socket.drained().await,
            }
        };
        if tokio::time::timeout(patience, drained).await.is_err() {
            tracing::debug!("the carrier did not drain in time");
        }
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<CarrierError> {
        match &self.0 {
            Over::Quic(connection, _) => connection.close_reason().map(CarrierError::from),
            Over::Socket(socket) => socket.end().map(CarrierError::from),
        }
    }

    /// Waits for its end.
    pub async fn closed(&self) -> CarrierError {
        match &self.0 {
            Over::Quic(connection, _) => connection.closed().await.into(),
            Over::Socket(socket) => socket.closed().await.into(),
        }
    }

    /// Sends the least that keeps a NAT's mapping, and nothing that anybody answers. Over WebSocket
    /// the connection keeps itself.
    pub fn keep_mapping(&self) {
        if let Over::Quic(connection, Some(from)) = &self.0 {
            from.keep_mapping(connection.remote_address());
        }
    }

    /// Bytes on the wire both ways so far, IP and UDP headers included; over WebSocket without
    /// those of IP and TCP.
    pub fn wire_bytes(&self) -> u64 {
        match &self.0 {
            Over::Quic(connection, _) => {
                let stats = connection.stats();
                let headers = match connection.remote_address().ip().to_canonical() {
                    IpAddr::V4(_) => 20 + 8,
                    IpAddr::V6(_) => 40 + 8,
                };
                let (sent, received) = (stats.udp_tx, stats.udp_rx);
                let datagrams = sent.datagrams + received.datagrams;
                sent.bytes + received.bytes + headers * datagrams
            }
            Over::Socket(socket) => {
                let (sent, received) = socket.bytes();
                sent + received
            }
        }
    }

    /// Bytes sent and received so far: of UDP payload, or as much as TLS makes of the messages.
    pub fn bytes(&self) -> (u64, u64) {
        match &self.0 {
            Over::Quic(connection, _) => {
                let stats = connection.stats();
                (stats.udp_tx.bytes, stats.udp_rx.bytes)
            }
            Over::Socket(socket) => socket.bytes(),
        }
    }
}

fn quic_halves((send, recv): (quinn::SendStream, quinn::RecvStream)) -> (SendHalf, RecvHalf) {
    (SendHalf { stream: Send::Quic(send), ended: false }, RecvHalf(Recv::Quic(recv)))
}

fn socket_halves((send, recv): (SendSide, RecvSide)) -> (SendHalf, RecvHalf) {
    (SendHalf { stream: Send::Socket(send), ended: false }, RecvHalf(Recv::Socket(recv)))
}

/// The sending half of a stream. Dropped without [`SendHalf::finish`] it is reset.
#[derive(Debug)]
pub struct SendHalf {
    stream: Send,
    ended: bool,
}

#[derive(Debug)]
enum Send {
    Quic(quinn::SendStream),
    Socket(SendSide),
}

impl SendHalf {
    /// Sends pieces without copying them, waiting for the peer's window.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn send_all(&mut self, pieces: &mut [Bytes]) -> Result<(), StreamError> {
        match &mut self.stream {
            Send::Quic(stream) => stream.write_all_chunks(pieces).await.map_err(from_write),
            Send::Socket(side) => {
                for piece in pieces {
                    side.send(std::mem::take(piece)).await?;
                }
                Ok(())
            }
        }
    }

    /// Sends one piece.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn send(&mut self, piece: Bytes) -> Result<(), StreamError> {
        match &mut self.stream {
            Send::Quic(stream) => stream.write_chunk(piece).await.map_err(from_write),
            Send::Socket(side) => side.send(piece).await,
        }
    }

    /// Whether what is sent here waits for what other streams of the carrier have to send. Over
    /// WebSocket streams take turns, and nothing waits.
    pub fn yields(&self, yields: bool) {
        match &self.stream {
            Send::Quic(stream) => {
                // The only error is that it has ended already.
                if stream.set_priority(if yields { -1 } else { 0 }).is_err() {
                    tracing::trace!("a stream that had already ended has no priority");
                }
            }
            Send::Socket(_) => {}
        }
    }

    /// Ends this direction cleanly. What was sent still arrives.
    pub fn finish(&mut self) {
        self.ended = true;
        match &mut self.stream {
            Send::Quic(stream) => {
                // The only error is that it has ended already.
                if stream.finish().is_err() {
                    tracing::trace!("finished a stream that had already ended");
                }
            }
            Send::Socket(side) => side.finish(),
        }
    }

    /// Gives this direction up; what is in flight may be lost.
    pub fn reset(&mut self, code: ResetCode) {
        self.ended = true;
        match &mut self.stream {
            Send::Quic(stream) => {
                if stream.reset(VarInt::from_u32(code.0)).is_err() {
                    tracing::trace!("reset a stream that had already ended");
                }
            }
            Send::Socket(side) => side.reset(code),
        }
    }

    /// Waits until the peer will read no more: `Ok` when it has all up to a clean end.
    ///
    /// # Errors
    /// [`StreamError`] when it gave up or the carrier is gone.
    pub async fn stopped(&self) -> Result<(), StreamError> {
        match &self.stream {
            Send::Quic(stream) => match stream.stopped().await {
                Ok(None) => Ok(()),
                Ok(Some(code)) => Err(StreamError::Reset(reset_code(code))),
                Err(_) => Err(StreamError::Carrier),
            },
            Send::Socket(side) => side.stopped().await,
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

/// The receiving half of a stream. Dropped before its end it tells the peer to stop.
#[derive(Debug)]
pub struct RecvHalf(Recv);

#[derive(Debug)]
enum Recv {
    Quic(quinn::RecvStream),
    Socket(RecvSide),
}

impl RecvHalf {
    /// Receives into `pieces` without copying; how many were filled, or `None` at the end.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn receive(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, StreamError> {
        match &mut self.0 {
            Recv::Quic(stream) => stream.read_chunks(pieces).await.map_err(from_read),
            Recv::Socket(side) => side.receive(pieces).await,
        }
    }

    /// Tells the peer that no more will be read.
    pub fn stop(&mut self, code: ResetCode) {
        match &mut self.0 {
            Recv::Quic(stream) => {
                if stream.stop(VarInt::from_u32(code.0)).is_err() {
                    tracing::trace!("stopped a stream that had already ended");
                }
            }
            Recv::Socket(side) => side.stop(code),
        }
    }
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

fn broken(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Carrier => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Recv::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), cx, buf),
            Recv::Socket(side) => {
                if buf.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                if let Some(piece) = ready!(side.poll_piece(cx, buf.remaining())).map_err(broken)? {
                    buf.put_slice(&piece);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Send::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, buf),
            Send::Socket(side) => {
                ready!(side.poll_room(cx)).map_err(broken)?;
                let piece = buf.get(..buf.len().min(PIECE)).unwrap_or_default();
                side.push(Bytes::copy_from_slice(piece));
                Poll::Ready(Ok(piece.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Send::Quic(stream) => AsyncWrite::poll_flush(Pin::new(stream), cx),
            // What was taken goes by itself.
            Send::Socket(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        match &mut self.stream {
            Send::Quic(stream) => AsyncWrite::poll_shutdown(Pin::new(stream), cx),
            Send::Socket(side) => {
                side.finish();
                Poll::Ready(Ok(()))
            }
        }
    }
}
