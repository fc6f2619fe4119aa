//! The session's recorder: what terminals and commands show, and what passed the gate, for auditors.
//!
//! Whatever shows something has a [`Track`] and tells it, at once and without waiting; a [`Scribe`]
//! makes segments of what was told, a few seconds each, and gives them to the supervisor as events.
//! Whoever reads a program's output asks [`Track::room`] before it reads on: when segments are not
//! taken fast enough the program waits, always where the recording is required, and for
//! [`HOLD`] where it is not; what is lost then is marked as lost.
//!
//! What is typed at a terminal is recorded where the relay's policy wants it, and only what the terminal
//! echoes ([`typed`]). A password that is not echoed is not here.
//!
//! What it is not: it signs nothing and keeps no file, for it runs as the login user.

mod buffer;
mod lines;
mod notes;
mod press;
mod scribe;
mod typed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belay_proto::recording::cast::{Code, Fact, Header};
use belay_proto::recording::{Policy, SESSION_TRACK};
use belay_proto::time::UnixTime;
use rustix::termios::Winsize;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub(in crate::worker) use lines::{Lines, Said};
pub(in crate::worker) use scribe::{Permits, Scribe};

use self::buffer::{Buffer, Source};
use self::typed::Typing;
use super::event::WorkerEvent;
use super::limits::{RECORD_AHEAD, RECORD_SEGMENT};
use super::process::Ended;

/// How long a program waits for a recording that is made as well as it can be.
const HOLD: Duration = Duration::from_secs(2);

/// The size that a track without a terminal is shown in.
const USUAL: (u16, u16) = (80, 24);

/// The way to a session's recording. Cheap to clone; without a recording it does nothing.
#[derive(Clone, Debug, Default)]
pub(in crate::worker) struct Recorder(Option<Arc<Room>>);

/// What tracks and scribe share.
#[derive(Debug)]
struct Room {
    state: Mutex<State>,
    required: bool,
    /// What is typed is recorded as well.
    typed: bool,
    begun: Instant,
    /// The same moment by the relay's clock, in milliseconds since 1970.
    begun_ms: u64,
    /// Something is due for the scribe.
    told: Notify,
    /// The scribe has made room.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    tracks: BTreeMap<u32, Buffer>,
    last: u32,
    /// Bytes of text not yet given to the supervisor.
    pending: usize,
    /// Nobody waits for room until there is some again.
    given_up: bool,
    /// When each open channel was opened.
    opened: BTreeMap<notes::Key, Duration>,
    over: bool,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Lets a track take something in, unless there is no room and none is needed.
    fn tell(&self, track: u32, bytes: usize, take: impl FnOnce(&mut Buffer, Duration)) {
        let at = self.at();
        let wake = {
            let mut state = self.lock();
            // A fact is small, and has passed the gate's own bounds.
            let full = !self.required && bytes > 0 && state.pending > 2 * RECORD_AHEAD;
            let Some(buffer) = state.tracks.get_mut(&track) else { return };
            if full {
                buffer.lose(bytes);
                return;
            }
            let before = buffer.pending();
            let quiet = buffer.since().is_none();
            take(buffer, at);
            let after = buffer.pending();
            let wake = quiet || (before < RECORD_SEGMENT && after >= RECORD_SEGMENT);
            state.pending += after - before;
            wake
        };
        if wake {
            self.told.notify_one();
        }
    }

    fn fact(&self, track: u32, fact: Fact) {
        let text = fact.finish();
        self.tell(track, 0, |buffer, at| buffer.event(Code::Belay, &text, at));
    }
}

impl Recorder {
    /// A recording of a session, as its policy wants it, of what is shown alone.
    pub(in crate::worker) fn new(policy: Policy) -> Self {
        Self::of(policy, false)
    }

    /// The same, with what is typed at terminals that echo it.
    pub(in crate::worker) fn with_input(policy: Policy) -> Self {
        Self::of(policy, true)
    }

    fn of(policy: Policy, typed: bool) -> Self {
        let required = match policy {
            Policy::Off => return Self(None),
            Policy::BestEffort => false,
            Policy::Required => true,
        };
        let begun_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let room = Arc::new(Room {
            state: Mutex::default(),
            required,
            typed,
            begun: Instant::now(),
            begun_ms,
            told: Notify::new(),
            freed: Notify::new(),
        });
        let about = About { kind: "session", ..About::default() };
        room.open(SESSION_TRACK, &about, Source::Facts);
        Self(Some(room))
    }

    /// A terminal's track.
    pub(in crate::worker) fn terminal(
        &self,
        channel: u32,
        (term, size): (&str, Winsize),
        command: Option<&str>,
    ) -> Track {
        let size = (size.ws_col, size.ws_row);
        let about = About { channel, term: Some(term), size, command, kind: "terminal" };
        self.track(&about, Source::Terminal)
    }

    /// The track of a command without a terminal.
    pub(in crate::worker) fn command(&self, channel: u32, command: Option<&str>) -> Track {
        let about = About { channel, command, kind: "command", ..About::default() };
        self.track(&about, Source::Command)
    }

    /// The track of a file server, which tells of files.
    pub(in crate::worker) fn files(&self, channel: u32) -> Track {
        let about = About { channel, kind: "files", ..About::default() };
        self.track(&about, Source::Facts)
    }

