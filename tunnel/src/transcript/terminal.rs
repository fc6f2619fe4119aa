//! What stood on a recorded terminal, line by line, with the time each was last written.
//!
//! The bytes of a device go into a terminal of ours (avt); a line is what its rows say when they have
//! scrolled away, joined where they were wrapped. Where the shell marks its commands (OSC 133), each
//! line knows the command that made it. Full-screen programs draw on another screen: see `drawn`.

use std::collections::VecDeque;

use avt::observer::{ShellEvent, ShellTracker};
use avt::{Line as Row, Observation, Observer, ScreenKind, Terminal as Emulator};

use super::block::{COMMAND_MAX, Kind, cut};
use super::drawn::{Drawn, Leaving, hash};

/// Largest screen followed: wider and higher than people's.
const COLUMNS_MAX: usize = 300;
/// See [`COLUMNS_MAX`].
const ROWS_MAX: usize = 100;

/// Bytes shown in one go: eight of them can repeat a character 65,535 times, and the rows that go are held.
const PIECE: usize = 1024;

/// A line that nothing writes to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// When it was written last, as told to [`Terminal::feed`].
    pub(super) at: u64,
    /// [`Kind::Output`] or [`Kind::Screen`].
    pub(super) kind: Kind,
    pub(super) command: Option<String>,
}

/// A row on the screen.
#[derive(Debug, Clone, Default)]
struct Known {
    hash: u64,
    at: u64,
    command: Option<String>,
}

/// Rows that went, in their order.
#[derive(Default)]
struct Gone(Vec<(String, bool)>);

impl Observer for Gone {
    type Output = ();
    fn evicted(&mut self, _: &mut Observation<'_>, row: &Row) {
        self.0.push((row.chars().collect(), row.is_wrapped()));
    }
    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// A recorded terminal.
pub(super) struct Terminal {
    emulator: Emulator,
    gone: Gone,
    shell: ShellTracker,
    /// What is known of each row that is there.
    rows: VecDeque<Known>,
    /// What runs now.
    command: Option<String>,
    /// A line of which more rows are to come.
    begun: Option<Shown>,
    leaving: Leaving,
    /// The other screen, where one was ever shown.
    drawn: Box<Drawn>,
    /// The time, as told last.
    now: u64,
}

fn usable((columns, rows): (u16, u16)) -> (usize, usize) {
    (usize::from(columns).clamp(1, COLUMNS_MAX), usize::from(rows).clamp(1, ROWS_MAX))
}

impl Terminal {
    /// `None` when there can be none of this size.
    pub(super) fn new(size: (u16, u16)) -> Option<Self> {
        let (columns, rows) = usable(size);
        Some(Self {
            emulator: Emulator::new(columns, rows).ok()?,
            gone: Gone::default(),
            shell: ShellTracker::new(),
            rows: VecDeque::new(),
            command: None,
            begun: None,
            leaving: Leaving::default(),
            drawn: Box::default(),
            now: 0,
        })
    }

    /// Shows output; `out` hears lines that went off the screen.
    pub(super) fn feed(&mut self, text: &str, at: u64, out: &mut Vec<Shown>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
            self.feed_piece(piece, at, out);
            rest = after;
        }
    }

    fn feed_piece(&mut self, text: &str, at: u64, out: &mut Vec<Shown>) {
        self.now = at;
        let was_other = self.is_other();
        if was_other {
            let mut rows = Vec::new();
            self.drawn.look(self.emulator.screen(), at, &mut rows);
            self.full_screen(rows, out);
        }
        let observers = ((&mut self.gone, &mut self.leaving), &mut self.shell);
        let (_, events) = self.emulator.feed_with(text, observers);
        for left in self.leaving.left() {
            let mut rows = Vec::new();
            self.drawn.leave(left, at, &mut rows);
            self.full_screen(rows, out);
        }
        let is_other = self.is_other();
        if is_other {
            self.drawn.settle(self.emulator.screen(), at);
        }
        // Nothing is written on the one while the other shows.
        if !(was_other && is_other && self.gone.0.is_empty()) {
            self.settle(at, out);
        }
        for event in events {
            match event {
                ShellEvent::CommandSubmitted(command) => {
                    self.command = command.text.map(|mut text| {
                        cut(&mut text, COMMAND_MAX);
                        text
                    });
                }
                ShellEvent::CommandFinished { .. } | ShellEvent::CommandCancelled { .. } => {
                    self.command = None;
                }
                ShellEvent::PromptStarted(_) => {}
            }
        }
    }

