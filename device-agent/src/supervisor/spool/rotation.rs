//! Making a recording's file anew, without what the relay has.
//!
//! It is copied while the recording goes on, under another name, and brought to the disk; then it takes the old file's
//! place at once. Whenever the power goes, one of the two is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copied at a time.
const CHUNK: usize = 64 * 1024;

/// A new file in the making; dropped, it is gone.
pub(super) struct Rotation {
    old: Arc<File>,
    new: Arc<File>,
    scratch: PathBuf,
    /// Of the old file, what is copied, and what is to be.
    copied: Range<u64>,
    to: u64,
}

impl Rotation {
    pub(super) fn begin(old: &Arc<File>, what: Range<u64>, scratch: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let new = Arc::new(options.open(&scratch)?);
        let copied = what.start..what.start;
        Ok(Self { old: Arc::clone(old), new, scratch, copied, to: what.end })
    }

    /// The long part, for which nothing has to stand still.
    pub(super) fn copy(&mut self) -> io::Result<()> {
        self.copy_to(self.to)?;
        self.new.sync_data()
    }

    pub(super) fn copy_to(&mut self, to: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        while self.copied.end < to {
            let length =
                usize::try_from(to - self.copied.end).map_or(CHUNK, |left| left.min(CHUNK));
            let (chunk, _) = buffer.split_at_mut(length);
            self.old.read_exact_at(chunk, self.copied.end)?;
            (&*self.new).write_all(chunk)?;
            self.copied.end += length as u64;
        }
        Ok(())
    }

    pub(super) fn is_of(&self, file: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.old, file)
    }

    /// Where it begins in the old file.
    pub(super) const fn from(&self) -> u64 {
        self.copied.start
    }

    pub(super) fn rename(self, path: &Path) -> io::Result<Arc<File>> {
        fs::rename(&self.scratch, path)?;
        Ok(Arc::clone(&self.new))
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.scratch)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.scratch.display(), %error, "cannot remove a scratch file");
        }
    }
}
