//! `belay audit verify [FILE]`

use std::fs;
use std::path::{Path, PathBuf};

use belay_proto::audit::{
    Checkpoint, Finding, MAX_NOTE, Report, Review, VerifierKey, WitnessKey, notes,
};
use belay_tunnel::pki::NoteVerifier;

use super::file::{self, Line};
use super::known::Known;
use super::relay::{Log, Newest};
use super::show;
use super::witnesses::Witnesses;
use crate::failure::{EXIT_FAILED, Failure};
use crate::run::Context;

/// Most checkpoints taken from one file: one a minute for a year.
const MAX_NOTES: usize = 525_600;

/// Judges an export, offline.
pub(super) fn file(
    context: &Context,
    path: &Path,
    checkpoints: &[PathBuf],
    key: Option<VerifierKey>,
    witness_keys: &[WitnessKey],
) -> Result<u8, Failure> {
    let (own, mut reading) = file::open(path)?;
    let known = Known::named(&context.home, own.name())?;
    let expected = key.or_else(|| known.key.clone());
    let key = expected.clone().unwrap_or_else(|| own.clone());
    let check = NoteVerifier::from(&key);
    let mut review = Review::new(key.clone());
    let mut witnesses = Witnesses::of(&key, witness_keys);
    let mut damaged = Vec::new();
    while let Some(line) = reading.next_line()? {
        match line {
            Line::Entry(line) => review.entry(&line),
            Line::Pruned(leaf) => review.pruned(leaf),
            Line::Leaves(hashes) => review.leaves(&hashes),
            Line::Checkpoint(note) => {
                witnesses.note(&note);
                review.checkpoint(&note, &check);
            }
            Line::Damaged(number) => damaged.push(number),
        }
    }
    elsewhere(&mut review, &mut witnesses, checkpoints, &check)?;
    // A file from before what was proven last is no worse for it.
    if let Some(note) = known.note.filter(|_| known.key.as_ref() == Some(&key))
        && Checkpoint::open(&note, &key, &check).is_ok_and(|one| one.size <= review.entries())
    {
        review.checkpoint_from_elsewhere(&note, &check);
    }
    let mut report = review.finish();
    if own != key {
        report.findings.insert(0, Finding::OtherKey { key: key.to_string(), by: own.to_string() });
    }
    if expected.is_none() {
        show::first_sight(&key);
    }
    show::damaged_lines(context, &damaged, &report)?;
    let status = show::judged(context, &report, &key, &witnesses)?;
    Ok(if damaged.is_empty() { status } else { EXIT_FAILED })
}

/// Judges the relay's log.
pub(super) async fn relay(
    context: &Context,
    checkpoints: &[PathBuf],
    key: Option<VerifierKey>,
    witness_keys: &[WitnessKey],
    quick: bool,
) -> Result<u8, Failure> {
    let log = Log::of(context, key)?;
    let newest = log.newest().await?;
    if log.known.key.is_none() {
        show::first_sight(&newest.key);
    }
    let mut witnesses = Witnesses::of(&newest.key, witness_keys);
    newest.cosigned.iter().for_each(|note| witnesses.note(note));
    let report = if quick {
        consistent(&log, &newest, &mut witnesses, checkpoints).await?
    } else {
        whole(&log, &newest, &mut witnesses, checkpoints).await?
    };
    if quick && report.findings.is_empty() {
        log.known.keep(&context.home, &newest.key, &newest.note)?;
        return show::consistent(context, &report, &witnesses);
    }
    if report.intact() {
        log.known.keep(&context.home, &newest.key, &newest.note)?;
    }
    show::judged(context, &report, &newest.key, &witnesses)
}

