//! What is recorded as plain text, a line as soon as it stands.
//!
//! A terminal's line stands when the cursor is below it or it has left the screen. Programs that draw
//! all over the screen have no lines until they end; `belay play --text` has the last word.

use std::collections::BTreeMap;

use avt::observer::{Observation, Observer};
use avt::{Line, ScreenKind, Terminal};
use belay_proto::recording::Gap;

use super::follow::Seen;
use crate::commands::play::draw::{inert, usable};
use crate::commands::play::track::{Event, Header, resized};
use crate::commands::play::transcript::{heading, words};
use crate::failure::Failure;

/// Longest line held until its end; a longer one is several.
const LINE_MAX: usize = 64 * 1024;

/// Tracks held at a time. Of more, the first is let go.
const MOST: usize = 64;

/// All tracks, or one.
#[derive(Default)]
pub(super) struct Lines {
    only: Option<u32>,
    tracks: BTreeMap<u32, Track>,
    /// Whose lines were the last ones.
    last: Option<u32>,
}

struct Track {
    header: Header,
    source: Source,
}

enum Source {
    Terminal(Box<Terminal>, Standing),
    Command(String),
}

impl Lines {
    /// Of this track, when one is wanted.
    pub(super) fn new(only: Option<u32>) -> Self {
        Self { only, ..Self::default() }
    }

    /// What was recorded next, as lines that act on no terminal.
    pub(super) fn take(&mut self, seen: Seen) -> Result<Vec<String>, Failure> {
        match seen {
            Seen::Begun(number, header) => {
                if self.only.is_none_or(|only| only == number) {
                    if self.tracks.len() >= MOST {
                        self.tracks.pop_first();
                    }
                    self.tracks.insert(number, Track::new(header)?);
                }
                Ok(Vec::new())
            }
            Seen::Happened(number, event) => {
                let Some(track) = self.tracks.get_mut(&number) else { return Ok(Vec::new()) };
                let lines = track.take(&event);
                Ok(self.under_heading(number, lines))
            }
            Seen::Missing(Gap { from, to }) => {
                Ok(vec![format!("--- segments {from} to {to} could not be kept by the device")])
            }
        }
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let numbers: Vec<u32> = self.tracks.keys().copied().collect();
        let mut all = Vec::new();
        for number in numbers {
            let Some(track) = self.tracks.get_mut(&number) else { continue };
            let lines = track.finish();
            all.extend(self.under_heading(number, lines));
        }
        all
    }

    fn under_heading(&mut self, number: u32, lines: Vec<String>) -> Vec<String> {
        if lines.is_empty() {
            return lines;
        }
        let mut all = Vec::with_capacity(lines.len() + 1);
        if self.last != Some(number)
            && let Some(track) = self.tracks.get(&number)
        {
            all.push(heading(number, &track.header));
        }
        self.last = Some(number);
        all.extend(lines.iter().map(|line| inert(line)));
        all
    }
}

impl Track {
    fn new(header: Header) -> Result<Self, Failure> {
        let source = if header.kind() == "terminal" {
            let (columns, rows) = usable(header.size());
            let terminal = Terminal::new(columns, rows)
                .map_err(|_| Failure::new("internal", "a terminal without a size"))?;
            Source::Terminal(Box::new(terminal), Standing::default())
        } else {
            Source::Command(String::new())
        };
        Ok(Self { header, source })
    }

    fn take(&mut self, event: &Event) -> Vec<String> {
        if matches!(event.code, 'o' | 'e' | 'r') {
            return self.shown(event);
        }
        // What was typed there stands in what is shown.
        if event.code == 'i' {
            return Vec::new();
        }
        // A program's last line comes before how it ended. On a terminal other events are beside.
        let is_beside = matches!(self.source, Source::Terminal(..)) && event.code != 'x';
        let mut lines = if is_beside { Vec::new() } else { self.finish() };
        lines.push(words(&self.header, event));
        lines
    }

    fn shown(&mut self, event: &Event) -> Vec<String> {
        match (&mut self.source, event.code) {
            (Source::Terminal(terminal, standing), 'r') => {
                if let Some((columns, rows)) = resized(&event.text).map(usable) {
                    terminal.resize_with(columns, rows, &mut *standing);
                    standing.counted_anew(terminal);
                }
                Vec::new()
            }
            (Source::Terminal(terminal, standing), _) => {
                terminal.feed_with(event.text.as_str(), &mut *standing);
                standing.above_the_cursor(terminal)
            }
            (Source::Command(_), 'r') => Vec::new(),
            (Source::Command(begun), _) => {
                begun.push_str(&event.text);
                let whole = begun.rfind('\n').map_or(0, |end| end + 1);
                let cut = if begun.len() - whole > LINE_MAX { begun.len() } else { whole };
                let rest = begun.split_off(cut);
                let lines = std::mem::replace(begun, rest);
                lines.lines().map(str::to_owned).collect()
            }
        }
    }

    fn finish(&mut self) -> Vec<String> {
        match &mut self.source {
            Source::Terminal(terminal, standing) => standing.all(terminal),
            Source::Command(begun) => std::mem::take(begun).lines().map(str::to_owned).collect(),
        }
    }
}

/// Which of a terminal's lines were told. Rows are counted from the first there ever was.
#[derive(Default)]
struct Standing {
    /// How many have left the screen.
    gone: usize,
    /// How many were told.
    told: usize,
    /// A line that goes on in the next row.
    begun: String,
    lines: Vec<String>,
}

impl Standing {
    fn tell(&mut self, row: usize, line: &Line) {
        if row < self.told {
            return;
        }
        self.told = row + 1;
        self.begun.extend(line.chars());
        if !line.is_wrapped() || self.begun.len() > LINE_MAX {
            self.lines.push(std::mem::take(&mut self.begun).trim_end().to_owned());
        }
    }

    /// The rows above this one of the screen.
    fn upto(&mut self, terminal: &Terminal, row: usize) -> Vec<String> {
        for (n, line) in terminal.primary_screen().visible_lines().take(row).enumerate() {
            self.tell(self.gone + n, line);
        }
        std::mem::take(&mut self.lines)
    }

    fn above_the_cursor(&mut self, terminal: &Terminal) -> Vec<String> {
        // The rows of a program that has the whole screen are no lines.
        let whole_screen = terminal.active_screen_kind() != ScreenKind::Primary;
        self.upto(terminal, if whole_screen { 0 } else { terminal.cursor().row })
    }

    /// After a resize rows are others: what is above the cursor was told.
    fn counted_anew(&mut self, terminal: &Terminal) {
        if terminal.active_screen_kind() == ScreenKind::Primary {
            self.told = self.gone + terminal.cursor().row;
            self.begun.clear();
        }
    }

    /// What stands there at the end.
    fn all(&mut self, terminal: &Terminal) -> Vec<String> {
        let rows = terminal.primary_screen().visible_lines();
        let used = rows.enumerate().filter(|(_, line)| !line.text().trim_end().is_empty()).last();
        self.upto(terminal, used.map_or(0, |(row, _)| row + 1))
    }
}

impl Observer for Standing {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.tell(self.gone, line);
        self.gone += 1;
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}
