//! One plain line for a person: what went wrong, and what to do.

use std::error::Error;
use std::fmt::Write as _;

/// An error and its causes on one line, separated by `: `, without control characters, at most
/// `MAX` bytes. Text from a peer can pass through here without acting on a terminal.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !line.is_empty() {
            line.push_str(": ");
        }
        if write!(line, "{error}").is_err() {
            break;
        }
        next = error.source();
    }
    printable(&line)
}

/// Longest line [`printable`] returns, in bytes.
pub const MAX: usize = 1024;

/// The text with every control, format and line-separating character replaced by U+FFFD, cut at
/// [`MAX`] bytes: safe on a terminal and in a log line (attack: escape sequences, right-to-left
/// override, newline in names that a device supplied).
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let acts = c.is_control()
            || matches!(c,
                '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        let c = if acts { '\u{fffd}' } else { c };
        if out.len() + c.len_utf8() > MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_that_acts_on_a_terminal_passes() {
        assert_eq!(
            printable("a\u{1b}]0;x\u{7}b\nc\u{202e}d\u{9b}31m"),
            "a\u{fffd}]0;x\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}31m"
        );
        assert_eq!(printable("grün 温度"), "grün 温度");
        assert_eq!(printable(&"é".repeat(4000)).len(), super::MAX);
    }
}