/// Reads all there is.
async fn whole(
    log: &Log,
    newest: &Newest,
    witnesses: &mut Witnesses,
    checkpoints: &[PathBuf],
) -> Result<Report, Failure> {
    let check = NoteVerifier::from(&newest.key);
    let mut review = Review::new(newest.key.clone());
    let mut after = 0;
    while after < newest.checkpoint.size {
        let page = log.page(after, newest.checkpoint.size).await?;
        if page.upto == after {
            break;
        }
        for (place, entry) in page.entries.iter().enumerate() {
            match page.leaves.get(place).filter(|_| entry.is_empty()) {
                Some(leaf) => review.pruned(*leaf),
                None => review.entry(entry),
            }
        }
        review.leaves(&page.leaves);
        for note in &page.checkpoints {
            witnesses.note(note);
            review.checkpoint(note, &check);
        }
        after = page.upto;
    }
    newest.cosigned.iter().for_each(|note| review.checkpoint(note, &check));
    review.checkpoint(&newest.note, &check);
    if let Some(note) = known_note(log, newest) {
        review.checkpoint_from_elsewhere(note, &check);
    }
    elsewhere(&mut review, witnesses, checkpoints, &check)?;
    Ok(review.finish())
}

/// What was verified before, unless another key is to be taken from now on.
fn known_note<'l>(log: &'l Log, newest: &Newest) -> Option<&'l String> {
    log.known.note.as_ref().filter(|_| log.known.key.as_ref() == Some(&newest.key))
}

/// Asks for proofs only: from each checkpoint that is known to the newest one.
async fn consistent(
    log: &Log,
    newest: &Newest,
    witnesses: &mut Witnesses,
    checkpoints: &[PathBuf],
) -> Result<Report, Failure> {
    let check = NoteVerifier::from(&newest.key);
    let mut known: Vec<String> = known_note(log, newest).into_iter().cloned().collect();
    known.extend(read_notes(checkpoints)?);
    known.iter().for_each(|note| witnesses.note(note));
    // What the relay itself gives is from before only by the word of a witness one knows.
    let from_before = !known.is_empty() || witnesses.vouch();
    known.extend(newest.cosigned.clone());
    let mut before = Vec::new();
    for note in known {
        before.push(Checkpoint::open(&note, &newest.key, &check).map_err(|e| {
            Failure::new("audit", format!("a checkpoint to compare with cannot be taken: {e}"))
        })?);
    }
    if !from_before {
        return Err(Failure::new(
            "audit",
            "nothing is known of before that the log could go on from",
        )
        .remedy("run: belay audit verify, without --quick"));
    }
    before.sort_by_key(|checkpoint| checkpoint.size);
    let now = &newest.checkpoint;
    let (mut findings, mut agree) = (Vec::new(), 0);
    for old in before {
        if let Some(finding) = log.goes_on(&old, now, agree).await? {
            findings.push(finding);
            break;
        }
        agree = old.size;
    }
    Ok(Report {
        entries: now.size,
        proven: agree,
        pruned: 0,
        checkpoint: Some(now.clone()),
        findings,
    })
}

fn elsewhere(
    review: &mut Review,
    witnesses: &mut Witnesses,
    checkpoints: &[PathBuf],
    check: &NoteVerifier,
) -> Result<(), Failure> {
    for note in read_notes(checkpoints)? {
        witnesses.note(&note);
        review.checkpoint_from_elsewhere(&note, check);
    }
    Ok(())
}

/// The checkpoints in these files.
pub(in crate::commands) fn read_notes(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        let cannot = |why: String| {
            Failure::new("audit-file", format!("cannot read {}: {why}", path.display()))
        };
        let length = fs::metadata(path).map_err(|e| cannot(e.to_string()))?.len();
        if length > (MAX_NOTES * MAX_NOTE / 16) as u64 {
            return Err(cannot("it is far too long for checkpoints".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|e| cannot(e.to_string()))?;
        let found = notes(&text);
        if found.is_empty() {
            return Err(cannot("there is no checkpoint in it".to_owned()));
        }
        all.extend(found);
    }
    Ok(all)
}
