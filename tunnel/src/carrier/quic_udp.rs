//! The UDP socket under quinn, with one system call less for each wake-up.
//!
//! A socket that gave fewer datagrams than it was asked for is empty. Asking it once more, only to
//! hear so, costs as much as receiving does (12 µs in a virtual machine, twice a keystroke at each
//! endpoint). tokio's own streams stop there as well; quinn's socket asks again.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;

/// A bound UDP socket in the runtime's care.
#[derive(Debug)]
pub(super) struct Datagrams {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl Datagrams {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: tokio::net::UdpSocket::from_std(socket)?,
        })
    }
}

impl AsyncUdpSocket for Datagrams {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let mut last = None;
            // "Would block" makes the runtime forget that the socket is readable, unless an event
            // came after it was asked: what arrives during the call is not forgotten.
            let received = self.io.try_io(Interest::READABLE, || {
                let count = self.state.recv((&self.io).into(), bufs, meta)?;
                if count < bufs.len() {
                    last = Some(count);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(count)
            });
            match (last, received) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Ok(count)) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                // As quinn's: what a datagram socket reports is about some peer, not about itself.
                (None, Err(error)) => tracing::debug!(%error, "a receive failed"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One task's wait for room to send. Many may wait at once, which `poll_send_ready` cannot serve.
struct Writable {
    socket: Arc<Datagrams>,
    waiting: Option<Waiting>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(&this.socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let writable = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(writable)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").field("waiting", &self.waiting.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    const BATCH: usize = 32;

    /// Receives until there is nothing for a moment; how many datagrams came.
    async fn drain(socket: &Datagrams, expected: usize) -> usize {
        let mut room = vec![[0; 2048]; BATCH];
        let mut got = 0;
        while got < expected {
            let mut bufs: Vec<_> = room.iter_mut().map(|room| IoSliceMut::new(room)).collect();
            let mut meta = vec![RecvMeta::default(); BATCH];
            let receive = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut meta));
            let count = tokio::time::timeout(Duration::from_secs(5), receive).await.unwrap();
            got += meta[..count.unwrap()]
                .iter()
                .map(|meta| meta.len.div_ceil(meta.stride.max(1)))
                .sum::<usize>();
        }
        got
    }

    #[tokio::test]
    async fn every_datagram_is_received_however_they_come() {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = bound.local_addr().unwrap();
        let socket = Datagrams::new(bound).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for burst in [1, 2, 31, 32, 33, 64, 100, 1] {
            for n in 0..burst {
                sender.send_to(&[n; 100], to).unwrap();
            }
            assert_eq!(drain(&socket, usize::from(burst)).await, usize::from(burst));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_comes_while_the_socket_is_read_is_not_forgotten() {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = bound.local_addr().unwrap();
        let socket = Datagrams::new(bound).unwrap();
        const COUNT: usize = 20_000;
        // One in the air at a time, so that none is dropped: each is sent when the last was taken.
        let (taken, next) = std::sync::mpsc::channel::<()>();
        let sender = std::thread::spawn(move || {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..COUNT {
                sender.send_to(b"x", to).unwrap();
                next.recv().unwrap();
            }
        });
        for _ in 0..COUNT {
            assert_eq!(drain(&socket, 1).await, 1);
            taken.send(()).unwrap();
        }
        sender.join().unwrap();
    }
}
