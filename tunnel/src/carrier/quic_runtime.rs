//! quinn runtimes: one for an endpoint with very many idle connections, one for a dialler.
//!
//! As soon as a flight has two datagrams, quinn reserves room for as many as the kernel takes in
//! one call (ten) and never gives it back: 12 KiB in each of many thousand connections that send
//! more than one datagram only in their handshake. Here a connection is offered one datagram a call
//! until it has sent [`BULK`]; one that really moves data then gets them all.
//!
//! What a connection has sent is kept beside its driver, the future that quinn has us spawn, and
//! handed to the socket through a thread-local while that future is polled: quinn asks its socket
//! on behalf of no connection in particular.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use super::quic_udp::Datagrams;

/// Bytes in datagrams of at least [`FULL`] after which a connection counts as busy. A handshake has
/// under 5,000.
const BULK: usize = 32 * 1024;

/// Smaller datagrams are not what a full call is made of; an idle connection's are under 100 bytes.
const FULL: usize = 1000;

thread_local! {
    /// What the connection whose driver is being polled on this thread has sent.
    static SENT: Cell<usize> = const { Cell::new(0) };
}

/// [`TokioRuntime`] with sockets that are frugal with idle connections.
#[derive(Debug)]
pub(super) struct ManyIdle;

impl Runtime for ManyIdle {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Driver { future, sent: 0 }));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Frugal(Arc::new(Datagrams::new(socket)?))))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// [`TokioRuntime`] for an endpoint with few connections.
#[derive(Debug)]
pub(super) struct Few;

impl Runtime for Few {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Datagrams::new(socket)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

struct Driver {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    sent: usize,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        SENT.set(self.sent);
        let polled = self.future.as_mut().poll(cx);
        self.sent = SENT.get();
        polled
    }
}

#[derive(Debug)]
struct Frugal(Arc<Datagrams>);

impl AsyncUdpSocket for Frugal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.0.try_send(transmit);
        if sent.is_ok() && transmit.contents.len() >= FULL {
            SENT.set(SENT.get().saturating_add(transmit.contents.len()));
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if SENT.get() >= BULK { self.0.max_transmit_segments() } else { 1 }
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_connection_gets_full_calls_only_when_it_moves_data() {
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiver = bind();
        let socket = ManyIdle.wrap_udp_socket(bind()).unwrap();
        let plain = TokioRuntime.wrap_udp_socket(bind()).unwrap();
        let contents = [0; 1200];
        let transmit = Transmit {
            destination: receiver.local_addr().unwrap(),
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        let mut poller = Arc::clone(&socket).create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        SENT.set(0);
        let mut sent = 0;
        while sent < BULK {
            assert_eq!(socket.max_transmit_segments(), 1);
            socket.try_send(&transmit).unwrap();
            sent += contents.len();
        }
        assert_eq!(socket.max_transmit_segments(), plain.max_transmit_segments());

        // Another connection's driver begins with its own count, and leaves ours alone.
        let other = Driver { future: Box::pin(async { assert_eq!(SENT.get(), 0) }), sent: 0 };
        other.await;
    }
}
