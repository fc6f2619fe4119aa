//! The worker's side of its door: who may come in, and what for.
//!
//! Its law: one attachment and one control connection at a time, a newer one
//! replaces the older. Another client gets a stream of its own, and only where
//! there is a terminal for it. Connections are greeted one after another, each for a
//! bounded time: only the agent can make one. What it is not: it knows neither
//! SSH nor what an attachment carries.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belay_tunnel::framed::{self, Messages};
use belay_tunnel::stream::{self, Attacher, Carried, Reader, RecvEnd, SendEnd, Writer};
use nix::unistd::Uid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::control::encoded;
use super::door::{Errand, NO_TERMINAL, YES};
use super::event::{Standing, Told};
use super::joining::{Answer, Knock};
use super::limits::ERRAND_TIMEOUT;
use super::terminals::Terminals;
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

/// A fresh stream, and who brings it its attachments.
pub(super) struct Fresh {
    pub(super) ends: (SendEnd, RecvEnd),
    pub(super) attacher: Attacher,
}

impl Fresh {
    pub(super) fn new() -> Self {
        let (send, recv, attacher) = stream::session(stream::Config::default());
        Self { ends: (send, recv), attacher }
    }
}

/// What the dock and its neighbours share.
pub(super) struct Harbour {
    pub(super) berth: watch::Sender<Berth>,
    pub(super) end: watch::Sender<Option<String>>,
    pub(super) terminals: watch::Receiver<u32>,
    /// Number of the newest attachment; what an older one says of the berth counts no more.
    newest: AtomicU64,
    /// The stream of the client that came last, until it is served.
    fresh: Mutex<Option<Fresh>>,
    came: Notify,
    over: AtomicBool,
    waits: AtomicBool,
}

impl Harbour {
    pub(super) fn new(terminals: watch::Receiver<u32>) -> Arc<Self> {
        let (berth, end) = (watch::Sender::new(Berth::Empty), watch::Sender::new(None));
        Arc::new(Self {
            berth,
            end,
            terminals,
            newest: AtomicU64::new(0),
            fresh: Mutex::new(None),
            came: Notify::new(),
            over: AtomicBool::new(false),
            waits: AtomicBool::new(false),
        })
    }

    /// Nobody else can have the session any more.
    pub(super) fn is_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether somebody else may still have the session.
    pub(super) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// From now on nobody is there, whatever becomes of the last stream.
    pub(super) fn wait(&self) {
        self.newest.fetch_add(1, Ordering::Relaxed);
        self.waits.store(true, Ordering::Relaxed);
        self.berth.send_replace(Berth::Detached { since: Instant::now() });
    }

    /// Waits until another client has come.
    pub(super) async fn somebody_else(&self) {
        while self.lock_fresh().is_none() {
            self.came.notified().await;
        }
    }

    /// The stream of the client that came last.
    pub(super) fn take_fresh(&self) -> Option<Fresh> {
        self.lock_fresh().take()
    }

    fn lock_fresh(&self) -> MutexGuard<'_, Option<Fresh>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was not served yet is given up.
    fn come(&self, fresh: Fresh) {
        self.waits.store(false, Ordering::Relaxed);
        drop(self.lock_fresh().replace(fresh));
        self.came.notify_one();
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
        let (goes_on, waits) = (self.goes_on(), self.waits.load(Ordering::Relaxed));
        Standing {
            attached: Some(attached),
            detached_s,
            terminals,
            goes_on: Some(goes_on),
            waits: Some(waits),
        }
    }
}

pub(super) struct Dock {
    listener: UnixListener,
    /// The supervisor's user. Root may come in as well.
    owner: Uid,
    attacher: Attacher,
    lines: mpsc::Sender<UnixStream>,
    harbour: Arc<Harbour>,
    terminals: Arc<Terminals>,
    carrying: JoinSet<(u64, Carried)>,
}

impl Dock {
    pub(super) fn new(
        listener: UnixListener,
        owner: Uid,
        attacher: Attacher,
        lines: mpsc::Sender<UnixStream>,
        (harbour, terminals): (Arc<Harbour>, Arc<Terminals>),
    ) -> Self {
        Self { listener, owner, attacher, lines, harbour, terminals, carrying: JoinSet::new() }
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
            // That stream is over; the supervisor asks before it comes.
            Some(Errand::Attach) if self.harbour.waits.load(Ordering::Relaxed) => {
                tracing::info!("somebody came for a stream that is over");
            }
            Some(Errand::Attach) => self.attach(socket),
            Some(Errand::Anew) => self.attach_anew(socket).await,
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
            Some(Errand::Join) => match timeout(ERRAND_TIMEOUT, self.seat(socket)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a guest left at the door"),
                Err(_) => tracing::debug!("a guest says nothing at the door"),
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
        let number = self.harbour.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let attacher = self.attacher.clone();
        let (read, write) = socket.into_split();
        self.carrying.spawn(async move {
            (number, attacher.carry(Reader::new(read), Writer::new(write)).await)
        });
        self.harbour.berth.send_replace(Berth::Attached);
    }

    async fn attach_anew(&mut self, mut socket: UnixStream) {
        let terminals = *self.harbour.terminals.borrow();
        let given = self.terminals.keeps() && terminals > 0 && self.harbour.goes_on();
        let answer = if given { YES } else { NO_TERMINAL };
        match timeout(ERRAND_TIMEOUT, socket.write_u8(answer)).await {
            Ok(Ok(())) if given => {
                tracing::info!(terminals, "another client takes the session");
                let fresh = Fresh::new();
                self.attacher = fresh.attacher.clone();
                self.attach(socket);
                self.harbour.come(fresh);
            }
            Ok(Ok(())) => tracing::info!("there is no terminal to give to another client"),
            Ok(Err(error)) => tracing::debug!(%error, "another client's stream broke at once"),
            Err(_) => tracing::debug!("another client's stream takes no answer"),
        }
    }

    /// Somebody of another session comes to one of the terminals. The answer is the last that is said
    /// before they are in it.
    async fn seat(&self, mut socket: UnixStream) -> io::Result<()> {
        let knock: Knock = framed::read(&mut socket).await.map_err(io::Error::other)?;
        match self.terminals.seat(knock) {
            Ok(seat) => {
                let answer = Answer { terminal: Some(seat.terminal()), refused: None };
                socket.write_all(&encoded(&answer)).await?;
                self.terminals.attend(seat, socket);
            }
            Err(denied) => {
                let answer = Answer { terminal: None, refused: Some(denied.to_string()) };
                socket.write_all(&encoded(&answer)).await?;
            }
        }
        Ok(())
    }

    fn carried(&self, number: u64, carried: &Carried) {
        tracing::debug!(number, ?carried, "an attachment ended");
        if number != self.harbour.newest.load(Ordering::Relaxed) {
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
