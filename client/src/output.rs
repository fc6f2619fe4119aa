//! The only place that writes to standard output and standard error as text.
//!
//! Its law: device-supplied text reaches it already printable; a closed standard output ends the
//! command quietly; a closed standard error changes nothing.

use std::io::{self, IsTerminal as _, Write as _};

use belay_proto::error_line::printable;
use serde::Serialize;

use crate::failure::Failure;

/// How a command shows its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON value on standard output.
    Json,
}

/// Writes a line to standard output.
///
/// # Errors
/// When standard output takes no more.
pub fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    write_out(&[text.as_ref().as_bytes(), b"\n"])
}

/// Writes bytes to standard output as they are.
///
/// # Errors
/// When standard output takes no more.
pub fn raw(bytes: &[u8]) -> Result<(), Failure> {
    write_out(&[bytes])
}

/// Writes a value as indented JSON.
///
/// # Errors
/// When it cannot be encoded or written.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new("internal", format!("cannot encode the result: {e}")))?;
    line(inert(&text))
}

/// JSON with every character that could act on a terminal written as its escape (RFC 8259 §7).
/// Outside strings there is none of them but the line feeds of the indentation.
pub(crate) fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let mut one = [0; 4];
        let text = c.encode_utf8(&mut one);
        if c == '\n' || c.is_ascii_graphic() || c == ' ' || printable(text) == *text {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// Writes `value` as JSON, or what `text` makes, as the format asks.
///
/// # Errors
/// When it cannot be written.
pub fn show<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Json => json(value),
        Format::Text => line(text(value)),
    }
}

/// Tells a person something on standard error that is no result.
pub fn note(text: impl AsRef<str>) {
    write_err(format!("{}\n", text.as_ref()).as_bytes());
}

/// The last thing a failed command says.
pub fn complain(failure: &Failure, format: Format) {
    if failure.is_silent() {
        return;
    }
    match format {
        Format::Text => write_err(format!("belay: {failure}\n").as_bytes()),
        Format::Json => {
            let text = serde_json::to_string(&failure.as_json())
                .unwrap_or_else(|_| format!("belay: {failure}"));
            write_err(format!("{text}\n").as_bytes());
        }
    }
}

/// Whether a person looks at standard output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn write_out(parts: &[&[u8]]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let result = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
    result.map_err(|error| write_failure(&error))
}

/// What a broken standard output means.
pub fn write_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::output_closed();
    }
    Failure::new("output", format!("cannot write to standard output: {error}"))
}

fn write_err(bytes: &[u8]) {
    // Nobody is left to tell when standard error is gone; the exit status still says it.
    io::stderr().lock().write_all(bytes).ok();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::inert;

    #[test]
    fn json_reads_back_the_same_and_acts_on_no_terminal() {
        let value = "a\u{9b}31m\u{202e}\u{1b}]0;x\u{7}\u{e0001}é\n\"\\";
        let text = inert(&serde_json::to_string_pretty(&[value]).unwrap());
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [value]);
    }
}