    /// Has another size from now on.
    pub(super) fn resize(&mut self, size: (u16, u16), at: u64, out: &mut Vec<Shown>) {
        let (columns, rows) = usable(size);
        let shell = &mut self.shell;
        self.emulator.resize_with(columns, rows, (&mut self.gone, shell));
        self.settle(at, out);
        if self.is_other() {
            self.drawn.settle(self.emulator.screen(), at);
        }
    }

    fn is_other(&self) -> bool {
        self.emulator.active_screen_kind() == ScreenKind::Alternate
    }

    /// Rows of the other screen, and since when they stood there.
    fn full_screen(&self, rows: Vec<(String, u64)>, out: &mut Vec<Shown>) {
        let command = &self.command;
        out.extend(rows.into_iter().map(|(text, at)| Shown {
            text,
            at,
            kind: Kind::Screen,
            command: command.clone(),
        }));
    }

    /// Nothing follows: what is on the screen.
    pub(super) fn finish(mut self, out: &mut Vec<Shown>) {
        if self.is_other() {
            let mut rows = Vec::new();
            std::mem::take(&mut *self.drawn).finish(self.emulator.screen(), self.now, &mut rows);
            self.full_screen(rows, out);
        }
        let rows: Vec<(String, bool)> = {
            let lines = self.emulator.primary_screen().all_lines();
            lines.map(|row| (row.chars().collect(), row.is_wrapped())).collect()
        };
        let begin = out.len();
        for (text, wrapped) in rows {
            self.row(text, wrapped, 0, out);
        }
        out.extend(self.begun.take());
        while out.len() > begin && out.last().is_some_and(|last| last.text.trim_end().is_empty()) {
            out.pop();
        }
    }

    /// Takes rows that went, and looks which of those that are there are others now.
    fn settle(&mut self, at: u64, out: &mut Vec<Shown>) {
        for (text, wrapped) in std::mem::take(&mut self.gone.0) {
            self.row(text, wrapped, at, out);
        }
        let command = self.command.clone();
        let screen = self.emulator.primary_screen();
        let mut count = 0;
        for (place, row) in screen.all_lines().enumerate() {
            count += 1;
            let hash = hash(row);
            match self.rows.get_mut(place) {
                Some(known) if known.hash == hash => {}
                Some(known) => *known = Known { hash, at, command: command.clone() },
                None => self.rows.push_back(Known { hash, at, command: command.clone() }),
            }
        }
        self.rows.truncate(count);
    }

