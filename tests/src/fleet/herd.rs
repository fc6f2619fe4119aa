//! A herd: some of a fleet's devices, connecting, connected, lost.
//!
//! Its law: every line is a task of the herd's own, and each end is counted by its reason. A device
//! counts as connected when it has answered the relay's first probe: by then the relay has it in
//! its store and in its registry, not merely in a handshake.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use belay_proto::refusal::Refused;
use belay_tunnel::carrier::quic::{Dialler, QuicError, Role};
use belay_tunnel::pki::RelayVerifier;
use belay_tunnel::reach::Backoff;
use belay_tunnel::{clock, tls};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::device::{self, Lost, Target};
use super::{Credentials, Member};

/// How long one attempt of a device that returns may take: an agent gives its dial 10 s and its
/// greeting 10 s.
const AGAIN_WITHIN: Duration = Duration::from_secs(20);

/// Connections that share a socket. Each socket is one task that takes packets in; more sockets
/// would only spread the same work.
const PER_SOCKET: usize = 2500;

/// Reasons told apart; what comes beyond is counted under the last.
const REASONS: usize = 16;

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// How many more devices.
    pub devices: usize,
    /// Handshakes under way at once.
    pub in_flight: usize,
    /// Begin at most this many a second; `None`: as fast as it goes.
    pub per_second: Option<f64>,
}

/// How connecting went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RampReport {
    /// Devices that were welcomed and answered a probe.
    pub connected: usize,
    /// Those that were not, by reason.
    pub failed: BTreeMap<String, usize>,
    /// From the first dial to the last device's first probe.
    pub seconds: f64,
    /// From a device's dial to its first probe, in milliseconds, in ascending order.
    pub latencies_ms: Vec<f64>,
}

/// How the herd stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Lines up.
    pub alive: usize,
    /// Probes answered, of all lines since the start.
    pub probes: u64,
    /// Lines that ended after they had been up, by reason.
    pub lost: BTreeMap<String, usize>,
    /// Lines that came up again after that ([`Herd::faithful`]).
    pub again: u64,
    /// Attempts at it that failed, by reason.
    pub attempts: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Book {
    standing: Standing,
    failed: BTreeMap<String, usize>,
    latencies: Vec<Duration>,
    last_up: Option<Instant>,
}

/// Connected devices, and those still to connect.
#[derive(Debug)]
pub struct Herd {
    waiting: std::vec::IntoIter<Member>,
    target: Target,
    sockets: Vec<Dialler>,
    lines: JoinSet<()>,
    book: Arc<Mutex<Book>>,
    /// Ramps settled so far: connected and failed together.
    settled: watch::Sender<usize>,
    begun: usize,
    faithful: Arc<AtomicBool>,
    ends: Vec<tokio::task::AbortHandle>,
}

