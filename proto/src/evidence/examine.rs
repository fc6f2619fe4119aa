//! Whether a bundle holds: each part against what was signed.

use std::collections::{BTreeMap, BTreeSet};

use super::recording::{self, Recording};
use super::{
    Bundle, Deleted, Ended, Finding, Issued, Keys, Listed, Manifest, Remark, Tombstone, read_grant,
    sha256,
};
use crate::audit::{
    BadCheckpoint, Checkpoint, Difference, Digest, Entry, NoteError, VerifierKey, compare,
    leaf_hash, seq_of, verify_consistency, verify_inclusion,
};
use crate::grant::VerifySignature;
use crate::recording::Policy;

/// What is known beforehand, and from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    /// The log's key.
    pub key: Option<VerifierKey>,
    /// SHA-256 of the deployment CA's certificate.
    pub ca: Option<Digest>,
    /// Checkpoints, as signed notes.
    pub elsewhere: Vec<String>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the relay signed, when that could be read.
    pub manifest: Option<Manifest>,
    /// The key it was held against.
    pub key: Option<VerifierKey>,
    /// The entries that could be read, in their order.
    pub entries: Vec<Entry>,
    /// The recording, when there is one that its device signed.
    pub recording: Option<Recording>,
    /// That the recording was deleted, when the log proves it.
    pub deleted: Option<Deleted>,
    /// What is wrong; nothing when all is well.
    pub findings: Vec<Finding>,
    /// What whoever has more of the log than the bundle found besides, a line each.
    pub log: Vec<String>,
    /// What else there is to know.
    pub remarks: Vec<Remark>,
}

/// Examines a bundle. `entry` reads a line of the log, which is JSON.
pub fn examine<K: Keys>(
    bundle: &Bundle,
    anchors: &Anchors,
    keys: &K,
    entry: impl Fn(&str) -> Option<Entry>,
) -> Report {
    let mut report = Report {
        manifest: None,
        key: None,
        entries: Vec::new(),
        recording: None,
        deleted: None,
        findings: Vec::new(),
        log: Vec::new(),
        remarks: Vec::new(),
    };
    let own: Option<VerifierKey> = bundle.vkey.parse().ok();
    if own.is_none() {
        report.findings.push(Finding::NoKey);
    }
    let Some(key) = anchors.key.clone().or_else(|| own.clone()) else { return report };
    if let Some(own) = own.filter(|own| *own != key) {
        let (expected, found) = (key.to_string(), own.to_string());
        report.findings.push(Finding::OtherKey { expected, found });
    }
    report.key = Some(key.clone());
    let check = keys.log(&key);
    let manifest = match Manifest::open(&bundle.manifest, &key, &check) {
        Ok(manifest) => manifest,
        Err(bad) => {
            report.findings.push(Finding::Manifest(bad));
            return report;
        }
    };
    match Checkpoint::open(&bundle.checkpoint, &key, &check) {
        Ok(one) if (one.size, one.root) == (manifest.size, manifest.root) => {}
        Ok(_) => report.findings.push(Finding::OtherCheckpoint),
        Err(bad) => report.findings.push(Finding::Checkpoint(bad)),
    }
    history(bundle, &manifest, (&key, &check), anchors, &mut report);
    entries(bundle, &manifest, entry, &mut report);
    if sha256(bundle.facts.as_bytes()) != manifest.facts {
        report.findings.push(Finding::Facts);
    }
    if sha256(&bundle.ca) != manifest.ca {
        report.findings.push(Finding::Ca);
    }
    if anchors.ca.is_some_and(|known| known != sha256(&bundle.ca)) {
        report.findings.push(Finding::OtherCa);
    }
    let policy = grants(bundle, &manifest, keys, &mut report);
    recorded(bundle, &manifest, (keys, policy), &mut report);
    let of = |kind: &str| report.entries.iter().any(|entry| entry.kind == kind);
    // Where its entries have lost their text, nobody can tell.
    if of("session-opened") && !of("session-closed") && !of("session-refused") {
        report.remarks.push(Remark::Open);
    }
    report.manifest = Some(manifest);
    report
}

