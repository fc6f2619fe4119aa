//! A recording's segments as lines of text.
//!
//! Its law: what comes is a hostile device's, and bounded in every direction: text, tracks, screens,
//! and so time. What is left out is said: [`Lines::is_cut`].

use std::collections::BTreeMap;
use std::time::Duration;

use belay_proto::recording::{SESSION_TRACK, Segment, TEXT_MAX};
use serde::Deserialize;
use serde_json::Value;

use super::block::{COMMAND_MAX, Kind, Line, cut};
use super::terminal::{Shown, Terminal};
use crate::recording::{Opener, UnpackError, unpack, unpack_payload};

/// Text of one recording that is looked at, in bytes: twenty times a busy day's.
const TEXT_READ: u64 = 256 * 1024 * 1024;

/// Lines kept of one recording, by their text in bytes.
const TEXT_KEPT: u64 = 32 * 1024 * 1024;

/// Lines of full screens kept of one recording, by their text in bytes: a day of `top`.
const SCREENS_KEPT: u64 = 4 * 1024 * 1024;

/// Tracks of one recording that are looked at.
const TRACKS: usize = 4096;

/// Terminals at a time: a screen of each is in memory, 1 MB at most.
const TERMINALS: usize = 64;

/// Text of a line of asciicast, or of a command's output, that waits for its end.
const WAITING: usize = 2 * TEXT_MAX;

/// No event lies further after the one before it: ten years, as `belay play` has it.
const LONGEST_PAUSE: f64 = 3.2e8;

/// A segment holds no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// It is encrypted to the auditors.
    #[error("it is sealed")]
    Sealed,
    /// Not what a recording is made of.
    #[error("segment {0} holds no text")]
    Nonsense(u64),
}

#[derive(Deserialize)]
struct Header {
    term: Term,
    timestamp: Option<u64>,
    command: Option<String>,
    belay: Belay,
}

#[derive(Deserialize)]
struct Term {
    cols: u16,
    rows: u16,
}

#[derive(Deserialize)]
struct Belay {
    kind: String,
}

/// What shows.
enum Screen {
    Terminal(Box<Terminal>),
    /// A command's pipes: what waits for the end of its line.
    Pipes(String),
    /// It is over, or there are too many.
    Over,
}

struct Track {
    number: u32,
    begun_ms: u64,
    at: Duration,
    command: Option<String>,
    screen: Screen,
    /// A line of asciicast that is not whole.
    carry: String,
}

/// Makes lines of a recording's segments, which come in their order.
#[derive(Default)]
pub struct Lines {
    tracks: BTreeMap<u32, Option<Track>>,
    /// What of a track's header came.
    headers: BTreeMap<u32, String>,
    terminals: usize,
    read: u64,
    kept: u64,
    /// Of that, what stood on full screens.
    screens: u64,
    cut: bool,
}

impl Lines {
    /// Takes the next segment, with what opens it where it is sealed; `out` gets the lines that are complete
    /// with it.
    ///
    /// # Errors
    /// [`NoText`].
    pub fn take(
        &mut self,
        segment: &Segment,
        opener: Option<&Opener>,
        out: &mut Vec<Line>,
    ) -> Result<(), NoText> {
        let opener = opener.filter(|_| segment.sealed == Some(true));
        if self.is_full() && (opener.is_some() || segment.sealed != Some(true)) {
            return Ok(());
        }
        let nonsense = NoText::Nonsense(segment.number);
        let text = match opener {
            Some(opener) => {
                let payload = opener.open(segment).ok_or(nonsense)?;
                unpack_payload(&payload, segment.compressed == Some(true))
            }
            None => unpack(segment),
        };
        let text = text.map_err(|error| match error {
            UnpackError::Sealed => NoText::Sealed,
            UnpackError::Damaged
            | UnpackError::TooLong
            | UnpackError::Dictionary(_)
            | UnpackError::NoText => nonsense,
        })?;
        self.read += text.len() as u64;
        let begin = out.len();
        self.text(segment, &text, out).ok_or(nonsense)?;
        self.count(out, begin);
        Ok(())
    }

