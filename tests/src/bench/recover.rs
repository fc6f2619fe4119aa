//! How long after a line is back somebody who types sees the first answer.

use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::mosh::Mosh;
use super::way::{Running, Terminal};
use crate::lab::{Lab, Netns};

/// What is typed: nothing that an escape sequence or mosh's own notice holds.
const KEY: u8 = b'#';

/// What the far side says when it is there.
const READY: &[u8] = b"READY.";

/// Between two keys.
const PACE: Duration = Duration::from_millis(200);

/// Between two looks at the screens.
const LOOK: Duration = Duration::from_millis(2);

/// After this much time nobody waits any more; a session that is not back counts as this.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long a session may take to open.
const OPENS_WITHIN: Duration = Duration::from_secs(30);

/// Somebody who types into a session for as long as it lives.
#[derive(Debug)]
pub struct Typist {
    to: Hand,
    seen: Arc<Mutex<Seen>>,
    _running: Running,
}

struct Hand(Box<dyn Write + Send>);

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

#[derive(Debug, Default)]
struct Seen {
    begun: Vec<u8>,
    ready: bool,
    last: Option<Instant>,
}

impl Typist {
    /// In a session of one of the ways, with a terminal.
    ///
    /// # Errors
    /// When it does not open.
    pub fn in_session(laptop: &Netns, way: &Way) -> Result<Self> {
        let mut command = way.command(Terminal::There, super::echo::remote(Terminal::There));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = laptop.run(|| command.spawn())?.context("starting it")?;
        let to = child.stdin.take().context("no standard input")?;
        let from = child.stdout.take().context("no standard output")?;
        Self::new(Box::new(to), from, Running(child)).context(way.name)
    }

    /// In mosh, from a node to the relay.
    ///
    /// # Errors
    /// When it does not open.
    pub fn in_mosh(lab: &Lab, from: &str) -> Result<Self> {
        let remote = super::echo::remote(Terminal::There);
        let relay = lab.address("relay").into();
        let Mosh { terminal, running } = Mosh::start(lab.ns(from), lab.ns("relay"), relay, remote)?;
        Self::new(Box::new(terminal.try_clone()?), terminal, running).context("mosh")
    }

    fn new(
        to: Box<dyn Write + Send>,
        mut from: impl Read + Send + 'static,
        running: Running,
    ) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watched = Arc::clone(&seen);
        // It ends with what it reads from.
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                lock(&watched).look(piece.get(..read).unwrap_or_default());
            }
        });
        let typist = Self { to: Hand(to), seen, _running: running };
        let deadline = Instant::now() + OPENS_WITHIN;
        while !lock(&typist.seen).ready {
            ensure!(Instant::now() < deadline, "the session did not open");
            thread::sleep(LOOK);
        }
        Ok(typist)
    }

    /// One key. A session that is gone takes none, and shows so by never coming back.
    fn press(&mut self) {
        drop(self.to.0.write_all(&[KEY]).and_then(|()| self.to.0.flush()));
    }

    /// When the last key came back.
    fn last(&self) -> Option<Instant> {
        lock(&self.seen).last
    }
}

impl Seen {
    fn look(&mut self, bytes: &[u8]) {
        if !self.ready {
            self.begun.extend_from_slice(bytes);
            self.ready = self.begun.windows(READY.len()).any(|window| window == READY);
        }
        if bytes.contains(&KEY) {
            self.last = Some(Instant::now());
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Swallows everything on the line of `edge` for `hole` while all of them type, and says for each
/// how long after it was back its first key came back. All sessions feel the same hole.
///
/// # Errors
/// When the lab has no such line, or a session was dead before.
pub fn measure(
    lab: &Lab,
    edge: &str,
    typists: &mut [Typist],
    hole: Duration,
) -> Result<Vec<Duration>> {
    let link = lab.link(edge).context("the lab has no such line")?;
    let began = Instant::now();
    let alive = |typist: &Typist| typist.last().is_some_and(|last| last > began);
    type_until(typists, PATIENCE, |typists| typists.iter().all(alive));
    ensure!(typists.iter().all(alive), "a session was dead before the hole");
    link.hole(true);
    type_until(typists, hole, |_| false);
    link.hole(false);
    let back = Instant::now();
    let mut took = vec![None; typists.len()];
    type_until(typists, PATIENCE, |typists| {
        for (typist, took) in typists.iter().zip(&mut took) {
            let last = typist.last().filter(|last| *last > back);
            *took = took.or(last.map(|last| last - back));
        }
        took.iter().all(Option::is_some)
    });
    Ok(took.into_iter().map(|took| took.unwrap_or(PATIENCE)).collect())
}

/// All type at their pace until `done` or for this long.
fn type_until(typists: &mut [Typist], most: Duration, mut done: impl FnMut(&[Typist]) -> bool) {
    let began = Instant::now();
    let mut next = began;
    while began.elapsed() < most && !done(typists) {
        if Instant::now() >= next {
            typists.iter_mut().for_each(Typist::press);
            next += PACE;
        }
        thread::sleep(LOOK);
    }
}
