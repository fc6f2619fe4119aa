//! The bundle's file: one JSON value a line ([`belay_proto::evidence::Part`]).

use std::fs;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use belay_proto::evidence::{Bundle, MAX_LINE, Part};

use crate::failure::Failure;

/// Writes a bundle to a file that is not there yet, for its owner alone.
pub(super) fn write(path: &Path, bundle: &Bundle) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| {
        let failure = Failure::new("file", format!("cannot write {}: {e}", path.display()));
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            failure.remedy("name another file with -o")
        } else {
            failure.remedy("make room, or name another file with -o")
        }
    };
    belay_tunnel::private_file::create(path, b"").map_err(cannot)?;
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        for part in bundle.parts() {
            serde_json::to_writer(&mut out, &part)?;
            out.write_all(b"\n")?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    });
    written.map_err(|error| {
        // Half a bundle would look like one that was cut.
        fs::remove_file(path).ok();
        cannot(error)
    })
}

/// Reads a bundle. Nothing of it is checked but its form.
pub(super) fn read(path: &Path) -> Result<Bundle, Failure> {
    let cannot =
        |e: std::io::Error| Failure::new("file", format!("cannot read {}: {e}", path.display()));
    let file = fs::File::open(path).map_err(cannot)?;
    let mut reader = BufReader::new(file);
    let (mut bundle, mut number) = (Bundle::default(), 0_u64);
    loop {
        let mut line = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        let length = reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(cannot)?;
        if length == 0 {
            break;
        }
        number += 1;
        let no_bundle = |why: &str| {
            let cause =
                format!("{} is no evidence, or was changed: line {number}: {why}", path.display());
            Failure::new("evidence-broken", cause).remedy("use a file of: belay evidence SESSION")
        };
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(no_bundle("it is cut off, or longer than any"));
        }
        let part: Part = serde_json::from_slice(&line).map_err(|e| no_bundle(&e.to_string()))?;
        bundle.take(part, number == 1).map_err(|e| no_bundle(&e.to_string()))?;
    }
    if number == 0 {
        let cause = format!("{} is empty", path.display());
        return Err(
            Failure::new("evidence-broken", cause).remedy("use a file of: belay evidence SESSION")
        );
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            vkey: "a+b+c".into(),
            manifest: "m\n\n— s\n".into(),
            checkpoint: "c\n".into(),
            facts: "{}".into(),
            ca: vec![1, 2, 3],
            recording: vec![7; 200_000],
            ..Bundle::default()
        }
    }

    #[test]
    fn a_file_reads_as_what_was_written_and_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle");
        write(&file, &bundle()).unwrap();
        assert_eq!(read(&file).unwrap(), bundle());
        let again = write(&file, &bundle()).unwrap_err().to_string();
        assert!(again.contains("name another file with -o"), "{again}");
        assert_eq!(read(&file).unwrap(), bundle());
    }

    #[test]
    fn what_is_no_bundle_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle");
        write(&file, &bundle()).unwrap();
        let whole = std::fs::read(&file).unwrap();
        let long = [b"{\"belay_evidence\":1}\n".to_vec(), vec![b'x'; 2 * MAX_LINE]].concat();
        for (bytes, says) in [
            (vec![], "is empty"),
            (whole.get(..whole.len() - 1).unwrap().to_vec(), "line 11: it is cut off"),
            (long, "line 2: it is cut off, or longer than any"),
            (b"{\"vkey\":\"x\"}\n".to_vec(), "line 1: it does not begin as one"),
            (b"{\"belay_evidence\":9}\n".to_vec(), "format 9"),
            (b"{\"belay_evidence\":1}\n{\"what\":1}\n".to_vec(), "line 2: unknown variant"),
            (b"\xff\xfe\n".to_vec(), "line 1"),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        assert!(read(&dir.path().join("none")).is_err());
    }
}
