//! `belay evidence verify FILE`

use std::collections::BTreeMap;

use belay_proto::audit::{Digest, Entry, leaf_hash, seq_of};
use belay_proto::evidence::{Anchors, Bundle, Remark, Report, examine, sha256};

use super::keys::RealKeys;
use super::{VerifyArgs, file, show};
use crate::commands::audit::{Known, first_sight, read_export, read_notes};
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// Examines a file with what is known here.
pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<u8, Failure> {
    let bundle = file::read(&args.file)?;
    let known = match log_name(&bundle) {
        Some(name) => Known::named(&context.home, name)?,
        None => Known::default(),
    };
    let key = args.key.clone().or_else(|| known.key.clone());
    let mut elsewhere = read_notes(&args.checkpoint)?;
    // What was verified here before must fit as well, where the bundle alone can tell.
    let before = known.note.clone().filter(|note| known.key == key && !elsewhere.contains(note));
    let silent = before.as_deref().and_then(size_of);
    elsewhere.extend(before);
    let ca = args.ca.map_or_else(|| own_ca(context, &known), |ca| Ok(Some(ca)))?;
    let anchors = Anchors { key, ca, elsewhere };
    let mut report = examine(&bundle, &anchors, &RealKeys, |line| serde_json::from_str(line).ok());
    report
        .remarks
        .retain(|remark| !matches!(remark, Remark::NotCompared(size) if Some(*size) == silent));
    if let Some(log) = &args.log {
        against_log(log, &bundle, &mut report)?;
    }
    if let (None, Some(key)) = (&anchors.key, &report.key) {
        first_sight(key);
    }
    let none = bundle.recording.is_empty();
    if let Some(path) = args.recording.as_ref().filter(|_| !none) {
        std::fs::write(path, &bundle.recording)
            .map_err(|e| Failure::new("file", format!("cannot write {}: {e}", path.display())))?;
        output::note(format!("written: {}", path.display()));
    }
    let status = show::report(context, &report, None)?;
    if none && args.recording.is_some() {
        let (cause, remedy) = match &report.deleted {
            Some(_) => ("there is no recording in it: it was deleted", "see the lines above"),
            None => ("there is no recording in it", "leave --recording away"),
        };
        return Err(Failure::new("no-recording", cause).remedy(remedy));
    }
    Ok(status)
}

fn log_name(bundle: &Bundle) -> Option<&str> {
    bundle.vkey.split('+').next()
}

/// The CA that was pinned at the login, when the log is of the relay one is logged in at.
fn own_ca(context: &Context, known: &Known) -> Result<Option<Digest>, Failure> {
    let same = context.home.login().is_ok_and(|login| login.record().relay == known.relay);
    if !same {
        return Ok(None);
    }
    Ok(context.home.pinned_ca()?.map(|ca| sha256(&ca)))
}

/// The size in a checkpoint's note, which was checked when it was kept.
fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}

/// The export of the log: it must be intact, begin as the bundle's log does, and have of this session what
/// the bundle has.
fn against_log(
    path: &std::path::Path,
    bundle: &Bundle,
    report: &mut Report,
) -> Result<(), Failure> {
    let (Some(manifest), Some(key)) = (report.manifest.clone(), report.key.clone()) else {
        return Ok(());
    };
    let mut own = BTreeMap::new();
    let needle = format!("\"session\":\"{}\"", manifest.session);
    let log = read_export(path, &key, &bundle.checkpoint, |line| {
        let entry = line.contains(&needle).then(|| serde_json::from_str::<Entry>(line).ok());
        if let Some(entry) = entry.flatten()
            && entry.session == Some(manifest.session)
            && entry.seq <= manifest.size
        {
            own.insert(entry.seq, leaf_hash(line.as_bytes()));
        }
    })?;
    report.log = log.findings.iter().map(|finding| format!("the log: {finding}")).collect();
    for one in &bundle.entries {
        let seq = seq_of(&one.entry).unwrap_or(0);
        let other = own.remove(&seq) != Some(leaf_hash(one.entry.as_bytes()));
        if other && seq <= log.entries {
            report.log.push(format!("the log: it has another entry {seq} than the bundle"));
        }
    }
    for seq in own.keys() {
        report
            .log
            .push(format!("the log: its entry {seq} is of this session, and not in the bundle"));
    }
    Ok(())
}
