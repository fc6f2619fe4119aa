//! The tracks of a recording: one asciicast each.

use std::collections::BTreeMap;
use std::time::Duration;

use belay_proto::error_line::{one_line, printable};
use belay_proto::recording::Segment;
use belay_tunnel::recording::{Opener, unpack, unpack_payload};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::open::locked;
use super::proof::{Proven, broken};
use crate::failure::Failure;

/// Text of all tracks together that is held to be shown.
const SHOWN_MAX: usize = 1024 * 1024 * 1024;

/// No event lies further after the one before it: ten years.
const LONGEST_PAUSE: f64 = 3.2e8;

/// One terminal or command, or the session itself.
pub(super) struct Track {
    pub(super) number: u32,
    pub(super) header: Header,
    pub(super) events: Vec<Event>,
}

/// What is read of a header.
#[derive(Debug, Deserialize)]
pub(in crate::commands) struct Header {
    version: u32,
    pub(in crate::commands) term: Term,
    pub(in crate::commands) timestamp: Option<u64>,
    pub(in crate::commands) command: Option<String>,
    belay: Belay,
}

/// The terminal.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::commands) struct Term {
    pub(in crate::commands) cols: u16,
    pub(in crate::commands) rows: u16,
    #[serde(rename = "type")]
    pub(in crate::commands) name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Belay {
    kind: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Event {
    /// Since the track began.
    pub(in crate::commands) at: Duration,
    pub(in crate::commands) code: char,
    pub(in crate::commands) text: String,
}

impl Header {
    /// What the track is of: `session`, `terminal`, `command`, `files`.
    pub(in crate::commands) fn kind(&self) -> &str {
        &self.belay.kind
    }

    /// The terminal's size, fit for a screen.
    pub(in crate::commands) fn size(&self) -> (usize, usize) {
        (usize::from(self.term.cols.max(1)), usize::from(self.term.rows.max(1)))
    }
}

/// For `--json`.
#[derive(Serialize)]
pub(super) struct Brief<'a> {
    track: u32,
    kind: &'a str,
    command: Option<&'a str>,
    begun: Option<u64>,
    seconds: f64,
    exit: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<Value>,
    /// What was typed, when that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Vec<Typed<'a>>>,
}

/// Something typed at a terminal that echoed.
#[derive(Serialize)]
struct Typed<'a> {
    /// Seconds since the track began.
    at: f64,
    text: &'a str,
}

impl<'a> Brief<'a> {
    pub(super) fn add_input(&mut self, track: &'a Track) {
        let typed = track.events.iter().filter(|event| event.code == 'i');
        let typed = typed.map(|event| Typed { at: event.at.as_secs_f64(), text: &event.text });
        self.input = Some(typed.collect());
    }
}

impl Track {
    pub(super) fn kind(&self) -> &str {
        self.header.kind()
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.kind() == "terminal"
    }

    /// For a person who has to choose.
    pub(super) fn words(&self) -> String {
        let what = self.header.command.as_deref().unwrap_or("");
        printable(&format!("{} ({} {what})", self.number, self.kind())).replace(" )", ")")
    }

    /// Its size, fit for a screen.
    pub(super) fn size(&self) -> (usize, usize) {
        self.header.size()
    }

    pub(super) fn brief(&self) -> Brief<'_> {
        let exit = self.events.iter().rev().find(|event| event.code == 'x');
        let facts = self.events.iter().filter(|event| event.code == 'b');
        Brief {
            track: self.number,
            kind: self.kind(),
            command: self.header.command.as_deref(),
            begun: self.header.timestamp,
            seconds: self.events.last().map_or(0.0, |last| last.at.as_secs_f64()),
            exit: exit.map(|exit| exit.text.as_str()),
            facts: facts.filter_map(|fact| serde_json::from_str(&fact.text).ok()).collect(),
            input: None,
        }
    }
}

/// Two numbers of a size as an event has it: `120x40`.
pub(in crate::commands) fn resized(text: &str) -> Option<(usize, usize)> {
    let (columns, rows) = text.split_once('x')?;
    let side = |text: &str| text.parse::<u16>().ok().filter(|side| *side > 0).map(usize::from);
    Some((side(columns)?, side(rows)?))
}

/// All tracks, by their numbers.
pub(super) fn tracks(proven: &Proven, opener: Option<&Opener>) -> Result<Vec<Track>, Failure> {
    let mut texts: BTreeMap<u32, String> = BTreeMap::new();
    let mut total = 0;
    for segment in &proven.segments {
        let text = text(segment, opener)?;
        total += text.len();
        if total > SHOWN_MAX {
            return Err(Failure::new("file", "the recording is too long to be shown in one go")
                .remedy("keep it with --save and look at parts of it"));
        }
        texts.entry(segment.track).or_default().push_str(&text);
    }
    texts.into_iter().map(|(number, text)| track(number, &text)).collect()
}

/// The lines a segment carries.
pub(in crate::commands) fn text(
    segment: &Segment,
    opener: Option<&Opener>,
) -> Result<String, Failure> {
    let number = segment.number;
    let unpacked = if segment.sealed == Some(true) {
        let opened = opener.ok_or_else(locked)?.open(segment);
        let opened = opened.ok_or_else(|| {
            broken(format!("segment {number} does not open with the recording's own key"))
        })?;
        unpack_payload(&opened, segment.compressed == Some(true))
    } else {
        unpack(segment)
    };
    unpacked.map_err(|error| broken(format!("segment {number}: {}", one_line(&error))))
}

fn track(number: u32, text: &str) -> Result<Track, Failure> {
    let nonsense = |line: usize| broken(format!("line {line} of track {number} is no asciicast"));
    let mut lines = text.lines().enumerate();
    let header = lines.next().and_then(|(_, line)| header(line)).ok_or_else(|| nonsense(1))?;
    let mut at = Duration::ZERO;
    let mut events = Vec::new();
    for (line, text) in lines {
        let event = event(text, at).ok_or_else(|| nonsense(line + 1))?;
        at = event.at;
        events.push(event);
    }
    Ok(Track { number, header, events })
}

/// A track's first line.
pub(in crate::commands) fn header(line: &str) -> Option<Header> {
    serde_json::from_str(line).ok().filter(|header: &Header| header.version == 3)
}

/// Any other line of it; `before`: when the one before it happened.
pub(in crate::commands) fn event(line: &str, before: Duration) -> Option<Event> {
    let (after, code, text): (f64, String, String) = serde_json::from_str(line).ok()?;
    let after = Duration::from_secs_f64(after.clamp(0.0, LONGEST_PAUSE));
    Some(Event { at: before.saturating_add(after), code: code.chars().next()?, text })
}
