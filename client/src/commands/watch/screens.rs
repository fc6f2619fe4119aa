//! What the session's terminals show now, one of them on this screen.
//!
//! A terminal that opens is followed, until whoever watches chooses one.

use std::collections::BTreeMap;

use avt::Terminal;

use super::follow::Seen;
use crate::commands::play::draw::{inert, rows, usable};
use crate::commands::play::player::show;
use crate::commands::play::track::{Event, Header};
use crate::failure::Failure;

/// Tracks held at a time, at up to 2 MB each. Of more, those that ended first are let go.
const MOST: usize = 32;

struct Shown {
    terminal: Terminal,
    is_terminal: bool,
    what: String,
    ended: Option<String>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Screens {
    tracks: BTreeMap<u32, Shown>,
    chosen: Option<u32>,
}

impl Screens {
    /// With the track that is wanted, when one is.
    pub(super) fn new(chosen: Option<u32>) -> Self {
        Self { tracks: BTreeMap::new(), chosen }
    }

    /// What was recorded next.
    pub(super) fn take(&mut self, seen: Seen) -> Result<(), Failure> {
        match seen {
            Seen::Begun(number, header) => self.begin(number, &header)?,
            Seen::Happened(number, event) => self.happened(number, &event),
            Seen::Missing(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, number: u32, header: &Header) -> Result<(), Failure> {
        if header.kind() == "session" {
            return Ok(());
        }
        if self.tracks.len() >= MOST {
            let ended = self.tracks.iter().find(|(_, shown)| shown.ended.is_some());
            let first = ended.or_else(|| self.tracks.first_key_value()).map(|(first, _)| *first);
            if let Some(first) = first {
                self.tracks.remove(&first);
            }
        }
        let (columns, rows) = usable(header.size());
        let terminal = Terminal::new(columns, rows)
            .map_err(|_| Failure::new("internal", "a terminal without a size"))?;
        let is_terminal = header.kind() == "terminal";
        let what = match &header.command {
            Some(command) => format!("{} {number}: {command}", header.kind()),
            None => format!("{} {number}", header.kind()),
        };
        let what = inert(&what.replace(['\n', '\t'], " "));
        self.tracks.insert(number, Shown { terminal, is_terminal, what, ended: None });
        Ok(())
    }

    fn happened(&mut self, number: u32, event: &Event) {
        if let Some(shown) = self.tracks.get_mut(&number) {
            show(&mut shown.terminal, event, shown.is_terminal);
            if event.code == 'x' {
                shown.ended = Some(inert(&event.text));
            }
        }
    }

    /// The one on this screen: the one chosen, or the newest terminal that has not ended, or the
    /// newest of anything.
    fn current(&self) -> Option<(u32, &Shown)> {
        let one = |(number, shown): (&u32, _)| (*number, shown);
        let newest = |such: fn(&Shown) -> bool| {
            self.tracks.iter().rev().find(|(_, shown)| such(shown)).map(one)
        };
        match self.chosen {
            Some(chosen) => self.tracks.get_key_value(&chosen).map(one),
            None => newest(|shown| shown.is_terminal && shown.ended.is_none())
                .or_else(|| newest(|shown| shown.is_terminal))
                .or_else(|| newest(|_| true)),
        }
    }

    /// Shows the next one from now on.
    pub(super) fn next(&mut self) {
        let current = self.current().map(|(number, _)| number);
        let after = current.and_then(|current| {
            self.tracks.range(current.saturating_add(1)..).next().map(|(next, _)| *next)
        });
        self.chosen = after.or_else(|| self.tracks.keys().next().copied());
    }

    /// Its rows, cut to a screen of this size: those at the top, or as far down as the cursor is.
    pub(super) fn rows(&self, (columns, high): (usize, usize)) -> Vec<String> {
        let Some((_, shown)) = self.current() else { return vec![String::new(); high] };
        let above = (shown.terminal.cursor().row + 1).saturating_sub(high);
        rows(&shown.terminal, (columns, above + high)).split_off(above)
    }

    /// Which it is, in words.
    pub(super) fn words(&self) -> String {
        let Some((number, shown)) = self.current() else {
            return match self.chosen {
                Some(chosen) => format!("no track {chosen} yet"),
                None => "no terminal yet".to_owned(),
            };
        };
        let place = self.tracks.range(..=number).count();
        let ended = match &shown.ended {
            Some(status) => format!(", ended with {status}"),
            None => String::new(),
        };
        format!("{}{ended} ({place} of {})", shown.what, self.tracks.len())
    }
}