    /// The next row of the text, from the top.
    fn row(&mut self, text: String, wrapped: bool, now: u64, out: &mut Vec<Shown>) {
        let known = self.rows.pop_front();
        let known =
            known.unwrap_or_else(|| Known { hash: 0, at: now, command: self.command.clone() });
        let mut line = self.begun.take().unwrap_or_else(|| Shown {
            text: String::new(),
            at: known.at,
            kind: Kind::Output,
            command: known.command,
        });
        line.at = line.at.max(known.at);
        // A line without an end is bounded where it is kept.
        if line.text.len() < super::block::LINE_MAX {
            line.text.push_str(&text);
        }
        if wrapped {
            self.begun = Some(line);
        } else {
            out.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn shown(feeds: &[(u64, &str)]) -> Vec<Shown> {
        let mut terminal = Terminal::new((20, 4)).unwrap();
        let mut out = Vec::new();
        for (at, text) in feeds {
            terminal.feed(text, *at, &mut out);
        }
        terminal.finish(&mut out);
        out
    }

    fn texts(lines: &[Shown]) -> Vec<(u64, &str)> {
        lines.iter().map(|line| (line.at, line.text.trim_end())).collect()
    }

    #[test]
    fn a_line_has_the_time_at_which_it_was_written_not_the_one_at_which_it_went() {
        let lines = shown(&[
            (1, "$ ls\r\n"),
            (2, "a\r\nb\r\n"),
            (9, "c\r\nd\r\ne\r\n$ "),
            (12, "exit\r\n"),
        ]);
        let wanted =
            [(1, "$ ls"), (2, "a"), (2, "b"), (9, "c"), (9, "d"), (9, "e"), (12, "$ exit")];
        assert_eq!(texts(&lines), wanted);
    }

    #[test]
    fn wrapped_rows_are_one_line() {
        let long = "x".repeat(50);
        let lines = shown(&[(1, &long), (2, "\r\nback\r\n")]);
        assert_eq!(texts(&lines), [(1, long.as_str()), (2, "back")]);
    }

    #[test]
    fn output_knows_its_command_where_the_shell_marks_it() {
        let prompt = "\u{1b}]133;A\u{7}$ \u{1b}]133;B\u{7}";
        let lines = shown(&[
            (1, prompt),
            (2, "rm -rf x\u{1b}]133;C\u{7}\r\n"),
            (3, "gone\r\n"),
            (4, "\u{1b}]133;D;0\u{7}"),
            (5, prompt),
        ]);
        assert_eq!(texts(&lines)[..2], [(2, "$ rm -rf x"), (3, "gone")]);
        assert_eq!(lines[1].command.as_deref(), Some("rm -rf x"));
    }

    /// What was seen of full screens: since when it stood there, and what.
    fn drawn(feeds: &[(u64, &str)]) -> Vec<(u64, String)> {
        let lines = shown(feeds).into_iter().filter(|line| line.kind == Kind::Screen);
        lines.map(|line| (line.at, line.text.trim().to_owned())).collect()
    }

    const ENTER: &str = "\u{1b}[?1049h\u{1b}[H";
    const LEAVE: &str = "\u{1b}[?1049l";

    fn owned(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
    }

    #[test]
    fn a_full_screen_is_read_when_it_is_still_and_when_it_is_left() {
        let feeds = [
            (0, "$ vi\r\n"),
            (100, ENTER),
            (200, "PermitRootLogin no\r\nPort 22"),
            // It stood for three seconds.
            (3200, "\u{1b}[1;17Hyes"),
            (3300, "\u{1b}[2;6H2222"),
            (3400, LEAVE),
            (3500, "$ exit\r\n"),
        ];
        let wanted = [
            (200, "PermitRootLogin no"),
            (200, "Port 22"),
            (3200, "PermitRootLogin yes"),
            (3300, "Port 2222"),
        ];
        assert_eq!(drawn(&feeds), owned(&wanted));
        let lines = shown(&feeds);
        let others: Vec<&str> = lines
            .iter()
            .filter(|line| line.kind == Kind::Output)
            .map(|line| line.text.trim_end())
            .collect();
        assert_eq!(others, ["$ vi", "$ exit"]);
        // All in one piece, twice, and a recording that ends there.
        let once = format!("{ENTER}one{LEAVE}{ENTER}two{LEAVE}{ENTER}three");
        assert_eq!(drawn(&[(7, &once)]), owned(&[(7, "one"), (7, "two"), (7, "three")]));
    }

    #[test]
    fn a_screen_that_changes_all_the_time_says_little_more_than_once() {
        let mut feeds = vec![(0, format!("{ENTER}top"))];
        for second in 1..=3600_u64 {
            let text = format!(
                "\u{1b}[2;1H{:>6} cpu {:>5}%\u{1b}[3;1Hsshd {second}",
                second * 7,
                second % 100
            );
            feeds.push((second * 1000, text));
        }
        feeds.push((3_601_000, LEAVE.to_owned()));
        let feeds: Vec<(u64, &str)> = feeds.iter().map(|(at, text)| (*at, text.as_str())).collect();
        let rows = drawn(&feeds);
        assert!(rows.len() < 3 * 70, "{}", rows.len());
        assert_eq!(rows.iter().filter(|row| row.1 == "top").count(), 1);
        assert_eq!(rows.last().unwrap().1, "sshd 3600", "the last of it is there");
    }
}