    /// Nothing follows: what is on the screens.
    pub fn finish(&mut self, out: &mut Vec<Line>) {
        let begin = out.len();
        for track in std::mem::take(&mut self.tracks).into_values().flatten() {
            track.finish(out);
        }
        self.count(out, begin);
    }

    /// Whether something was left out.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether nothing more is taken.
    pub const fn is_full(&self) -> bool {
        self.read > TEXT_READ || self.kept > TEXT_KEPT
    }

    /// Drops what has no text, or is too much of full screens, and counts the rest.
    fn count(&mut self, out: &mut Vec<Line>, begin: usize) {
        let mut place = 0;
        let (screens, cut) = (&mut self.screens, &mut self.cut);
        out.retain(|line| {
            place += 1;
            if place <= begin {
                return true;
            }
            let length = line.text.len() as u64;
            if line.kind == Kind::Screen && *screens + length > SCREENS_KEPT {
                *cut = true;
                return false;
            }
            *screens += if line.kind == Kind::Screen { length } else { 0 };
            line.text.chars().any(|c| !c.is_whitespace())
        });
        let more: usize = out.iter().skip(begin).map(|line| line.text.len()).sum();
        self.kept += more as u64;
        self.cut |= self.is_full();
    }

    /// `None` when it is no asciicast.
    fn text(&mut self, segment: &Segment, text: &str, out: &mut Vec<Line>) -> Option<()> {
        let number = segment.track;
        let mut rest = text;
        if !self.tracks.contains_key(&number) {
            if self.tracks.len() + self.headers.len() >= TRACKS {
                self.cut = true;
                return Some(());
            }
            let header = self.headers.entry(number).or_default();
            let Some((line, after)) = text.split_once('\n') else {
                header.push_str(text);
                return (header.len() <= WAITING).then_some(());
            };
            header.push_str(line);
            let header = self.headers.remove(&number).unwrap_or_default();
            let track = self.begin(number, &header, segment.first_ms, out)?;
            self.tracks.insert(number, Some(track));
            rest = after;
        }
        let Some(track) = self.tracks.get_mut(&number)?.as_mut() else { return Some(()) };
        let mut over = false;
        for line in rest.split_inclusive('\n') {
            let Some(whole) = line.strip_suffix('\n') else {
                track.carry.push_str(line);
                return (track.carry.len() <= WAITING).then_some(());
            };
            let carried = std::mem::take(&mut track.carry);
            let (after, code, text): (f64, String, String) = if carried.is_empty() {
                serde_json::from_str(whole).ok()?
            } else {
                serde_json::from_str(&(carried + whole)).ok()?
            };
            if !after.is_finite() {
                return None;
            }
            track.at += Duration::from_secs_f64(after.clamp(0.0, LONGEST_PAUSE));
            over |= track.event(code.chars().next()?, text, out);
        }
        if over && number != SESSION_TRACK {
            self.end(number, out);
        }
        Some(())
    }

    fn begin(
        &mut self,
        number: u32,
        header: &str,
        first_ms: u64,
        out: &mut Vec<Line>,
    ) -> Option<Track> {
        let Header { term, timestamp, command, belay } = serde_json::from_str(header).ok()?;
        let screen = if belay.kind != "terminal" {
            Screen::Pipes(String::new())
        } else if self.terminals < TERMINALS {
            self.terminals += 1;
            Screen::Terminal(Box::new(Terminal::new((term.cols, term.rows))?))
        } else {
            self.cut = true;
            Screen::Over
        };
        // The header has whole seconds; what a segment says is finer, when it is of the same second.
        let begun = timestamp.unwrap_or(0).saturating_mul(1000);
        let begun_ms = if first_ms / 1000 == begun / 1000 { first_ms } else { begun };
        let (at, carry) = (Duration::ZERO, String::new());
        let mut track = Track { number, begun_ms, at, command: None, screen, carry };
        if let Some(mut command) = command {
            out.push(track.line(Kind::Command, command.clone(), 0, None));
            // It is copied to each line that it makes.
            cut(&mut command, COMMAND_MAX);
            track.command = Some(command);
        }
        Some(track)
    }

