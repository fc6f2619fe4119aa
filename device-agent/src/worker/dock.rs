//! The worker's side of its door: who may come in, and what for.
//!
//! Its law: one attachment and one control connection at a time, a newer one
//! replaces the older. Connections are greeted one after another, each for a
//! bounded time: only the agent can make one. What it is not: it knows neither
//! SSH nor what an attachment carries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::framed::Messages;
use belay_tunnel::stream::{Attacher, Carried, Reader, Writer};
use nix::unistd::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::control::encoded;
use super::door::Errand;
use super::event::{Standing, Told};
use super::limits::ERRAND_TIMEOUT;
use super::wire::enlarge;
use super::word::Word;

/// After a failed `accept`, which is short of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Whether there is a stream to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Berth {
    /// There never was one.
    Empty,
    Attached,
    Detached {
        since: Instant,
    },
    /// The session's stream is over, and both ends have everything.
    Closed,
}

/// What the dock and its neighbours share.
#[derive(Clone)]
pub(super) struct Harbour {
    pub(super) berth: watch::Sender<Berth>,
    pub(super) end: watch::Sender<Option<String>>,
    pub(super) terminals: watch::Receiver<u32>,
}

impl Harbour {
    pub(super) fn new(terminals: watch::Receiver<u32>) -> Arc<Self> {
        let (berth, end) = (watch::Sender::new(Berth::Empty), watch::Sender::new(None));
        Arc::new(Self { berth, end, terminals })
    }

    pub(super) fn is_attached(&self) -> bool {
        *self.berth.borrow() == Berth::Attached
    }

    pub(super) fn standing(&self) -> Standing {
        let (attached, detached_s) = match *self.berth.borrow() {
            Berth::Attached => (true, None),
            Berth::Detached { since } => (false, Some(since.elapsed().as_secs())),
            Berth::Empty | Berth::Closed => (false, None),
        };
        let terminals = Some(*self.terminals.borrow());
        Standing { attached: Some(attached), detached_s, terminals }
    }
}

pub(super) struct Dock {
    listener: UnixListener,
    /// The supervisor's user. Root may come in as well.
    owner: Uid,
    attacher: Attacher,
    lines: mpsc::Sender<UnixStream>,
    harbour: Arc<Harbour>,
    carrying: JoinSet<(u64, Carried)>,
    /// Number of the newest attachment.
    newest: u64,
}

impl Dock {
    pub(super) fn new(
        listener: UnixListener,
        owner: Uid,
        attacher: Attacher,
        lines: mpsc::Sender<UnixStream>,
        harbour: Arc<Harbour>,
    ) -> Self {
        Self { listener, owner, attacher, lines, harbour, carrying: JoinSet::new(), newest: 0 }
    }

    /// Takes connections for as long as it is polled.
    pub(super) async fn serve(&mut self) -> std::convert::Infallible {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.greet(socket).await,
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(ended) = self.carrying.join_next(), if !self.carrying.is_empty() => {
                    match ended {
                        Ok((number, carried)) => self.carried(number, &carried),
                        Err(error) => tracing::error!(%error, "an attachment's task failed"),
                    }
                }
            }
        }
    }

    async fn greet(&mut self, mut socket: UnixStream) {
        if !self.may_enter(&socket) {
            return;
        }
        let errand = match timeout(ERRAND_TIMEOUT, socket.read_u8()).await {
            Ok(Ok(byte)) => Errand::from_byte(byte),
            // Whoever only looks whether somebody is there.
            Ok(Err(_)) => return,
            Err(_) => None,
        };
        match errand {
            Some(Errand::Attach) => self.attach(socket),
            Some(Errand::Control) => {
                if self.lines.send(socket).await.is_err() {
                    tracing::debug!("a supervisor came to a session that has ended");
                }
            }
            Some(Errand::Visit) => match timeout(ERRAND_TIMEOUT, self.answer(socket)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a visitor left"),
                Err(_) => tracing::debug!("a visitor says nothing"),
            },
            None => tracing::warn!("a connection that does not say what it is for"),
        }
    }

    fn may_enter(&self, socket: &UnixStream) -> bool {
        match socket.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner.as_raw() => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "a connection of another user was refused");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of nobody known was refused");
                false
            }
        }
    }

    fn attach(&mut self, socket: UnixStream) {
        enlarge(&socket);
        self.newest += 1;
        let (number, attacher) = (self.newest, self.attacher.clone());
        let (read, write) = socket.into_split();
        self.carrying.spawn(async move {
            (number, attacher.carry(Reader::new(read), Writer::new(write)).await)
        });
        self.harbour.berth.send_replace(Berth::Attached);
    }

    fn carried(&self, number: u64, carried: &Carried) {
        tracing::debug!(number, ?carried, "an attachment ended");
        if number != self.newest {
            return;
        }
        let berth = match carried {
            Carried::Closed | Carried::Ended | Carried::Violation(_) => Berth::Closed,
            Carried::Lost(_) | Carried::Replaced if self.attacher.is_closed() => Berth::Closed,
            Carried::Lost(_) | Carried::Replaced => Berth::Detached { since: Instant::now() },
        };
        self.harbour.berth.send_replace(berth);
    }

    async fn answer(&self, socket: UnixStream) -> io::Result<()> {
        let (read, mut write) = socket.into_split();
        let word = Messages::new(read).next::<Word>().await.map_err(io::Error::other)?;
        let standing = Some(self.harbour.standing());
        write.write_all(&encoded(&Told { standing, ..Told::default() })).await?;
        if let Some(reason) = word.and_then(|word| word.end) {
            self.harbour.end.send_replace(Some(reason));
        }
        Ok(())
    }
}
