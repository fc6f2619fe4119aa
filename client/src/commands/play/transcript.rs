//! A recording as plain text: what stood on the terminals, what commands wrote, what else happened.

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

/// Prints one track, or all of them and the session's own at the end.
pub(super) fn print(
    proven: &Proven,
    tracks: &[Track],
    only: Option<&Track>,
) -> Result<(), Failure> {
    if let Some(track) = only {
        return body(track);
    }
    output::line(format!("session {} on device {}", proven.session, proven.device))?;
    for track in tracks.iter().filter(|track| track.number != 0) {
        output::line(heading(track.number, &track.header))?;
        body(track)?;
    }
    if let Some(session) = tracks.iter().find(|track| track.number == 0) {
        output::line(heading(session.number, &session.header))?;
        body(session)?;
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

fn body(track: &Track) -> Result<(), Failure> {
    let columns = track.size();
    if track.is_terminal() {
        return terminal(track, columns);
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
