//! What the audit commands print: entries in one line each, and judgements.

use belay_proto::audit::{Entry, Report, VerifierKey};
use belay_proto::error_line::printable;
use serde_json::json;

use super::relay::Newest;
use super::witnesses::Witnesses;
use crate::failure::{EXIT_FAILED, EXIT_OK, Failure};
use crate::output::{self, Format};
use crate::run::Context;
use crate::span;

/// Findings shown: whoever destroyed a log need not have each entry named.
const MOST: usize = 100;

/// Prints the judgement; the status says it as well.
pub(super) fn report(context: &Context, report: &Report, key: &VerifierKey) -> Result<u8, Failure> {
    judged(context, report, key, &Witnesses::of(key, &[]))
}

/// The same, and what witnesses say of it. One that was to have cosigned and did not is as bad as a
/// finding.
pub(super) fn judged(
    context: &Context,
    report: &Report,
    key: &VerifierKey,
    witnesses: &Witnesses,
) -> Result<u8, Failure> {
    let intact = report.intact();
    let findings: Vec<String> = report.findings.iter().take(MOST).map(text).collect();
    if context.format == Format::Json {
        let checkpoint = report.checkpoint.as_ref();
        output::json(&json!({
            "intact": intact,
            "entries": report.entries,
            "proven": report.proven,
            "pruned": report.pruned,
            "root": checkpoint.map(|checkpoint| checkpoint.root),
            "vkey": key.to_string(),
            "findings": findings,
            "findings_in_all": report.findings.len(),
            "witnesses": witnesses.json(),
        }))?;
    } else if intact {
        let root = report.checkpoint.as_ref().map(|checkpoint| checkpoint.root.to_string());
        output::line(format!(
            "intact: {} entries as they were signed, root {}, by {key}",
            report.entries,
            root.unwrap_or_default()
        ))?;
        if report.pruned > 0 {
            output::line(format!(
                "{} of them are there by their hash alone: their text was pruned, which is on record \
                 (log-pruned)",
                report.pruned
            ))?;
        }
    } else {
        for finding in &findings {
            output::line(finding)?;
        }
        if report.findings.len() > MOST {
            output::line(format!("and {} more", report.findings.len() - MOST))?;
        }
        output::line(format!(
            "NOT INTACT: {} of {} entries are proven to be as they were signed",
            report.proven.min(report.entries),
            report.entries
        ))?;
    }
    if context.format == Format::Text {
        for line in witnesses.lines() {
            output::line(line)?;
        }
    }
    Ok(if intact && witnesses.all_signed() { EXIT_OK } else { EXIT_FAILED })
}

/// Prints what was found when only proofs were asked for.
pub(super) fn consistent(
    context: &Context,
    report: &Report,
    witnesses: &Witnesses,
) -> Result<u8, Failure> {
    output::show(
        context.format,
        &json!({
            "intact": true,
            "entries": report.entries,
            "entries_read": 0,
            "proven": report.proven,
            "root": report.checkpoint.as_ref().map(|checkpoint| checkpoint.root),
            "findings": [],
            "witnesses": witnesses.json(),
        }),
        |_| {
            format!(
                "goes on: the log of {} entries begins with the one of {} known before; no entry \
                 was read",
                report.entries, report.proven
            )
        },
    )?;
    if context.format == Format::Text {
        for line in witnesses.lines() {
            output::line(line)?;
        }
    }
    Ok(if witnesses.all_signed() { EXIT_OK } else { EXIT_FAILED })
}

/// Prints what an export has.
pub(super) fn exported(context: &Context, report: &Report, added: u64) -> Result<(), Failure> {
    match context.format {
        Format::Json => output::json(&json!({ "entries": report.entries, "added": added })),
        Format::Text => {
            output::note(format!(
                "{added} entries added, {} in all, all as signed",
                report.entries
            ));
            Ok(())
        }
    }
}

/// Prints a signed checkpoint as it is.
pub(super) fn checkpoint(context: &Context, newest: &Newest) -> Result<(), Failure> {
    match context.format {
        Format::Json => output::json(&json!({
            "vkey": newest.key.to_string(),
            "size": newest.checkpoint.size,
            "root": newest.checkpoint.root,
            "note": newest.note,
        })),
        Format::Text => output::raw(newest.note.as_bytes()),
    }
}

fn text(finding: &belay_proto::audit::Finding) -> String {
    printable(&finding.to_string())
}

/// Says that the key was not known before.
pub(in crate::commands) fn first_sight(key: &VerifierKey) {
    output::note(format!("the log's key is new here; compare it with what others have: {key}"));
}

/// Says which lines of an export are neither entries nor anything else.
pub(super) fn damaged_lines(
    context: &Context,
    lines: &[u64],
    report: &Report,
) -> Result<(), Failure> {
    for line in lines.iter().take(MOST) {
        let what = format!("line {line} of the file was damaged: hashes or a checkpoint");
        match context.format {
            Format::Text => output::line(what)?,
            Format::Json => output::note(what),
        }
    }
    if !lines.is_empty() && report.intact() {
        output::note("the entries themselves are as they were signed");
    }
    Ok(())
}

/// An entry in one line that acts on no terminal.
pub(in crate::commands) fn entry(line: &str) -> String {
    let Ok(entry) = serde_json::from_str::<Entry>(line) else {
        return format!("not an entry: {}", printable(line));
    };
    let mut text = format!("{}  #{}  {}", span::at(entry.at), entry.seq, entry.kind);
    let id = |id: Option<String>| id.unwrap_or_default();
    let who = entry.user_name.clone().unwrap_or_else(|| id(entry.user.map(|u| u.to_string())));
    let device =
        entry.device_name.clone().unwrap_or_else(|| id(entry.device.map(|d| d.to_string())));
    let place = match (&entry.login, device.is_empty()) {
        (Some(login), false) => format!("{login}@{device}"),
        (Some(login), true) => format!("login {login}"),
        (None, _) => device,
    };
    let session = entry.session.map(|session| format!("session {session}"));
    let source = entry.source.map(|source| format!("from {source}"));
    let parts = [
        Some(who),
        Some(place),
        entry.code.map(|code| format!("[{code}]")),
        entry.detail,
        source,
        session,
    ];
    for part in parts.into_iter().flatten().filter(|part| !part.is_empty()) {
        text.push_str("  ");
        text.push_str(&part);
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_entry_is_one_line_whatever_is_in_it() {
        let line = r#"{"seq":7,"at":1795716000,"kind":"session-opened","user":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f81","user_name":"anna","device":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f80","device_name":"pump-17","session":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f82","login":"root","detail":"a\u001b]0;x\u0007\nb\u202ec","source":"192.0.2.7"}"#;
        let text = super::entry(line);
        assert!(text.contains("#7  session-opened  anna  root@pump-17"), "{text}");
        assert!(text.contains("from 192.0.2.7"), "{text}");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text}");
        assert!(super::entry("\u{1b}[2J").starts_with("not an entry: \u{fffd}"));
    }
}
