//! Why somebody breaks the glass.

use std::fmt;
use std::str::FromStr;

use crate::error_line::printable;

/// Shortest reason, in characters.
const SHORTEST: usize = 8;

/// Longest reason, in characters.
const LONGEST: usize = 200;

/// The reason for opening a session that need not be recorded where sessions must be: one line, for
/// the record and for whoever is alarmed by it. Safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlass(String);

/// It is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the reason to break the glass is {SHORTEST} to {LONGEST} printable characters in one line"
)]
pub struct NoReason;

impl BreakGlass {
    /// The reason as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BreakGlass {
    type Err = NoReason;
    fn from_str(text: &str) -> Result<Self, NoReason> {
        let text = text.trim();
        let long_enough = (SHORTEST..=LONGEST).contains(&text.chars().take(LONGEST + 1).count());
        if long_enough && printable(text) == text {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoReason)
        }
    }
}

impl fmt::Display for BreakGlass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        let reason = " pump 17 stands still, \u{e9}quipe de nuit ".parse::<BreakGlass>().unwrap();
        assert_eq!(reason.as_str(), "pump 17 stands still, \u{e9}quipe de nuit");
        assert!("\u{e9}".repeat(LONGEST).parse::<BreakGlass>().is_ok());
        for bad in
            ["", "because", "        x        ", "line one\nline two", "a\u{1b}[2Jb a reason"]
        {
            assert_eq!(bad.parse::<BreakGlass>(), Err(NoReason), "{bad:?}");
        }
        assert!("x".repeat(LONGEST + 1).parse::<BreakGlass>().is_err());
        assert!("reads as \u{202e}backwards".parse::<BreakGlass>().is_err());
    }
}