/// Checkpoints of before and from elsewhere.
fn history(
    bundle: &Bundle,
    manifest: &Manifest,
    (key, check): (&VerifierKey, &impl VerifySignature),
    anchors: &Anchors,
    report: &mut Report,
) {
    let findings = &mut report.findings;
    let goes_on = |old: &Checkpoint, hashes: &[Digest]| {
        verify_consistency(old.size, old.root, manifest.size, manifest.root, hashes)
    };
    let mut before = Vec::new();
    for one in &bundle.before {
        match Checkpoint::open(&one.note, key, check) {
            Ok(old) if goes_on(&old, &one.hashes) => before.push((old, &one.hashes)),
            Ok(old) => findings.push(Finding::OtherHistory { size: old.size }),
            Err(bad) => findings.push(elsewhere(bad, key)),
        }
    }
    for note in &anchors.elsewhere {
        match Checkpoint::open(note, key, check) {
            Ok(other) if other.size == manifest.size => {
                if other.root != manifest.root {
                    findings.push(Finding::Forked { size: other.size });
                }
            }
            Ok(other) => match before.iter().find(|(old, _)| old.size == other.size) {
                Some((_, hashes)) if goes_on(&other, hashes) => {}
                Some(_) => findings.push(Finding::OtherHistory { size: other.size }),
                None => report.remarks.push(Remark::NotCompared(other.size)),
            },
            Err(bad) => findings.push(elsewhere(bad, key)),
        }
    }
}

fn elsewhere(bad: BadCheckpoint, key: &VerifierKey) -> Finding {
    match bad {
        BadCheckpoint::Note(NoteError::OtherKey { by }) => {
            Finding::OtherKey { expected: key.to_string(), found: by }
        }
        bad @ (BadCheckpoint::Note(_) | BadCheckpoint::Malformed | BadCheckpoint::OtherLog(_)) => {
            Finding::Elsewhere(bad)
        }
    }
}

/// The session's entries: each in the log, all that are listed, in their order, and no others.
fn entries(
    bundle: &Bundle,
    manifest: &Manifest,
    read: impl Fn(&str) -> Option<Entry>,
    report: &mut Report,
) {
    let findings = &mut report.findings;
    let signed: Vec<Digest> = bundle.listed.iter().map(|(_, hash)| *hash).collect();
    let found: Vec<Digest> =
        bundle.entries.iter().map(|one| leaf_hash(one.entry.as_bytes())).collect();
    let ascend = bundle.listed.is_sorted_by(|(one, _), (next, _)| one < next);
    if Listed::of(&signed) != manifest.entries || !ascend {
        findings.push(Finding::List);
    }
    let number = |place: u64| {
        let index = place.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| bundle.listed.get(index)).map_or(0, |(seq, _)| *seq)
    };
    for difference in compare(&found, &signed) {
        match difference {
            Difference::Changed(place) => findings.push(Finding::Changed(number(place))),
            Difference::Removed(places) | Difference::Truncated(places) => {
                findings.extend(places.map(|place| Finding::Removed(number(place))));
            }
            Difference::Inserted { after, count } => {
                let one = Finding::Inserted { after: number(after) };
                findings.extend(std::iter::repeat_n(one, usize::try_from(count).unwrap_or(1)));
            }
            Difference::Moved { entry, after } => {
                findings.push(Finding::Moved { entry: number(entry), after: number(after) });
            }
            Difference::Twice(place) => findings.push(Finding::Twice(number(place))),
        }
    }
    let numbers: BTreeMap<Digest, u64> =
        bundle.listed.iter().map(|(seq, hash)| (*hash, *seq)).collect();
    for (one, leaf) in bundle.entries.iter().zip(found) {
        let seq = seq_of(&one.entry).unwrap_or(0);
        // The digest of the list is over hashes, which have their numbers inside.
        if numbers.get(&leaf).is_some_and(|number| *number != seq)
            && !findings.contains(&Finding::List)
        {
            findings.push(Finding::List);
        }
        let Manifest { size, root, .. } = manifest;
        if seq == 0 || !verify_inclusion(leaf, seq - 1, *size, &one.hashes, *root) {
            findings.push(Finding::NotInLog(seq));
            continue;
        }
        match read(&one.entry).filter(|entry| entry.session == Some(manifest.session)) {
            Some(entry) => report.entries.push(entry),
            None => findings.push(Finding::Foreign(seq)),
        }
    }
}