impl Herd {
    /// A herd of these devices towards a relay, none of them connected.
    ///
    /// # Errors
    /// When the credentials cannot be used or no socket can be bound.
    pub fn new(fleet: Credentials, address: SocketAddr, patience: Duration) -> Result<Self> {
        let ca = CertificateDer::from(fleet.ca);
        let verifier = RelayVerifier::pinned(ca, clock::now());
        let target = Target { address, name: fleet.relay, verifier, patience };
        let sockets = (0..fleet.members.len().div_ceil(PER_SOCKET))
            .map(|_| {
                let nobody = tls::client(Arc::clone(&target.verifier) as _, None, &[])?;
                Ok(Dialler::new(Role::Device, nobody, address)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            waiting: fleet.members.into_iter(),
            target,
            sockets,
            lines: JoinSet::new(),
            book: Arc::default(),
            settled: watch::Sender::new(0),
            begun: 0,
            faithful: Arc::default(),
            ends: Vec::new(),
        })
    }

    /// Connects more devices and waits until each is up or has failed.
    ///
    /// # Errors
    /// When the fleet has not so many left, or the ramp is none.
    pub async fn connect(&mut self, ramp: Ramp) -> Result<RampReport> {
        ensure!(ramp.devices > 0 && ramp.in_flight > 0, "a ramp wants devices and handshakes");
        let left = self.waiting.len();
        ensure!(left >= ramp.devices, "the fleet has {left} devices left to connect");
        {
            let mut book = lock(&self.book);
            book.failed.clear();
            book.latencies.clear();
            book.last_up = None;
        }
        let turns = Arc::new(Semaphore::new(ramp.in_flight));
        let began = Instant::now();
        for n in 0..ramp.devices {
            if let Some(per_second) = ramp.per_second {
                let due = began + Duration::from_secs_f64(n as f64 / per_second);
                tokio::time::sleep_until(due.into()).await;
            }
            let turn = Arc::clone(&turns).acquire_owned().await.context("the ramp was closed")?;
            self.begin(turn)?;
            // Lines that ended meanwhile give their memory back.
            while self.lines.try_join_next().is_some() {}
        }
        let mut settled = self.settled.subscribe();
        let all = self.begun;
        settled.wait_for(|settled| *settled >= all).await.context("the herd is gone")?;
        Ok(self.report(began))
    }

    fn begin(&mut self, turn: OwnedSemaphorePermit) -> Result<()> {
        let member = self.waiting.next().context("no device left")?;
        let socket = self.begun % self.sockets.len();
        let dialler = self.sockets.get(socket).context("the herd has no socket")?.clone();
        self.begun += 1;
        let life = Life {
            dialler,
            target: self.target.clone(),
            member,
            book: Arc::clone(&self.book),
            faithful: Arc::clone(&self.faithful),
        };
        let line = life.live(turn, self.settled.clone());
        self.ends.push(self.lines.spawn(line));
        Ok(())
    }

    fn report(&self, began: Instant) -> RampReport {
        let mut book = lock(&self.book);
        book.latencies.sort_unstable();
        RampReport {
            connected: book.latencies.len(),
            failed: book.failed.clone(),
            seconds: book.last_up.map_or(Duration::ZERO, |last| last - began).as_secs_f64(),
            latencies_ms: book.latencies.iter().map(|l| l.as_secs_f64() * 1e3).collect(),
        }
    }

    /// Cuts the `count` lines that were begun last, without a word to the relay: as a device does
    /// that loses its power.
    pub fn vanish(&mut self, count: usize) {
        let keep = self.ends.len().saturating_sub(count);
        for end in self.ends.drain(keep..) {
            end.abort();
        }
    }

    /// Whether a device whose line ends dials again, with an agent's waits, until it has one.
    pub fn faithful(&self, faithful: bool) {
        self.faithful.store(faithful, Ordering::Relaxed);
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        lock(&self.book).standing.clone()
    }
}

/// A device from its first dial to its end.
struct Life {
    dialler: Dialler,
    target: Target,
    member: Member,
    book: Arc<Mutex<Book>>,
    faithful: Arc<AtomicBool>,
}

impl Life {
    async fn live(self, turn: OwnedSemaphorePermit, settled: watch::Sender<usize>) {
        let mut lost = self.first(turn, settled).await;
        // As an agent waits, dials and waits again.
        let mut backoff = Backoff::default();
        while self.faithful.load(Ordering::Relaxed) {
            backoff.told(lost.told_to_wait);
            let Ok(wait) = backoff.wait() else { return };
            tokio::time::sleep(wait).await;
            lost = match self.again().await {
                Ok(line) => {
                    backoff.connected();
                    let mut alive = None;
                    let deadline = (Instant::now() + self.target.patience).into();
                    let lost = line.hold(deadline, || self.probed(&mut alive)).await;
                    count(&mut lock(&self.book).standing.lost, &lost.why);
                    lost
                }
                Err(error) => {
                    let why = belay_proto::error_line::one_line(error.as_ref());
                    count(&mut lock(&self.book).standing.attempts, &why);
                    if error.downcast_ref().is_some_and(QuicError::turned_away) {
                        backoff.turned_away();
                    }
                    let told_to_wait =
                        error.downcast_ref().and_then(|refused: &Refused| refused.told_to_wait());
                    Lost { why, told_to_wait }
                }
            };
        }
    }

    /// The first line, if there is one.
    async fn first(&self, turn: OwnedSemaphorePermit, settled: watch::Sender<usize>) -> Lost {
        let began = Instant::now();
        let settle = || settled.send_modify(|settled| *settled += 1);
        let line = match device::connect(&self.dialler, &self.target, &self.member).await {
            Ok(line) => line,
            Err(error) => {
                let why = belay_proto::error_line::one_line(error.as_ref());
                count(&mut lock(&self.book).failed, &why);
                settle();
                return why.into();
            }
        };
        drop(turn);
        let mut alive: Option<Alive> = None;
        let deadline = (began + self.target.patience).into();
        let lost = line
            .hold(deadline, || {
                if alive.is_none() {
                    let mut open = lock(&self.book);
                    open.latencies.push(began.elapsed());
                    open.last_up = Some(Instant::now());
                    drop(open);
                    alive = Some(Alive::new(&self.book));
                    settle();
                }
                lock(&self.book).standing.probes += 1;
            })
            .await;
        if alive.is_none() {
            count(&mut lock(&self.book).failed, &lost.why);
            settle();
            return lost;
        }
        count(&mut lock(&self.book).standing.lost, &lost.why);
        lost
    }

    async fn again(&self) -> Result<device::Line> {
        let attempt = device::connect(&self.dialler, &self.target, &self.member);
        tokio::time::timeout(AGAIN_WITHIN, attempt).await.context("no welcome in time")?
    }

    fn probed(&self, alive: &mut Option<Alive>) {
        if alive.is_none() {
            *alive = Some(Alive::new(&self.book));
            lock(&self.book).standing.again += 1;
        }
        lock(&self.book).standing.probes += 1;
    }
}

/// Counts a line as up for as long as it lives, however it ends.
struct Alive(Arc<Mutex<Book>>);

impl Alive {
    fn new(book: &Arc<Mutex<Book>>) -> Self {
        lock(book).standing.alive += 1;
        Self(Arc::clone(book))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        lock(&self.0).standing.alive -= 1;
    }
}

fn count(reasons: &mut BTreeMap<String, usize>, why: &str) {
    let known = reasons.len() < REASONS || reasons.contains_key(why);
    *reasons.entry(if known { why } else { "other reasons" }.to_owned()).or_default() += 1;
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    // Whole between any two statements that can panic.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