    /// Whether anything is recorded.
    pub(in crate::worker) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn track(&self, about: &About<'_>, source: Source) -> Track {
        let Some(room) = &self.0 else { return Track { room: None, number: 0, typing: None } };
        let number = {
            let mut state = room.lock();
            state.last += 1;
            state.last
        };
        room.open(number, about, source);
        let fact = Fact::new("track").number("track", number).text("kind", about.kind);
        let typing = (room.typed && source == Source::Terminal).then(Mutex::default);
        let input = if typing.is_some() { "what is echoed" } else { "" };
        let fact = fact.number("channel", about.channel).text("input", input);
        room.fact(SESSION_TRACK, fact.text("command", about.command.unwrap_or_default()));
        Track { room: Some(Arc::clone(room)), number, typing }
    }

    /// Notes an event of the session.
    pub(in crate::worker) fn note(&self, event: &WorkerEvent) {
        let Some(room) = &self.0 else { return };
        let at = room.at();
        let fact = notes::fact(event, at, &mut room.lock().opened);
        if let Some(fact) = fact {
            room.fact(SESSION_TRACK, fact);
        }
    }

    /// Nothing follows: the scribe writes what there is, and is done.
    pub(in crate::worker) fn end(&self, reason: &str) {
        let Some(room) = &self.0 else { return };
        room.fact(SESSION_TRACK, Fact::new("ended").text("reason", reason));
        room.lock().over = true;
        room.told.notify_one();
    }
}

/// What a track is of.
#[derive(Default)]
struct About<'a> {
    channel: u32,
    term: Option<&'a str>,
    size: (u16, u16),
    command: Option<&'a str>,
    kind: &'a str,
}

impl Room {
    fn open(&self, number: u32, about: &About<'_>, source: Source) {
        let (columns, rows) = match about.size {
            (0, _) | (_, 0) => USUAL,
            known => known,
        };
        let at = self.at();
        let begun = UnixTime((self.begun_ms + millis(at)) / 1000);
        let command = about.command.map(super::event::bounded);
        let title = match (about.kind, &command) {
            ("terminal", None) => "shell",
            (_, Some(command)) => command,
            (kind, None) => kind,
        };
        let header = Header {
            columns,
            rows,
            term: about.term,
            begun,
            command: command.as_deref(),
            title,
            track: number,
            kind: about.kind,
        };
        let mut line = String::new();
        header.write(&mut line);
        let mut state = self.lock();
        state.pending += line.len();
        state.tracks.insert(number, Buffer::new(source, line, (columns, rows), at));
        drop(state);
        self.told.notify_one();
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One terminal's or command's part of the recording. Dropped, it is over.
#[derive(Debug)]
pub(in crate::worker) struct Track {
    room: Option<Arc<Room>>,
    number: u32,
    /// What was typed and not echoed yet, where it is recorded.
    typing: Option<Mutex<Typing>>,
}

impl Track {
    fn tell(&self, bytes: usize, take: impl FnOnce(&mut Buffer, Duration)) {
        if let Some(room) = &self.room {
            room.tell(self.number, bytes, take);
        }
    }

    /// The program showed this, or wrote it to its standard output.
    pub(in crate::worker) fn output(&self, bytes: &[u8]) {
        self.tell(bytes.len(), |buffer, at| buffer.shown(Code::Output, bytes, at));
    }

    /// It wrote this to its standard error.
    pub(in crate::worker) fn error(&self, bytes: &[u8]) {
        self.tell(bytes.len(), |buffer, at| buffer.shown(Code::Error, bytes, at));
    }

    /// A command without a terminal was given this: its length and digest are kept.
    pub(in crate::worker) fn input(&self, bytes: &[u8]) {
        self.tell(0, |buffer, _| buffer.given(bytes));
    }

    /// A fact that somebody else made.
    pub(in crate::worker) fn told(&self, fact: &str) {
        self.tell(fact.len(), |buffer, at| buffer.event(Code::Belay, fact, at));
    }

    /// The terminal has this size now.
    pub(in crate::worker) fn resized(&self, size: Winsize) {
        if size.ws_col != 0 && size.ws_row != 0 {
            self.tell(0, |buffer, at| buffer.resized((size.ws_col, size.ws_row), at));
        }
    }

    /// Something a viewer may want to jump to.
    pub(in crate::worker) fn mark(&self, label: &str) {
        self.tell(0, |buffer, at| buffer.event(Code::Marker, label, at));
    }

    /// How the program ended.
    pub(in crate::worker) fn ended(&self, ended: &Ended) {
        let status = match ended {
            Ended::Exit(status) => *status,
            // As a shell tells it.
            Ended::Signal { number, .. } => number.saturating_add(128),
        };
        self.tell(0, |buffer, at| buffer.ended(status, at));
    }

    /// Waits until more can be recorded, as long as the policy wants it. Cancel-safe.
    pub(in crate::worker) async fn room(&self) {
        let Some(room) = &self.room else { return };
        loop {
            let freed = room.freed.notified();
            tokio::pin!(freed);
            // From here on it is heard of.
            freed.as_mut().enable();
            {
                let state = room.lock();
                let enough = state.pending < RECORD_AHEAD || state.over;
                if enough || (state.given_up && !room.required) {
                    return;
                }
            }
            if room.required {
                freed.await;
            } else if timeout(HOLD, freed).await.is_err() {
                room.lock().given_up = true;
            }
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.tell(0, Buffer::close);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod typing_tests;
