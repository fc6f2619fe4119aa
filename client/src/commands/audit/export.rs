//! `belay audit export FILE`

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use belay_proto::audit::{Finding, Report, Review, VerifierKey};
use belay_tunnel::pki::NoteVerifier;

use super::file::{self, Line};
use super::relay::{Log, Newest};
use super::show;
use crate::failure::{EXIT_OK, Failure};
use crate::run::Context;

/// Writes the log to `path`, or adds to the file what it lacks. What is in the file is judged with
/// what comes; it is never written over.
pub(super) async fn run(context: &Context, path: &Path) -> Result<u8, Failure> {
    let log = Log::of(context, None)?;
    let newest = log.newest().await?;
    let (mut review, end) = resume(path, &newest)?;
    let had = review.entries();
    let cannot = |e: std::io::Error| {
        Failure::new("audit-file", format!("cannot write {}: {e}", path.display()))
            .remedy("make room, and export again: it goes on where it was")
    };
    let mut out = fs::OpenOptions::new().write(true).open(path).map_err(cannot)?;
    out.set_len(end).and_then(|()| out.seek(SeekFrom::Start(end))).map_err(cannot)?;
    let size = newest.checkpoint.size;
    let check = NoteVerifier::from(&newest.key);
    let mut after = had;
    while after < size {
        let page = log.page(after, size).await?;
        if page.upto == after {
            break;
        }
        let mut text = String::new();
        for (place, entry) in page.entries.iter().enumerate() {
            match page.leaves.get(place).filter(|_| entry.is_empty()) {
                Some(leaf) => {
                    review.pruned(*leaf);
                    text.push_str(&file::pruned(*leaf)?);
                }
                None => {
                    review.entry(entry);
                    text.push_str(&entry.replace('\n', " "));
                    text.push('\n');
                }
            }
        }
        review.leaves(&page.leaves);
        text.push_str(&file::leaves(&page.leaves)?);
        for note in &page.checkpoints {
            review.checkpoint(note, &check);
            text.push_str(&file::checkpoint(note)?);
        }
        out.write_all(text.as_bytes()).map_err(cannot)?;
        after = page.upto;
    }
    let cosigned = newest.cosigned.iter().filter(|_| size > had);
    for note in cosigned {
        review.checkpoint(note, &check);
        out.write_all(file::checkpoint(note)?.as_bytes()).map_err(cannot)?;
    }
    review.checkpoint(&newest.note, &check);
    if size > had {
        out.write_all(file::checkpoint(&newest.note)?.as_bytes()).map_err(cannot)?;
    }
    out.sync_all().map_err(cannot)?;
    if let Some(note) = &log.known.note {
        review.checkpoint_from_elsewhere(note, &check);
    }
    let mut report = review.finish();
    if size < had {
        report.findings.push(Finding::Shorter { have: size, signed: had });
    }
    if report.findings.is_empty() {
        log.known.keep(&context.home, &newest.key, &newest.note)?;
        show::exported(context, &report, report.entries - had)?;
        return Ok(EXIT_OK);
    }
    show::report(context, &report, &newest.key)
}

/// Goes through an export that was written before, judges it together with a checkpoint from elsewhere,
/// and gives each entry's line to `hear`.
pub(in crate::commands) fn read(
    path: &Path,
    key: &VerifierKey,
    elsewhere: &str,
    mut hear: impl FnMut(&str),
) -> Result<Report, Failure> {
    let check = NoteVerifier::from(key);
    let (own, mut reading) = file::open(path)?;
    let mut review = Review::new(key.clone());
    while let Some(line) = reading.next_line()? {
        match line {
            Line::Entry(line) => {
                hear(&line);
                review.entry(&line);
            }
            Line::Pruned(leaf) => review.pruned(leaf),
            Line::Leaves(hashes) => review.leaves(&hashes),
            Line::Checkpoint(note) => review.checkpoint(&note, &check),
            Line::Damaged(_) => {}
        }
    }
    review.checkpoint_from_elsewhere(elsewhere, &check);
    let mut report = review.finish();
    if own != *key {
        let (key, by) = (key.to_string(), own.to_string());
        report.findings.insert(0, Finding::OtherKey { key, by });
    }
    Ok(report)
}

/// Reads what the file has; makes it when it is not there. Returns the review so far and where to
/// write on.
fn resume(path: &Path, newest: &Newest) -> Result<(Review, u64), Failure> {
    let check = NoteVerifier::from(&newest.key);
    if !path.exists() {
        let head = file::head(&newest.key)?;
        belay_tunnel::private_file::create(path, head.as_bytes()).map_err(|e| {
            Failure::new("audit-file", format!("cannot make {}: {e}", path.display()))
        })?;
        return Ok((Review::new(newest.key.clone()), head.len() as u64));
    }
    let (key, mut reading) = file::open(path)?;
    if key != newest.key {
        let cause =
            format!("{} is of the log {key}, the relay's is {}", path.display(), newest.key);
        return Err(Failure::new("audit-key", cause).remedy("export to another file, and compare"));
    }
    // What stands behind the last checkpoint was cut short, and is read anew.
    let (mut end, mut damaged, mut bad) = (reading.end(), false, false);
    while let Some(line) = reading.next_line()? {
        match line {
            Line::Entry(_) | Line::Pruned(_) | Line::Leaves(_) => {}
            Line::Checkpoint(_) => {
                end = reading.end();
                bad |= damaged;
            }
            Line::Damaged(_) => damaged = true,
        }
    }
    let (_, mut reading) = file::open(path)?;
    let mut review = Review::new(key);
    while reading.end() < end
        && let Some(line) = reading.next_line()?
    {
        match line {
            Line::Entry(line) => review.entry(&line),
            Line::Pruned(leaf) => review.pruned(leaf),
            Line::Leaves(hashes) => review.leaves(&hashes),
            Line::Checkpoint(note) => review.checkpoint(&note, &check),
            Line::Damaged(_) => {}
        }
    }
    let report = review.clone().finish();
    if (!report.findings.is_empty() && report.entries > 0) || bad {
        let cause = format!("{} is not as it was exported", path.display());
        return Err(Failure::new("audit-file", cause)
            .remedy(format!("see what is wrong: belay audit verify {}", path.display())));
    }
    Ok((review, end))
}
