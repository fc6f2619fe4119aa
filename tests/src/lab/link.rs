//! A link in user space: two TUN devices, one in each of two namespaces, and
//! threads that carry packets between them as a [`pipe`](super::pipe) says.
//!
//! Two threads a direction: one takes packets in and gives each its time, one
//! sends them out when their time has come. They end with the link.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::netns::Netns;
pub use super::pipe::{Counts, Direction};
use super::pipe::{Fate, Pipe};
use super::tun;

/// Bytes under way in one direction at most: a gigabit a second for half a
/// second. More is dropped and counted as overflow.
const MOST_UNDER_WAY: usize = 64 << 20;

/// What the kernel may queue towards our reader, in packets. The default of
/// 500 loses packets while the reader waits for the processor.
const KERNEL_QUEUE: u32 = 10_000;

/// Packets taken or sent between two looks at the world.
const BATCH: usize = 64;

/// A packet may leave this much before its time: waking for each alone would
/// cost more processor than carrying it. The kernel's own timers are later
/// than this by default (50 us slack and the switch).
const GRAIN: Duration = Duration::from_micros(100);

/// The best of priorities (`nice`).
const FIRST: i32 = -20;

/// The largest IP packet.
const LARGEST: usize = 65_535;

/// Both directions of a link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkConfig {
    /// From the first namespace to the second; in a [`super::Topology`], from
    /// the internet down to the node.
    pub down: Direction,
    /// From the second to the first: from the node up to the internet.
    pub up: Direction,
}

impl LinkConfig {
    /// The same behaviour both ways, with unrelated luck.
    #[must_use]
    pub fn both(direction: Direction) -> Self {
        let up = Direction { seed: direction.seed.wrapping_add(1), ..direction.clone() };
        Self { down: direction, up }
    }

    /// Only a delay: `round_trip`, half of it each way.
    #[must_use]
    pub fn round_trip(round_trip: Duration) -> Self {
        Self::both(Direction { delay: round_trip / 2, ..Direction::default() })
    }
}

/// A running link. Dropping it takes both interfaces away.
#[derive(Debug)]
pub struct Link {
    down: Arc<Way>,
    up: Arc<Way>,
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Makes interface `near` in `a` and `far` in `b`, both still down and
    /// without addresses, and carries packets between them.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn start(a: &Netns, near: &str, b: &Netns, far: &str, config: LinkConfig) -> Result<Self> {
        let in_a = a.run(|| tun::open(near))??;
        let in_b = b.run(|| tun::open(far))??;
        a.ip(&format!("link set {near} txqueuelen {KERNEL_QUEUE}"))?;
        b.ip(&format!("link set {far} txqueuelen {KERNEL_QUEUE}"))?;
        Self::between(in_a, in_b, config)
    }

    /// Carries packets between two TUN devices.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn between(a: File, b: File, config: LinkConfig) -> Result<Self> {
        let (stopped, stop) = std::io::pipe().context("making a pipe")?;
        let mut link = Self {
            down: Arc::new(Way::new(config.down)),
            up: Arc::new(Way::new(config.up)),
            stop: Some(stop),
            threads: Vec::new(),
        };
        let (a2, b2) = (a.try_clone()?, b.try_clone()?);
        let stopped2 = stopped.try_clone()?;
        for (way, from, to, stopped) in
            [(Arc::clone(&link.down), a, b, stopped), (Arc::clone(&link.up), b2, a2, stopped2)]
        {
            let taker = Arc::clone(&way);
            link.thread("link-in", move || taker.take_in(&from, &stopped))?;
            link.thread("link-out", move || way.send_out(&to))?;
        }
        Ok(link)
    }

    fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let handle = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // Before all others: what the processor is late with would look
                // like jitter of the link. On Linux this is the thread's alone.
                if let Err(error) = rustix::process::nice(FIRST) {
                    super::loud(&format!("the lab's link runs without priority: {error}"));
                }
                work();
            })
            .context("starting a link's thread")?;
        self.threads.push(handle);
        Ok(())
    }

    /// Changes the behaviour while packets flow.
    pub fn configure(&self, change: impl FnOnce(&mut LinkConfig)) {
        let mut config = LinkConfig {
            down: self.down.lock().pipe.config().clone(),
            up: self.up.lock().pipe.config().clone(),
        };
        change(&mut config);
        self.down.lock().pipe.configure(config.down);
        self.up.lock().pipe.configure(config.up);
    }

    /// Swallows everything both ways (`true`), or stops doing so.
    pub fn hole(&self, swallow: bool) {
        self.configure(|config| {
            config.down.hole = swallow;
            config.up.hole = swallow;
        });
    }

    /// What has become of the packets so far, down and up.
    #[must_use]
    pub fn counts(&self) -> (Counts, Counts) {
        (self.down.lock().pipe.counts(), self.up.lock().pipe.counts())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing the pipe ends the takers; each ends its sender.
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // A panic there was printed there.
            drop(thread.join());
        }
    }
}

