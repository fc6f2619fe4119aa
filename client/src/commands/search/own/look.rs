//! Looking through the index: every file that may have it, on all cores.
//!
//! A block is unpacked only when its signs do not rule it out. There is no index over all of them, so a
//! rare word costs nearly as much as a frequent one; what that is, docs/benchmarks.md says.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use belay_proto::api::{SealedRecording, SearchHit};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;
use belay_tunnel::transcript::{Line, Reader, Wanted};

use super::file::{State, blocks};
use super::{Index, Known};
use crate::commands::play::logged::Ending;
use crate::failure::Failure;

/// Threads at most: more would read more files at once than a disk likes.
const THREADS: usize = 8;

/// What is asked.
#[derive(Debug, Clone)]
pub(in crate::commands::search) struct Asked {
    pub(in crate::commands::search) text: String,
    /// Nothing before, in milliseconds since 1970.
    pub(in crate::commands::search) since_ms: u64,
    /// Name or id.
    pub(in crate::commands::search) device: Option<String>,
    pub(in crate::commands::search) user: Option<String>,
    pub(in crate::commands::search) limit: usize,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::commands::search) struct Looked {
    /// The newest first.
    pub(in crate::commands::search) hits: Vec<SearchHit>,
    /// Whether there are others.
    pub(in crate::commands::search) more: bool,
    /// Recordings, by their state in the index.
    pub(in crate::commands::search) searched: u64,
    pub(in crate::commands::search) cut: u64,
    pub(in crate::commands::search) damaged: u64,
    /// Sealed to others.
    pub(in crate::commands::search) foreign: u64,
    /// Not searched: not those whose end is in the audit log.
    pub(in crate::commands::search) exchanged: Vec<SessionId>,
    /// Not searched: they were here, and the relay has them no more without having deleted them.
    pub(in crate::commands::search) missing: Vec<SessionId>,
    /// Searched, with an end that the audit log does not have.
    pub(in crate::commands::search) unlogged: u64,
    /// Not read yet.
    pub(in crate::commands::search) waiting: u64,
}

impl Asked {
    fn is_of(&self, one: &SealedRecording) -> bool {
        let device = self.device.as_ref().is_none_or(|wanted| {
            one.device.as_ref().is_some_and(|name| name.as_str() == wanted)
                || one.device_id.is_some_and(|id| id.to_string() == *wanted)
        });
        let user = self.user.as_ref();
        let user =
            user.is_none_or(|wanted| one.user.as_ref().is_some_and(|name| name.as_str() == wanted));
        device && user
    }
}

/// Lines that have it, each with the place of its recording among those listed.
struct Found {
    lines: Vec<(Line, usize)>,
    more: bool,
    most: usize,
}

impl Found {
    const fn new(most: usize) -> Self {
        Self { lines: Vec::new(), more: false, most }
    }

    fn add(&mut self, lines: impl Iterator<Item = (Line, usize)>) {
        self.lines.extend(lines);
        if self.lines.len() > self.most.saturating_mul(4) {
            self.newest();
        }
    }

    /// Keeps what is to be shown.
    fn newest(&mut self) {
        let key = |(line, place): &(Line, usize)| {
            std::cmp::Reverse((line.at_ms, *place, line.track, line.offset_ms))
        };
        self.lines.sort_by_key(key);
        self.more |= self.lines.len() > self.most;
        self.lines.truncate(self.most);
    }
}

impl Index {
    /// Looks through what is in it of these recordings, which are all there are.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn look(
        &self,
        listed: &[SealedRecording],
        asked: &Asked,
    ) -> Result<Looked, Failure> {
        let known = self.known()?;
        let mut looked = Looked::default();
        let mut which = Vec::new();
        for (place, one) in listed.iter().enumerate() {
            match known.get(&one.session) {
                None => continue,
                Some(Known { head }) => match head.state {
                    State::Foreign => {
                        looked.foreign += 1;
                        continue;
                    }
                    State::Exchanged => {
                        looked.exchanged.push(one.session);
                        continue;
                    }
                    State::Whole => looked.searched += 1,
                    State::Cut => {
                        looked.searched += 1;
                        looked.cut += 1;
                    }
                    State::Damaged => looked.damaged += 1,
                },
            }
            let unlogged = |known: &Known| known.head.ending == Ending::Unlogged;
            looked.unlogged += u64::from(known.get(&one.session).is_some_and(unlogged));
            if asked.is_of(one) {
                which.push(place);
            }
        }
        let (found, unreadable) = self.all(listed, &which, asked);
        looked.waiting = unreadable.len() as u64;
        looked.searched = looked.searched.saturating_sub(looked.waiting);
        // The next search reads them again.
        for place in unreadable {
            if let Some(one) = listed.get(place) {
                self.remove(one.session)?;
            }
        }
        looked.more = found.more;
        looked.hits = found
            .lines
            .into_iter()
            .filter_map(|(line, place)| {
                let one = listed.get(place)?;
                let Line { track, at_ms, offset_ms, kind, text, command } = line;
                Some(SearchHit {
                    session: one.session,
                    user: one.user.clone(),
                    device: one.device.clone(),
                    login: one.login.clone(),
                    track,
                    at: UnixTime(at_ms / 1000),
                    offset_ms,
                    kind: kind.word().to_owned(),
                    line: printable(&text),
                    command: command.map(|command| printable(&command)),
                })
            })
            .collect();
        Ok(looked)
    }

    /// All lines in these recordings; and which could not be opened.
    fn all(
        &self,
        listed: &[SealedRecording],
        which: &[usize],
        asked: &Asked,
    ) -> (Found, Vec<usize>) {
        let wanted = Wanted::new(&asked.text);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.min(THREADS).min(which.len()).max(1);
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut found, mut unreadable) = (Found::new(asked.limit), Vec::new());
            let reader = Reader::new();
            let Ok(mut reader) = reader else { return (found, which.to_vec()) };
            while let Some(place) = which.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                let Some(one) = listed.get(place) else { continue };
                if self.one(one, place, &wanted, asked, &mut reader, &mut found).is_none() {
                    unreadable.push(place);
                }
            }
            (found, unreadable)
        };
        let mut all = Found::new(asked.limit);
        let mut unreadable = Vec::new();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok((found, mut not)) => {
                        all.more |= found.more;
                        all.lines.extend(found.lines);
                        unreadable.append(&mut not);
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        all.newest();
        (all, unreadable)
    }

    /// `None` when its file is not what was written.
    fn one(
        &self,
        one: &SealedRecording,
        place: usize,
        wanted: &Wanted,
        asked: &Asked,
        reader: &mut Reader,
        found: &mut Found,
    ) -> Option<()> {
        let file = std::fs::read(self.path(one.session)).ok()?;
        let plain = self.seal.open(one.session, file)?;
        for block in blocks(&plain)? {
            let may_have = wanted.may_be_among_words(block.words)
                && wanted.may_be_among_marks(block.marks)
                && wanted.may_be_among_pairs(block.pairs);
            if block.last_ms < asked.since_ms || !may_have {
                continue;
            }
            let lines = reader.lines_with(block.packed, wanted).ok()?;
            let lines = lines.into_iter().filter(|line| line.at_ms >= asked.since_ms);
            found.add(lines.map(|line| (line, place)));
        }
        Some(())
    }
}
