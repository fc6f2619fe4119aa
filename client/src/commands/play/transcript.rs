//! A recording as plain text: what stood on the terminals, what commands wrote, what else happened.

use std::time::Duration;

use belay_proto::error_line::printable;
use belay_proto::time::UnixTime;
use serde_json::Value;

use avt::Terminal;
use avt::observer::Transcript;

use super::draw::{inert, usable};
use super::proof::Proven;
use super::track::{Event, Header, Track, resized};
use crate::failure::Failure;
use crate::output;
use crate::span;

/// Lines a terminal keeps before they are printed.
const SCROLLBACK: usize = 200;

/// Prints one track, or all of them and the session's own at the end; `input`: with what was typed at
/// each, after what it showed.
pub(super) fn print(
    proven: &Proven,
    tracks: &[Track],
    only: Option<&Track>,
    input: bool,
) -> Result<(), Failure> {
    if let Some(track) = only {
        return body(track, input);
    }
    output::line(format!("session {} on device {}", proven.session, proven.device))?;
    for track in tracks.iter().filter(|track| track.number != 0) {
        output::line(heading(track.number, &track.header))?;
        body(track, input)?;
    }
    if let Some(session) = tracks.iter().find(|track| track.number == 0) {
        output::line(heading(session.number, &session.header))?;
        body(session, input)?;
    }
    Ok(())
}

/// What stands above a track.
pub(in crate::commands) fn heading(number: u32, header: &Header) -> String {
    let begun = header.timestamp.map(|at| span::at(UnixTime(at))).unwrap_or_default();
    let what = match (&header.command, header.kind() == "terminal") {
        (Some(command), _) => command.as_str(),
        (None, true) => "shell",
        (None, false) => "",
    };
    printable(&format!("--- {number}, {}: {} {what}", header.kind(), begun))
}

fn body(track: &Track, input: bool) -> Result<(), Failure> {
    let columns = track.size();
    if track.is_terminal() {
        terminal(track, columns)?;
        return if input { typed(track).iter().try_for_each(output::line) } else { Ok(()) };
    }
    let mut line = String::new();
    for event in &track.events {
        match event.code {
            'o' | 'e' => {
                line.push_str(&event.text);
                while let Some((whole, rest)) = line.split_once('\n') {
                    output::line(inert(whole.trim_end_matches('\r')))?;
                    line = rest.to_owned();
                }
            }
            _ => {
                if !line.is_empty() {
                    output::line(inert(&std::mem::take(&mut line)))?;
                }
                told(track, event)?;
            }
        }
    }
    if line.is_empty() { Ok(()) } else { output::line(inert(&line)) }
}

fn terminal(track: &Track, size: (usize, usize)) -> Result<(), Failure> {
    let (columns, rows) = usable(size);
    let mut terminal = Terminal::with_scrollback(columns, rows, Some(SCROLLBACK))
        .map_err(|_| Failure::new("internal", "a terminal without a size"))?;
    let mut transcript = Transcript::new();
    let mut ends = Vec::new();
    for event in &track.events {
        let lines = match event.code {
            'o' => terminal.feed_with(event.text.as_str(), &mut transcript),
            'r' => match resized(&event.text).map(usable) {
                Some((columns, rows)) => terminal.resize_with(columns, rows, &mut transcript),
                None => Vec::new(),
            },
            // Told apart, when it is asked for.
            'i' => Vec::new(),
            _ => {
                ends.push(event);
                Vec::new()
            }
        };
        for line in lines {
            output::line(inert(&line))?;
        }
    }
    for line in transcript.finish(&terminal) {
        output::line(inert(&line))?;
    }
    ends.into_iter().try_for_each(|event| told(track, event))
}

/// What was typed, a line each with the time of its first key; controls as `^C`.
pub(super) fn typed(track: &Track) -> Vec<String> {
    let begun = track.header.timestamp.unwrap_or(0);
    let (mut lines, mut line, mut since) = (Vec::new(), String::new(), Duration::ZERO);
    let mut end = |line: &mut String, since: Duration| {
        let at = span::at(UnixTime(begun.saturating_add(since.as_secs())));
        lines.push(inert(&format!("[{at}] typed: {}", std::mem::take(line))));
    };
    for event in track.events.iter().filter(|event| event.code == 'i') {
        for typed in event.text.chars() {
            if line.is_empty() {
                since = event.at;
            }
            match typed {
                '\r' | '\n' => end(&mut line, since),
                '\x7f' => line.push_str("^?"),
                control if control.is_ascii_control() => {
                    line.push('^');
                    line.extend(u8::try_from(control).map(|byte| char::from(byte ^ 0x40)));
                }
                other => line.push(other),
            }
        }
    }
    if !line.is_empty() {
        end(&mut line, since);
    }
    lines
}

/// An event that is no output, on a line of its own.
fn told(track: &Track, event: &Event) -> Result<(), Failure> {
    output::line(words(&track.header, event))
}

/// Its words.
pub(in crate::commands) fn words(header: &Header, event: &Event) -> String {
    let text = match event.code {
        'x' => format!("exit status {}", event.text),
        'm' => event.text.clone(),
        'r' => format!("size {}", event.text),
        'b' => fact(&event.text),
        other => format!("{other} {}", event.text),
    };
    let begun = header.timestamp.unwrap_or(0);
    let at = span::at(UnixTime(begun.saturating_add(event.at.as_secs())));
    printable(&format!("[{at}] {text}"))
}

/// What of a fact is said first.
const FIRST: [&str; 5] = ["kind", "channel", "detail", "path", "to"];

/// A fact's fields as words.
fn fact(text: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return text.to_owned() };
    let what = fields.get("what").and_then(Value::as_str).unwrap_or("?").to_owned();
    let first = FIRST.iter().filter_map(|key| fields.get_key_value(*key));
    let others = fields.iter().filter(|(key, _)| *key != "what" && !FIRST.contains(&key.as_str()));
    first.chain(others).fold(what, |line, (key, value)| match value.as_str() {
        Some(text) => format!("{line} {key}={text}"),
        None => format!("{line} {key}={value}"),
    })
}