/// One direction at work.
#[derive(Debug)]
struct Way {
    state: Mutex<State>,
    changed: Condvar,
    zero: Instant,
}

#[derive(Debug)]
struct State {
    pipe: Pipe,
    waiting: BinaryHeap<Reverse<Packet>>,
    under_way: usize,
    serial: u64,
    ended: bool,
}

/// Ordered by time, then by arrival; the bytes never decide.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Duration,
    serial: u64,
    bytes: Vec<u8>,
}

impl State {
    /// Gives a packet its fate; whether it is the next to leave.
    fn accept(&mut self, now: Duration, bytes: Vec<u8>) -> bool {
        let Fate::Deliver { at, twice } = self.pipe.offer(now, bytes.len()) else {
            return false;
        };
        if self.under_way + bytes.len() > MOST_UNDER_WAY {
            self.pipe.overflowed();
            return false;
        }
        let sooner = self.waiting.peek().is_none_or(|Reverse(next)| at < next.at);
        if twice {
            self.push(at, bytes.clone());
        }
        self.push(at, bytes);
        sooner
    }

    fn push(&mut self, at: Duration, bytes: Vec<u8>) {
        self.under_way += bytes.len();
        self.serial += 1;
        self.waiting.push(Reverse(Packet { at, serial: self.serial, bytes }));
    }
}

impl Way {
    fn new(config: Direction) -> Self {
        Self {
            state: Mutex::new(State {
                pipe: Pipe::new(config),
                waiting: BinaryHeap::new(),
                under_way: 0,
                serial: 0,
                ended: false,
            }),
            changed: Condvar::new(),
            zero: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, from: &File, stopped: &PipeReader) {
        let mut buffer = vec![0; LARGEST];
        let mut batch = Vec::with_capacity(BATCH);
        while wait_readable(from, stopped) {
            // No more than a batch, or a flood would keep this thread from its end.
            while batch.len() < BATCH {
                let mut device = from;
                match device.read(&mut buffer) {
                    Ok(len) => {
                        let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                        batch.push((self.zero.elapsed(), bytes));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The interface is down: it may come up again.
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(1));
                        break;
                    }
                }
            }
            let mut state = self.lock();
            let mut sooner = false;
            for (now, bytes) in batch.drain(..) {
                sooner |= state.accept(now, bytes);
            }
            drop(state);
            if sooner {
                self.changed.notify_one();
            }
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn send_out(&self, mut to: &File) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let now = self.zero.elapsed();
            let due = now + GRAIN;
            while batch.len() < BATCH
                && state.waiting.peek().is_some_and(|Reverse(next)| next.at <= due)
            {
                if let Some(Reverse(packet)) = state.waiting.pop() {
                    state.under_way -= packet.bytes.len();
                    batch.push(packet);
                }
            }
            if batch.is_empty() {
                let next = state.waiting.peek().map(|Reverse(next)| next.at);
                match next {
                    // Both give the lock back when done, poisoned or not.
                    None => drop(self.changed.wait(state)),
                    Some(at) => drop(self.changed.wait_timeout(state, at.saturating_sub(now))),
                }
                continue;
            }
            drop(state);
            for packet in batch.drain(..) {
                // An interface that is down loses packets, as a cable does.
                drop(to.write(&packet.bytes));
            }
        }
    }
}

/// Waits for a packet; false when the link is being taken away.
fn wait_readable(device: &File, stopped: &PipeReader) -> bool {
    let mut fds = [
        PollFd::new(device.as_fd(), PollFlags::POLLIN),
        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    let [_, stop] = fds;
    stop.revents().is_some_and(|events| events.is_empty())
}