/// The grants: those that are listed, each named by an entry, each of this session. How they oblige the device to
/// record it; the strictest counts.
fn grants<K: Keys>(bundle: &Bundle, manifest: &Manifest, keys: &K, report: &mut Report) -> Policy {
    let digests: Vec<Digest> = bundle.grants.iter().map(|grant| sha256(grant)).collect();
    if Listed::of(&digests) != manifest.grants {
        report.findings.push(Finding::Grants);
    }
    let issued: BTreeMap<[u8; 32], (&Entry, [u8; 32])> = report
        .entries
        .iter()
        .filter_map(|entry| Issued::of(entry).map(|one| (one.digest, (entry, one.key))))
        .collect();
    let (mut findings, mut obliged) = (Vec::new(), Vec::new());
    if issued.is_empty() && digests.is_empty() {
        report.remarks.push(Remark::NoGrant);
    }
    let given: BTreeSet<[u8; 32]> = digests.iter().map(|digest| digest.0).collect();
    for (digest, (entry, _)) in &issued {
        if !given.contains(digest) {
            findings.push(Finding::GrantGone(entry.seq));
        }
    }
    for (number, (signed, digest)) in (1..).zip(bundle.grants.iter().zip(&digests)) {
        let Some((entry, key)) = issued.get(&digest.0) else {
            findings.push(Finding::Grant(number));
            continue;
        };
        match read_grant(signed, &keys.grant(key)) {
            Ok(grant)
                if grant.session == manifest.session
                    && entry.user == Some(grant.user)
                    && entry.device == Some(grant.device)
                    && entry.login.as_deref() == Some(grant.login.as_str()) =>
            {
                obliged.extend(grant.obligations.unwrap_or_default());
            }
            Ok(_) => findings.push(Finding::OtherGrant(number)),
            Err(why) => findings.push(Finding::BadGrant { number, why }),
        }
    }
    report.findings.append(&mut findings);
    Policy::of(&obliged)
}

/// The recording, when there is one; else its tombstone, when there was one.
fn recorded<K: Keys>(
    bundle: &Bundle,
    manifest: &Manifest,
    (keys, policy): (&K, Policy),
    report: &mut Report,
) {
    let ends: Vec<Ended> = report.entries.iter().filter_map(Ended::of).collect();
    buried(&ends, report);
    let Some(listed) = manifest.recording else {
        if !bundle.recording.is_empty() {
            report.findings.push(Finding::RecordingPutIn);
        }
        if report.deleted.is_none() {
            missing(&ends, policy, report);
        }
        return;
    };
    if bundle.recording.is_empty() {
        report.findings.push(Finding::RecordingGone);
        return;
    }
    let fits = recording::Fits { session: manifest.session, ca: &bundle.ca, listed, ends: &ends };
    let out = (&mut report.findings, &mut report.remarks);
    report.recording = recording::check(&bundle.recording, &fits, keys, out);
    let device = report.recording.as_ref().map(|recording| recording.device);
    let named = report.entries.iter().filter(|entry| entry.kind == "session-opened");
    if let Some(device) = device
        && named.filter_map(|entry| entry.device).any(|other| other != device)
    {
        report.findings.push(Finding::OtherDevice);
    }
}

/// The tombstone, when the log has one: of that recording whose end it has.
fn buried(ends: &[Ended], report: &mut Report) {
    let Some(entry) = report.entries.iter().find(|entry| Tombstone::is(entry)) else { return };
    let Some(stone) = Tombstone::of(entry) else {
        report.findings.push(Finding::Tombstone(entry.seq));
        return;
    };
    if let Err(why) = stone.check(ends) {
        report.findings.push(Finding::Buried { entry: entry.seq, why });
    }
    if report.entries.iter().any(|entry| entry.kind == "recording-late") {
        report.remarks.push(Remark::Late);
    }
    let (entry, at, by) = (entry.seq, entry.at, entry.user_name.clone());
    report.deleted = Some(Deleted { entry, at, by, stone });
}

/// There is no recording, and no tombstone: there must have been none.
fn missing(ends: &[Ended], policy: Policy, report: &mut Report) {
    let of = |kind: &str| report.entries.iter().find(|entry| entry.kind == kind);
    match (ends.last(), of("recording-started")) {
        (Some(end), _) => report.findings.push(Finding::RecordingMissing(end.number)),
        (None, Some(begun)) if of("session-closed").is_some() => {
            report.findings.push(Finding::RecordingLost(begun.seq));
        }
        // Its first segment may have been on its way.
        (None, Some(_)) => report.remarks.push(Remark::NoRecording),
        // Nor did it begin, by the log; whoever wrote that may have turned it away.
        (None, None) if policy != Policy::Off => {
            report.remarks.push(Remark::NothingRecorded { required: policy == Policy::Required });
        }
        (None, None) => {}
    }
}
