//! `belay evidence verify FILE`

use std::collections::BTreeMap;

use belay_proto::audit::{Digest, Entry, leaf_hash, seq_of};
use belay_proto::evidence::{Anchors, Bundle, Manifest, Remark, Report, examine, sha256};
use belay_proto::ids::SessionId;

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
    let mut sought = Sought::of(&manifest);
    let log = read_export(path, &key, &bundle.checkpoint, |line| sought.hear(line))?;
    let Sought { mut own, strange, .. } = sought;
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
    report.log.extend(strange.iter().map(|seq| match seq {
        Some(seq) => format!("the log: its entry {seq} is not in the form that entries have"),
        None => "the log: a line in the place of an entry is none".to_owned(),
    }));
    Ok(())
}

/// What a log that is gone through has of one session.
struct Sought {
    session: SessionId,
    /// Entries of the log that the bundle is of.
    size: u64,
    /// The session's, by their number.
    own: BTreeMap<u64, Digest>,
    /// The numbers of lines that might hide which session they are of.
    strange: Vec<Option<u64>>,
}

impl Sought {
    fn of(manifest: &Manifest) -> Self {
        let (own, strange) = (BTreeMap::new(), Vec::new());
        Self { session: manifest.session, size: manifest.size, own, strange }
    }

    /// The next line. Each is read whole: JSON may name a session in more than one way.
    fn hear(&mut self, line: &str) {
        let entry = serde_json::from_str::<Entry>(line).ok();
        if !entry.as_ref().is_some_and(|entry| has_the_form(line, entry)) {
            self.strange.push(seq_of(line));
        }
        if let Some(entry) = entry
            && entry.session == Some(self.session)
            && entry.seq <= self.size
        {
            self.own.insert(entry.seq, leaf_hash(line.as_bytes()));
        }
    }
}

/// Whether the line is the entry in the one form there is. Members that are not known here may stand behind
/// the last.
fn has_the_form(line: &str, entry: &Entry) -> bool {
    let known = entry.encode();
    let rest = known.strip_suffix('}').and_then(|known| line.strip_prefix(known));
    rest.is_some_and(|rest| rest == "}" || rest.starts_with(",\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use super::Sought;

    const SESSION: &str = "0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f82";

    #[test]
    fn an_entry_of_the_session_is_found_however_it_is_written() {
        let line = format!(
            r#"{{"seq":7,"at":1795716000,"kind":"session-opened","session":"{SESSION}","detail":"a \"b\""}}"#
        );
        let heard = |line: &str| {
            let (own, strange) = (BTreeMap::new(), Vec::new());
            let mut sought = Sought { session: SESSION.parse().unwrap(), size: 9, own, strange };
            sought.hear(line);
            (sought.own.into_keys().collect::<Vec<_>>(), sought.strange)
        };
        assert_eq!(heard(&line), (vec![7], vec![]));
        let later = line.replace("\"}", "\",\"new\":[1, {}]}");
        assert_eq!(heard(&later), (vec![7], vec![]), "{later}");
        let beyond = line.replace("\"seq\":7", "\"seq\":10");
        assert_eq!(heard(&beyond), (vec![], vec![]));
        let another = line.replace("7f82", "7f83");
        assert_eq!(heard(&another), (vec![], vec![]));

        for (from, to) in [
            ("\"session\":", "\"session\": "),
            ("\"session\":\"0", "\"session\":\"\\u0030"),
            ("\"session\"", "\"s\\u0065ssion\""),
            ("7ee3", "7EE3"),
        ] {
            let hidden = line.replace(from, to);
            assert_ne!(hidden, line);
            assert_eq!(heard(&hidden), (vec![7], vec![Some(7)]), "{hidden}");
        }
        let twice = line.replace("\"session\"", "\"session\":null,\"session\"");
        assert_eq!(heard(&twice), (vec![], vec![Some(7)]));
        assert_eq!(heard(&line.replace("}", "")), (vec![], vec![Some(7)]));
        assert_eq!(heard(""), (vec![], vec![None]));
        let elsewhere = another.replace("\"}", &format!("\",\"session\":\"{SESSION}\"}}"));
        assert_eq!(heard(&elsewhere), (vec![], vec![Some(7)]));
    }
}
