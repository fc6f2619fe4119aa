//! The export's file: one JSON value a line, so that it can be added to and read by anything.
//!
//! ```text
//! {"belay_audit_log":1,"vkey":"NAME+NUMBER+KEY"}     once, at the beginning
//! {"seq":1,"at":…,"kind":…}                          entries: the bytes of the line are the leaf
//! {"pruned":"…"}                                     in the place of an entry without text: its hash
//! {"leaves":["…","…"]}                               their hashes, as the relay has them
//! {"checkpoint":"…"}                                 signed notes
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use belay_proto::audit::{Digest, MAX_ENTRY, MAX_PAGE, VerifierKey};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The format's number.
const FORMAT: u32 = 1;

/// Longest line read: the hashes of the largest page, at 47 bytes each, and some.
const MAX_LINE: u64 = MAX_PAGE as u64 * 48 + 2 * MAX_ENTRY as u64;

#[derive(Serialize, Deserialize)]
struct Head {
    belay_audit_log: u32,
    vkey: String,
}

#[derive(Serialize, Deserialize)]
struct Leaves {
    leaves: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Pruned {
    pruned: Digest,
}

#[derive(Serialize, Deserialize)]
struct Note {
    checkpoint: String,
}

/// A line of the file.
pub(super) enum Line {
    /// An entry, or what stands in the place of one.
    Entry(String),
    /// The hash of an entry whose text was pruned.
    Pruned(Digest),
    /// Hashes.
    Leaves(Vec<Digest>),
    /// A checkpoint.
    Checkpoint(String),
    /// Hashes or a checkpoint that cannot be read; which line, from 1.
    Damaged(u64),
}

/// The first line of a file.
pub(super) fn head(key: &VerifierKey) -> Result<String, Failure> {
    encode(&Head { belay_audit_log: FORMAT, vkey: key.to_string() })
}

/// A line of hashes.
pub(super) fn leaves(hashes: &[Digest]) -> Result<String, Failure> {
    encode(&Leaves { leaves: hashes.to_vec() })
}

/// A line for an entry whose text was pruned.
pub(super) fn pruned(leaf: Digest) -> Result<String, Failure> {
    encode(&Pruned { pruned: leaf })
}

/// A line with a checkpoint.
pub(super) fn checkpoint(note: &str) -> Result<String, Failure> {
    encode(&Note { checkpoint: note.to_owned() })
}

fn encode(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n")
        .map_err(|e| Failure::new("internal", format!("cannot encode the export: {e}")))
}

/// A file being read.
pub(super) struct Reading {
    path: PathBuf,
    reader: BufReader<fs::File>,
    /// Lines read.
    number: u64,
    /// Bytes read.
    end: u64,
}

/// Opens a file and reads the log's key from it.
pub(super) fn open(path: &Path) -> Result<(VerifierKey, Reading), Failure> {
    let no_export = |why: &str| {
        Failure::new(
            "audit-file",
            format!("{} is no export of an audit log: {why}", path.display()),
        )
        .remedy("use a file of: belay audit export FILE")
    };
    let file = fs::File::open(path).map_err(|e| cannot_read(path, &e))?;
    let reader = BufReader::new(file);
    let mut reading = Reading { path: path.to_owned(), reader, number: 0, end: 0 };
    let Some((text, _)) = reading.line()? else { return Err(no_export("it is empty")) };
    let head: Head = serde_json::from_str(&text).map_err(|e| no_export(&e.to_string()))?;
    if head.belay_audit_log != FORMAT {
        return Err(no_export("it is of another version"));
    }
    let key = head.vkey.parse().map_err(|_| no_export("its key cannot be read"))?;
    Ok((key, reading))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("audit-file", format!("cannot read {}: {error}", path.display()))
}

impl Reading {
    /// The next line; `None` at the end.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        let line = self.line()?;
        Ok(line.map(|(text, whole)| sort(text, self.number, whole)))
    }

    /// How many bytes the lines read so far have.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// A line, and whether its end is there.
    fn line(&mut self) -> Result<Option<(String, bool)>, Failure> {
        let mut bytes = Vec::new();
        let mut limited = std::io::Read::take(&mut self.reader, MAX_LINE);
        let length =
            limited.read_until(b'\n', &mut bytes).map_err(|e| cannot_read(&self.path, &e))?;
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.end += length as u64;
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), whole)))
    }
}

fn sort(text: String, number: u64, whole: bool) -> Line {
    let read = if text.starts_with("{\"leaves\"") {
        serde_json::from_str(&text).ok().map(|Leaves { leaves }| Line::Leaves(leaves))
    } else if text.starts_with("{\"pruned\"") {
        serde_json::from_str(&text).ok().map(|Pruned { pruned }| Line::Pruned(pruned))
    } else if text.starts_with("{\"checkpoint\"") {
        serde_json::from_str(&text).ok().map(|Note { checkpoint }| Line::Checkpoint(checkpoint))
    } else {
        return Line::Entry(text);
    };
    read.filter(|_| whole).unwrap_or(Line::Damaged(number))
}
