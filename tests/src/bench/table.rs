//! The one table: a figure, ours, the peer's, their ratio, what was to be reached, and whether.

use std::fmt;

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Ours at least this many times the peer's.
    TimesAtLeast(f64),
    /// Ours at most this many times the peer's.
    TimesAtMost(f64),
    /// Ours at least this.
    AtLeast(f64),
    /// Ours at most this.
    AtMost(f64),
    /// Only shown.
    Shown,
}

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 10^6 bytes a second.
    MegabytesPerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Network round trips.
    RoundTrips,
    /// 2^10 bytes.
    Kibibytes,
    /// 2^20 bytes.
    Mebibytes,
    /// Whatever it is, a second.
    PerSecond,
    /// A number of something.
    Count,
    /// Seconds.
    Seconds,
    /// So many times what it was.
    Times,
    /// 10^6 bytes in 30 days.
    MegabytesAMonth,
    /// Parts of a hundred.
    Percent,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Ours, in `unit`.
    pub ours: f64,
    /// The peer's, where there is one.
    pub peer: Option<f64>,
    /// Of both.
    pub unit: Unit,
    /// What was to be reached.
    pub goal: Goal,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.peer.filter(|peer| *peer > 0.0).map(|peer| self.ours / peer)
    }

    /// Whether the goal is reached; `None` where there is none to reach.
    #[must_use]
    pub fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::TimesAtLeast(times) => Some(self.ratio()? >= times),
            Goal::TimesAtMost(times) => Some(self.ratio()? <= times),
            Goal::AtLeast(least) => Some(self.ours >= least),
            Goal::AtMost(most) => Some(self.ours <= most),
            Goal::Shown => None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let target = match self.goal {
            Goal::TimesAtLeast(times) => format!(">= {times} x"),
            Goal::TimesAtMost(times) => format!("<= {times} x"),
            Goal::AtLeast(least) => format!(">= {least}"),
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::Shown => "-".into(),
        };
        [
            self.figure.clone(),
            self.unit.of(self.ours),
            self.peer.map_or_else(|| "-".into(), |peer| self.unit.of(peer)),
            self.ratio().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2} x")),
            target,
            self.reached().map_or("-", |reached| if reached { "yes" } else { "NO" }).into(),
        ]
    }
}

impl Unit {
    fn of(self, value: f64) -> String {
        match self {
            Self::MegabytesPerSecond => format!("{value:.1} MB/s"),
            Self::Milliseconds if value < 10.0 => format!("{value:.3} ms"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::RoundTrips => format!("{value:.1} rt"),
            Self::Kibibytes => format!("{value:.1} KiB"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Count => format!("{value:.0}"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Times => format!("{value:.2} x"),
            Self::MegabytesAMonth => format!("{value:.2} MB"),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

/// Rows under their headings, in the order they came.
#[derive(Debug, Clone, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// How many goals there are, and how many are reached.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let goals: Vec<bool> = self.0.iter().filter_map(Row::reached).collect();
        (goals.len(), goals.iter().filter(|reached| **reached).count())
    }
}

const HEADS: [&str; 6] = ["figure", "ours", "peer", "ratio", "target", "reached"];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 6]> = self.0.iter().map(Row::cells).collect();
        let mut widths = HEADS.map(str::len);
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 6]| {
            for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
                if n == 0 {
                    write!(f, "| {cell:<width$} |")?;
                } else {
                    write!(f, " {cell:>width$} |")?;
                }
            }
            writeln!(f)
        };
        line(f, HEADS)?;
        let dashes = widths.map(|width| "-".repeat(width));
        line(f, dashes.each_ref().map(String::as_str))?;
        for row in &rows {
            line(f, row.each_ref().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_goal_is_reached() {
        let row =
            |ours, peer, goal| Row { figure: "x".into(), ours, peer, unit: Unit::Count, goal };
        assert_eq!(row(8.0, Some(2.0), Goal::TimesAtLeast(4.0)).reached(), Some(true));
        assert_eq!(row(7.9, Some(2.0), Goal::TimesAtLeast(4.0)).reached(), Some(false));
        assert_eq!(row(1.0, Some(2.0), Goal::TimesAtMost(0.5)).reached(), Some(true));
        assert_eq!(row(1.1, Some(2.0), Goal::TimesAtMost(0.5)).reached(), Some(false));
        assert_eq!(row(1.0, None, Goal::AtMost(0.5)).reached(), Some(false));
        assert_eq!(row(1.0, None, Goal::AtLeast(0.5)).reached(), Some(true));
        assert_eq!(row(1.0, None, Goal::TimesAtLeast(0.5)).reached(), None);
        assert_eq!(row(1.0, Some(2.0), Goal::Shown).reached(), None);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        for (figure, ours) in [("a", 1.0), ("a longer one", 1000.0)] {
            let unit = Unit::Milliseconds;
            table.push(Row { figure: figure.into(), ours, peer: None, unit, goal: Goal::Shown });
        }
        let text = table.to_string();
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.windows(2).all(|pair| matches!(pair, [a, b] if a == b)), "{text}");
    }
}
