//! JSON lines at the end of a file.
//!
//! It is opened anew for each batch, so that whoever rotates it by renaming it gets the old one left
//! alone, and so that one that was removed is made again. A batch is on the disk before its place
//! is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::{Batch, DeliverError};

pub(super) struct Sink {
    path: PathBuf,
}

impl Sink {
    /// Opens it once, so that a mistake shows at the start.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        append(path, "")?;
        Ok(Self { path: path.to_owned() })
    }

    pub(super) async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let (path, text) = (self.path.clone(), batch.text());
        let written = spawn_blocking(move || append(&path, &text)).await;
        written
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| DeliverError::Write(self.path.display().to_string(), error))
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    // Opening a pipe would wait for whoever reads it.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("it is no regular file"));
    }
    let is_new = !path.exists();
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        let mut last = [0];
        file.read_exact_at(&mut last, end)?;
        // Half a line of a relay that was killed is left as it is, on a line of its own.
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    if let Some(folder) = path.parent().filter(|_| is_new) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
