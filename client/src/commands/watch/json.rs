//! What is recorded as one JSON value a line, for programs.

use serde::Serialize;

use super::follow::Seen;
use crate::output::inert;

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Begun {
        track: u32,
        kind: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<&'a str>,
        begun: Option<u64>,
        columns: u16,
        rows: u16,
    },
    Happened {
        track: u32,
        at: f64,
        code: char,
        text: &'a str,
    },
    Missing {
        missing: (u64, u64),
    },
}

/// The line; `None` for another track than the one that is wanted.
pub(super) fn line(seen: &Seen, only: Option<u32>) -> Option<String> {
    let wanted = |track| only.is_none_or(|only| only == track);
    let line = match seen {
        Seen::Begun(track, header) if wanted(*track) => Line::Begun {
            track: *track,
            kind: header.kind(),
            command: header.command.as_deref(),
            begun: header.timestamp,
            columns: header.term.cols,
            rows: header.term.rows,
        },
        Seen::Happened(track, event) if wanted(*track) => Line::Happened {
            track: *track,
            at: event.at.as_secs_f64(),
            code: event.code,
            text: &event.text,
        },
        Seen::Missing(gap) => Line::Missing { missing: (gap.from, gap.to) },
        Seen::Begun(..) | Seen::Happened(..) => return None,
    };
    serde_json::to_string(&line).ok().map(|line| inert(&line))
}
