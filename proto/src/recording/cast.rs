//! asciicast v3 (<https://docs.asciinema.org/manual/asciicast/v3/>): one line of JSON each, a header
//! and then events whose times count from the event before.
//!
//! Of the format's own codes a recording has `o`, `i`, `r`, `m` and `x`. Two more are Belay's: `e` is what
//! a command wrote to its standard error, `b` is a fact as a JSON object in a string. A reader that
//! does not know a code passes over the event, as the format asks, so every track plays in other
//! people's players.

use std::fmt::Write as _;
use std::time::Duration;

use crate::time::UnixTime;

/// An event's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// What a terminal or a command's standard output showed.
    Output,
    /// What was typed at a terminal while it echoed.
    Input,
    /// What a command wrote to its standard error.
    Error,
    /// Another size: `120x40`.
    Resize,
    /// A place to jump to.
    Marker,
    /// A fact ([`Fact`]).
    Belay,
    /// The program's status.
    Exit,
}

impl Code {
    /// The letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Output => 'o',
            Self::Input => 'i',
            Self::Error => 'e',
            Self::Resize => 'r',
            Self::Marker => 'm',
            Self::Belay => 'b',
            Self::Exit => 'x',
        }
    }
}

/// A track's first line.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The terminal's size.
    pub columns: u16,
    /// See `columns`.
    pub rows: u16,
    /// The terminal's name, where there is one.
    pub term: Option<&'a str>,
    /// When the track began.
    pub begun: UnixTime,
    /// What runs; absent for a login shell.
    pub command: Option<&'a str>,
    /// One line for a person.
    pub title: &'a str,
    /// Its number in the session.
    pub track: u32,
    /// `session`, `terminal`, `command` or `files`.
    pub kind: &'a str,
}

impl Header<'_> {
    /// Appends the line. Belay's own part stands in a key the format does not have.
    pub fn write(&self, out: &mut String) {
        let Self { columns, rows, begun, track, .. } = self;
        out.push_str(&format!("{{\"version\":3,\"term\":{{\"cols\":{columns},\"rows\":{rows}"));
        if let Some(term) = self.term {
            out.push_str(",\"type\":");
            string(term, out);
        }
        out.push_str(&format!("}},\"timestamp\":{}", begun.0));
        if let Some(command) = self.command {
            out.push_str(",\"command\":");
            string(command, out);
        }
        out.push_str(",\"title\":");
        string(self.title, out);
        out.push_str(&format!(",\"belay\":{{\"track\":{track},\"kind\":"));
        string(self.kind, out);
        out.push_str("}}\n");
    }
}

/// Appends an event's line. `after` is the time since the track's event before, and is told in whole
/// milliseconds: whoever calls subtracts two times that were cut to milliseconds, so that nothing adds
/// up.
pub fn event(after: Duration, code: Code, text: &str, out: &mut String) {
    let (seconds, millis) = (after.as_secs(), after.subsec_millis());
    // Writing to a string does not fail.
    write!(out, "[{seconds}.{millis:03},\"{}\",", code.letter()).ok();
    string(text, out);
    out.push_str("]\n");
}

/// Longest line of an event with so many bytes of text: a control character takes six.
pub const fn longest_line(text: usize) -> usize {
    6 * text + 40
}

/// Appends a JSON string (RFC 8259 §7).
pub fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    // What is found is ASCII, so both ends are boundaries of characters.
    while let Some(at) = first_escaped(rest.as_bytes()) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut bytes = from.bytes();
        match bytes.next().unwrap_or_default() {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                out.push_str("\\u00");
                let digits = [control >> 4, control & 0xf];
                out.extend(digits.iter().filter_map(|digit| char::from_digit((*digit).into(), 16)));
            }
        }
        rest = from.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out.push('"');
}

/// The first byte that is not written as it is. Most text has none for long, and sixteen are looked at
/// in one go.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<16>();
    let is_plain =
        |block: &&[u8; 16]| !block.iter().fold(false, |any, byte| any | is_escaped(*byte));
    let plain = 16 * blocks.iter().take_while(is_plain).count();
    let rest = bytes.get(plain..).unwrap_or_default();
    rest.iter().position(|byte| is_escaped(*byte)).map(|at| plain + at)
}

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// A fact: one JSON object, made field by field. Every fact has `what`.
#[derive(Debug, Clone)]
pub struct Fact(String);

impl Fact {
    /// Begins one.
    pub fn new(what: &str) -> Self {
        let mut object = String::from("{\"what\":");
        string(what, &mut object);
        Self(object)
    }

    fn key(&mut self, key: &str) {
        self.0.push(',');
        string(key, &mut self.0);
        self.0.push(':');
    }

    /// With a text; an empty one is left out.
    #[must_use]
    pub fn text(mut self, key: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.key(key);
            string(text, &mut self.0);
        }
        self
    }

    /// With a number.
    #[must_use]
    pub fn number(mut self, key: &str, number: impl Into<i128>) -> Self {
        self.key(key);
        self.0.push_str(&number.into().to_string());
        self
    }

    /// The object.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_header_is_one_line_of_the_format() {
        let mut out = String::new();
        let header = Header {
            columns: 80,
            rows: 24,
            term: Some("xterm-256color"),
            begun: UnixTime(1_800_000_000),
            command: Some("echo \"a\nb\""),
            title: "anna as root",
            track: 3,
            kind: "terminal",
        };
        header.write(&mut out);
        assert_eq!(out.lines().count(), 1);
        let read: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(read["version"], 3);
        assert_eq!(read["term"]["cols"], 80);
        assert_eq!(read["command"], "echo \"a\nb\"");
        assert_eq!(read["belay"]["track"], 3);
    }

    #[test]
    fn a_fact_is_one_object() {
        let fact =
            Fact::new("closed").text("detail", "a\"b").text("none", "").number("bytes", 7_u32);
        let read: Value = serde_json::from_str(&fact.finish()).unwrap();
        assert_eq!(read, serde_json::json!({"what": "closed", "detail": "a\"b", "bytes": 7}));
    }

    proptest! {
        #[test]
        fn an_event_is_one_bounded_line_that_reads_back(text: String, millis in 0_u64..1 << 40) {
            let mut out = String::new();
            event(Duration::from_millis(millis), Code::Output, &text, &mut out);
            prop_assert_eq!(out.lines().count(), 1);
            prop_assert!(out.len() <= longest_line(text.len()));
            let read: (f64, String, String) = serde_json::from_str(&out).unwrap();
            prop_assert!((read.0 - millis as f64 / 1e3).abs() < 1e-3);
            prop_assert_eq!(read.1, "o");
            prop_assert_eq!(read.2, text);
        }
    }
}
