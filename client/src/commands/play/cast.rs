//! One track as an asciicast v3 file that any player takes.
//!
//! Facts are left out, and so is what was typed, unless it is asked for. What a command wrote to its standard error is shown with the rest, and line
//! ends are a terminal's, which a command without one did not write.

use std::time::Duration;

use belay_proto::recording::cast::{Code, event, string};

use super::track::Track;

/// The file; `input`: with what was typed.
pub(super) fn of(track: &Track, input: bool) -> String {
    let (columns, rows) = track.size();
    let mut out = format!("{{\"version\":3,\"term\":{{\"cols\":{columns},\"rows\":{rows}");
    if let Some(name) = &track.header.term.name {
        out.push_str(",\"type\":");
        string(name, &mut out);
    }
    out.push('}');
    if let Some(timestamp) = track.header.timestamp {
        out.push_str(&format!(",\"timestamp\":{timestamp}"));
    }
    if let Some(command) = &track.header.command {
        out.push_str(",\"command\":");
        string(command, &mut out);
    }
    out.push_str("}\n");
    let mut before = Duration::ZERO;
    for recorded in &track.events {
        let code = match recorded.code {
            'o' | 'e' => Code::Output,
            'i' if input => Code::Input,
            'r' => Code::Resize,
            'm' => Code::Marker,
            'x' => Code::Exit,
            _ => continue,
        };
        let after = recorded.at.saturating_sub(before);
        before = recorded.at;
        if code == Code::Output && !track.is_terminal() {
            let lines = recorded.text.replace("\r\n", "\n").replace('\n', "\r\n");
            event(after, code, &lines, &mut out);
        } else {
            event(after, code, &recorded.text, &mut out);
        }
    }
    out
}
