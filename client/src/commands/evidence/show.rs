//! What is printed of a bundle.

use std::path::Path;

use belay_proto::audit::Entry;
use belay_proto::error_line::printable;
use belay_proto::evidence::{Deleted, Report};
use serde_json::json;

use crate::failure::{EXIT_FAILED, EXIT_OK, Failure};
use crate::output::{self, Format};
use crate::run::Context;
use crate::span;

/// Findings shown: whoever destroyed a bundle need not have each part named.
const MOST: usize = 100;

/// Prints the judgement; the status says it as well.
pub(super) fn report(
    context: &Context,
    report: &Report,
    written: Option<&Path>,
) -> Result<u8, Failure> {
    let all: Vec<String> = report
        .findings
        .iter()
        .map(ToString::to_string)
        .chain(report.log.iter().cloned())
        .map(|finding| printable(&finding))
        .collect();
    let intact = all.is_empty();
    let shown = all.get(..MOST.min(all.len())).unwrap_or_default();
    let remarks: Vec<String> =
        report.remarks.iter().map(|remark| printable(&remark.to_string())).collect();
    if context.format == Format::Json {
        let (manifest, recording) = (report.manifest.as_ref(), report.recording.as_ref());
        output::json(&json!({
            "intact": intact,
            "file": written,
            "session": manifest.map(|manifest| manifest.session),
            "made": manifest.map(|manifest| manifest.made),
            "vkey": report.key.as_ref().map(ToString::to_string),
            "ca": manifest.map(|manifest| hex(&manifest.ca.0)),
            "log_size": manifest.map(|manifest| manifest.size),
            "root": manifest.map(|manifest| manifest.root),
            "entries": report.entries,
            "grants": manifest.map(|manifest| manifest.grants.count),
            "recording": recording.map(|recording| json!({
                "device": recording.device,
                "state": recording.state,
                "segments": recording.segments,
                "head": hex(&recording.head),
            })),
            "deleted": report.deleted.as_ref().map(|deleted| json!({
                "entry": deleted.entry,
                "at": deleted.at,
                "by": deleted.by,
                "why": deleted.stone.why,
                "last_segment": deleted.stone.last.map(|(last, _)| last),
                "head": deleted.stone.last.map(|(_, head)| hex(&head)),
                "bytes": deleted.stone.bytes,
                "state": deleted.stone.state,
            })),
            "remarks": remarks,
            "findings": shown,
            "findings_in_all": all.len(),
        }))?;
        return Ok(if intact { EXIT_OK } else { EXIT_FAILED });
    }
    if let Some(manifest) = &report.manifest {
        output::line(session(report))?;
        if let Some(line) = broken_glass(report) {
            output::line(line)?;
        }
        output::line(format!(
            "entries    {} of the log of {} entries, root {}",
            report.entries.len(),
            manifest.size,
            manifest.root
        ))?;
        output::line(format!("grants     {}", manifest.grants.count))?;
        for line in recording(report) {
            output::line(line)?;
        }
        let key = report.key.as_ref().map(ToString::to_string).unwrap_or_default();
        output::line(format!("log's key  {key}"))?;
        output::line(format!("CA         {}", hex(&manifest.ca.0)))?;
        output::line(format!("made       {}", span::at(manifest.made)))?;
    }
    for remark in &remarks {
        output::line(format!("note: {remark}"))?;
    }
    for finding in shown {
        output::line(finding)?;
    }
    if all.len() > shown.len() {
        output::line(format!("and {} more", all.len() - shown.len()))?;
    }
    output::line(match (intact, report.recording.is_none() && report.deleted.is_some()) {
        (true, false) => "intact: every part is as it was signed",
        (true, true) => {
            "intact: every part is as it was signed; the recording was deleted, and the log proves it"
        }
        (false, _) => "NOT INTACT",
    })?;
    Ok(if intact { EXIT_OK } else { EXIT_FAILED })
}

fn session(report: &Report) -> String {
    let id = report.manifest.as_ref().map(|manifest| manifest.session.to_string());
    let of = |kind: &str| report.entries.iter().find(|entry| entry.kind == kind);
    let mut text = format!("session    {}", id.unwrap_or_default());
    if let Some(opened) = of("session-opened") {
        let Entry { user_name, login, device_name, at, .. } = opened;
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
        text.push_str(&format!(
            ": {} as {}@{}, {}",
            name(user_name),
            name(login),
            name(device_name),
            span::at(*at)
        ));
    }
    if let Some(closed) = of("session-closed") {
        text.push_str(&format!(" to {}", span::at(closed.at)));
    }
    printable(&text)
}

/// What there is of its recording, or that it was deleted, when, by whom and why.
fn recording(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    match (&report.recording, &report.deleted) {
        (Some(recording), _) => lines.push(format!(
            "recording  {}, {} segments, by device {}, head {}",
            recording.state,
            recording.segments,
            recording.device,
            hex(&recording.head)
        )),
        (None, None) => lines.push("recording  none".to_owned()),
        (None, Some(_)) => {}
    }
    if let Some(Deleted { entry, at, by, stone }) = &report.deleted {
        let head = if report.recording.is_none() { "recording" } else { "" };
        let by = by.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
        lines.push(format!("{head:<10} DELETED {}{by}: {}", span::at(*at), stone.why));
        let what = match &stone.last {
            Some((last, head)) => format!("segments 0 to {last}, head {}", hex(head)),
            None => "no whole segment".to_owned(),
        };
        lines.push(format!(
            "           it had {what}, {} bytes, {}; entry {entry} of the log proves it",
            stone.bytes, stone.state
        ));
    }
    lines.iter().map(|line| printable(line)).collect()
}

/// That the session was opened though it might not be recorded, and why.
fn broken_glass(report: &Report) -> Option<String> {
    let entry = report.entries.iter().find(|entry| entry.kind == "break-glass")?;
    let reason = entry.detail.as_deref().unwrap_or_default();
    Some(printable(&format!("GLASS BROKEN {}: {reason}", span::at(entry.at))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
