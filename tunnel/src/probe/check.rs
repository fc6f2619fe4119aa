//! One finding.

use belay_proto::error_line::printable;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Well,
    /// It works, and could be better.
    Note,
    /// Something is wrong.
    Bad,
}

/// What was looked at, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: one word, stable.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to change; empty when nothing is to be.
    pub remedy: String,
}

impl Check {
    /// As it should be.
    pub fn well(name: &'static str, detail: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), String::new());
        Self { name, verdict: Verdict::Well, detail, remedy }
    }

    /// It works, and could be better.
    pub fn note(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { name, verdict: Verdict::Note, detail, remedy }
    }

    /// Something is wrong.
    pub fn bad(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { name, verdict: Verdict::Bad, detail, remedy }
    }

    /// Whether nothing is wrong.
    pub const fn is_ok(&self) -> bool {
        !matches!(self.verdict, Verdict::Bad)
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Well => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        let colon = if self.remedy.is_empty() { "" } else { "; " };
        printable(&format!("{verdict} {:<11} {}{colon}{}", self.name, self.detail, self.remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_is_in_it() {
        let check = Check::bad("x", "a\n\u{1b}[2Jb", "do c");
        assert_eq!(check.line().lines().count(), 1);
        assert!(check.line().starts_with("BAD  x "), "{}", check.line());
        assert!(check.line().ends_with("; do c"));
    }
}