    fn end(&mut self, number: u32, out: &mut Vec<Line>) {
        // Its place is kept: no other track gets its number.
        let ended = self.tracks.insert(number, None).flatten();
        if let Some(track) = ended {
            self.terminals -= usize::from(matches!(track.screen, Screen::Terminal(_)));
            track.finish(out);
        }
    }
}

impl Track {
    fn line(&self, kind: Kind, text: String, offset_ms: u64, command: Option<String>) -> Line {
        let at_ms = self.begun_ms.saturating_add(offset_ms);
        Line { track: self.number, at_ms, offset_ms, kind, text, command }.bounded()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the track is over with it.
    fn event(&mut self, code: char, text: String, out: &mut Vec<Line>) -> bool {
        let now = self.now();
        match code {
            'o' | 'e' => self.output(&text, now, out),
            'r' => {
                if let (Some(size), Screen::Terminal(terminal)) = (resized(&text), &mut self.screen)
                {
                    let mut shown = Vec::new();
                    terminal.resize(size, now, &mut shown);
                    self.shown(shown, out);
                }
            }
            'b' => {
                if let Some(fact) = fact(&text) {
                    out.push(self.line(Kind::Fact, fact, now, None));
                }
            }
            'm' => out.push(self.line(Kind::Fact, text, now, None)),
            'x' => return true,
            _ => {}
        }
        false
    }

    fn output(&mut self, text: &str, now: u64, out: &mut Vec<Line>) {
        match &mut self.screen {
            Screen::Terminal(terminal) => {
                let mut shown = Vec::new();
                terminal.feed(text, now, &mut shown);
                self.shown(shown, out);
            }
            Screen::Pipes(waiting) => {
                let mut lines = Vec::new();
                for part in text.split_inclusive('\n') {
                    let room = WAITING.saturating_sub(waiting.len());
                    waiting.push_str(part.get(..part.floor_char_boundary(room)).unwrap_or(""));
                    if part.ends_with('\n') {
                        lines.push(std::mem::take(waiting));
                    }
                }
                for line in lines {
                    let text = line.trim_end().to_owned();
                    out.push(self.line(Kind::Output, text, now, self.command.clone()));
                }
            }
            Screen::Over => {}
        }
    }

    fn shown(&self, shown: Vec<Shown>, out: &mut Vec<Line>) {
        for Shown { text, at, kind, command } in shown {
            let text = text.trim_end().to_owned();
            out.push(self.line(kind, text, at, command.or_else(|| self.command.clone())));
        }
    }

    fn finish(mut self, out: &mut Vec<Line>) {
        let now = self.now();
        match std::mem::replace(&mut self.screen, Screen::Over) {
            Screen::Terminal(terminal) => {
                let mut shown = Vec::new();
                terminal.finish(&mut shown);
                self.shown(shown, out);
            }
            Screen::Pipes(rest) if !rest.is_empty() => {
                out.push(self.line(Kind::Output, rest, now, self.command.clone()));
            }
            Screen::Pipes(_) | Screen::Over => {}
        }
    }
}

/// Two numbers of a size as an event has it: `120x40`.
fn resized(text: &str) -> Option<(u16, u16)> {
    let (columns, rows) = text.split_once('x')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

/// A fact's fields as words, as `belay play --text` has them. `None` for what is told twice: a command has
/// its own track, and what was opened is closed with the same words.
fn fact(text: &str) -> Option<String> {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return Some(text.to_owned());
    };
    let word = |key: &str| fields.get(key).and_then(Value::as_str);
    let what = word("what").unwrap_or("?");
    let twice =
        matches!(what, "track" | "closed") || (what == "opened" && word("kind") == Some("exec"));
    if twice {
        return None;
    }
    let others = fields.iter().filter(|(key, _)| *key != "what");
    Some(others.fold(what.to_owned(), |line, (key, value)| match value.as_str() {
        Some(text) => format!("{line} {key}={text}"),
        None => format!("{line} {key}={value}"),
    }))
}
