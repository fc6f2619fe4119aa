//! What full-screen programs (`vi`, `less`, `top`) draw, on the terminal's other screen.
//!
//! Nothing scrolls away there, so it is looked at: when it has been still, every few seconds while it is
//! not, and when the program leaves it. A row is taken once a visit. One that another differs from in
//! its numbers only is taken again now and then, and at the end, so that a clock or a table of
//! processes does not fill an index; what changed and went within seconds is not seen.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use avt::parser::Function;
use avt::{Line as Row, Observation, Observer, Operation, Screen, ScreenKind};

/// Nothing was drawn for so long, in milliseconds: a person can read it.
const STILL: u64 = 1000;

/// Longest time between two looks at a screen that changes all the time, in milliseconds.
const EVERY: u64 = 5000;

/// The same for rows that differ in their numbers only.
const NUMBERS_EVERY: u64 = 60_000;

/// Rows of one visit that are remembered; then they are taken again.
const REMEMBERED: usize = 20_000;

/// Screens that are left within one piece of output and looked at: nobody reads more.
const LEFT: usize = 4;

/// Rows as they are: what stands there, and whether the next goes on with it.
type Rows = Vec<(String, bool)>;

fn rows(screen: Screen<'_>) -> Rows {
    screen.visible_lines().map(|row| (row.chars().collect(), row.is_wrapped())).collect()
}

/// The other screen, while it shows.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// What stands in each row, as a hash, and since when.
    known: Vec<(u64, u64)>,
    /// When something was written last that was not looked at.
    written: Option<u64>,
    looked: u64,
    numbers: u64,
    taken: HashSet<u64>,
    /// The same, all numbers being one.
    alike: HashSet<u64>,
}

/// Why it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Now,
    Last,
}

impl Drawn {
    /// Sees what was drawn by now.
    pub(super) fn settle(&mut self, screen: Screen<'_>, at: u64) {
        let mut count = 0;
        for row in screen.visible_lines() {
            let hash = hash_of(row.chars());
            match self.known.get_mut(count) {
                Some(known) if known.0 == hash => {}
                Some(known) => {
                    *known = (hash, at);
                    self.written = Some(at);
                }
                None => {
                    self.known.push((hash, at));
                    self.written = Some(at);
                }
            }
            count += 1;
        }
        self.known.truncate(count);
    }

    /// Looks at it, if it is time, before anything is drawn on it; `out` hears rows, and since when
    /// they stand there.
    pub(super) fn look(&mut self, screen: Screen<'_>, at: u64, out: &mut Vec<(String, u64)>) {
        let due = self.written.is_some_and(|written| {
            at.saturating_sub(written) >= STILL || at.saturating_sub(self.looked) >= EVERY
        });
        if due {
            self.looked = at;
            self.take(rows(screen), Why::Now, at, out);
        }
    }

    /// It is left, or the recording ends: what of it was not taken.
    pub(super) fn leave(&mut self, rows: Rows, at: u64, out: &mut Vec<(String, u64)>) {
        self.take(rows, Why::Last, at, out);
        *self = Self { looked: at, numbers: at, ..Self::default() };
    }

    /// The recording ends on it.
    pub(super) fn finish(mut self, screen: Screen<'_>, at: u64, out: &mut Vec<(String, u64)>) {
        self.leave(rows(screen), at, out);
    }

    fn take(&mut self, rows: Rows, why: Why, now: u64, out: &mut Vec<(String, u64)>) {
        self.written = None;
        let numbers = why == Why::Last || now.saturating_sub(self.numbers) >= NUMBERS_EVERY;
        if numbers {
            self.numbers = now;
        }
        if self.taken.len() >= REMEMBERED {
            self.taken.clear();
            self.alike.clear();
        }
        let mut line: Option<(String, u64)> = None;
        for (place, (text, wrapped)) in rows.into_iter().enumerate() {
            let known = self.known.get(place).filter(|known| known.0 == hash_of(text.chars()));
            let since = known.map_or(now, |known| known.1);
            let (mut joined, before) = line.take().unwrap_or_default();
            joined.push_str(&text);
            let since = before.max(since);
            if wrapped {
                line = Some((joined, since));
            } else {
                self.line(joined, since, numbers, out);
            }
        }
        if let Some((joined, since)) = line {
            self.line(joined, since, numbers, out);
        }
    }

    fn line(&mut self, text: String, since: u64, numbers: bool, out: &mut Vec<(String, u64)>) {
        let trimmed = text.trim();
        if trimmed.is_empty() || self.taken.contains(&hash_of(trimmed.chars())) {
            return;
        }
        if self.alike.insert(alike(trimmed)) || numbers {
            self.taken.insert(hash_of(trimmed.chars()));
            out.push((text, since));
        }
    }
}

/// Sees the other screen being left, before it is gone.
#[derive(Default)]
pub(super) struct Leaving {
    before: Option<Rows>,
    left: Vec<Rows>,
}

impl Leaving {
    /// What stood there each time.
    pub(super) fn left(&mut self) -> Vec<Rows> {
        std::mem::take(&mut self.left)
    }
}

impl Observer for Leaving {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let may_leave =
            matches!(operation, Operation::Function(Function::Decrst(_) | Function::Ris));
        let terminal = context.terminal();
        let there = may_leave && terminal.active_screen_kind() == ScreenKind::Alternate;
        self.before = (there && self.left.len() < LEFT).then(|| rows(terminal.screen()));
    }

    fn after(&mut self, context: &mut Observation<'_>, _: &Operation) {
        if let Some(rows) = self.before.take()
            && context.terminal().active_screen_kind() == ScreenKind::Primary
        {
            self.left.push(rows);
        }
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

pub(super) fn hash(row: &Row) -> u64 {
    hash_of(row.chars())
}

fn hash_of(chars: impl Iterator<Item = char>) -> u64 {
    let mut hasher = DefaultHasher::new();
    chars.for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

/// A hash that numbers, and how far things stand apart, do not change.
fn alike(text: &str) -> u64 {
    let mut before = '\0';
    hash_of(text.chars().filter_map(|c| {
        let c = match c {
            _ if c.is_numeric() => '0',
            _ if c.is_whitespace() => ' ',
            _ => c,
        };
        let again = c == before && matches!(c, '0' | ' ');
        before = c;
        (!again).then_some(c)
    }))
}
