//! A thin uplink in front of a rig: what the dialler sends goes on at a rate, what comes back at
//! once.

use std::net::SocketAddr;
use std::time::Duration;

use belay_tunnel::carrier::picker::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes a second.
const RATE: f64 = 1e6;

/// Datagrams that wait for their turn; further ones are lost, as on any line.
const QUEUE: usize = 64;

/// What the kernel holds for the thin line, so that its sender feels how thin it is, in segments
/// that fit it many times: those of loopback are as long as all of it.
const BUFFER: u32 = 32 * 1024;
const SEGMENT: u32 = 1_400;

/// A running one. Dropped, it passes nothing more.
pub(crate) struct Thin {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// When what was sent until now is through.
struct Turn(Instant);

impl Turn {
    async fn take(&mut self, bytes: usize) {
        let lasts = Duration::from_secs_f64(bytes as f64 / RATE);
        self.0 = self.0.max(Instant::now()) + lasts;
        sleep_until(self.0).await;
    }
}

impl Thin {
    pub(crate) async fn before(relay: SocketAddr, kind: Kind) -> Self {
        match kind {
            Kind::Quic => Self::datagrams(relay).await,
            Kind::WebSocket => Self::connections(relay),
        }
    }

    async fn datagrams(relay: SocketAddr) -> Self {
        let near = std::sync::Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = std::sync::Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(relay).await.unwrap();
        let address = near.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(QUEUE);
        let out = far.clone();
        tasks.spawn(async move {
            let mut turn = Turn(Instant::now());
            while let Some(datagram) = waiting.recv().await {
                turn.take(datagram.len()).await;
                out.send(&datagram).await.ok();
            }
        });
        tasks.spawn(async move {
            let (mut ahead, mut back) = ([0; 2048], [0; 2048]);
            let mut dialler = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut ahead) => {
                        dialler = Some(from);
                        queue.try_send(ahead[..length].to_vec()).ok();
                    }
                    Ok(length) = far.recv(&mut back) => {
                        if let Some(dialler) = dialler {
                            near.send_to(&back[..length], dialler).await.ok();
                        }
                    }
                }
            }
        });
        Self { address, _tasks: tasks }
    }

    fn connections(relay: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(relay).await.unwrap();
            far.set_nodelay(true).unwrap();
            near.set_nodelay(true).unwrap();
            let ((mut from, mut back), (mut there, mut to)) = (near.into_split(), far.into_split());
            let ahead = async {
                let (mut piece, mut turn) = ([0; 1400], Turn(Instant::now()));
                while let Ok(length @ 1..) = from.read(&mut piece).await {
                    turn.take(length).await;
                    to.write_all(&piece[..length]).await.unwrap();
                }
            };
            tokio::join!(ahead, async { tokio::io::copy(&mut there, &mut back).await.ok() });
        });
        Self { address, _tasks: tasks }
    }
}
