//! Giving the audit log's checkpoints to a witness: a file, on a mount the relay's owner cannot
//! rewrite (another machine's, append-only, write-once).
//!
//! Its law: what was written is never written over; a checkpoint stands there only whole and on the
//! disk. A witness that cannot be reached holds nothing up: the log says so, and the next checkpoint
//! covers what was missed.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// The witness file cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot add to the checkpoints' file {0}")]
pub struct WitnessError(PathBuf, #[source] io::Error);

/// Where checkpoints go.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    every: Duration,
    /// Entries under the last checkpoint that was written.
    written: u64,
    failing: bool,
}

impl Witness {
    /// Opens the file once, so that a mistake shows at the start.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub fn new(path: &Path, every: Duration) -> Result<Self, WitnessError> {
        append(path, "").map_err(|e| WitnessError(path.to_owned(), e))?;
        Ok(Self { path: path.to_owned(), every, written: 0, failing: false })
    }

    /// Writes the newest checkpoint each time there is a new one, at most as often as configured;
    /// a last time when cancelled.
    pub async fn keep(mut self, store: Store, cancel: CancellationToken) {
        let mut waiting = true;
        while waiting {
            self.write(&store).await;
            let pause = tokio::time::sleep(self.every);
            waiting = cancel.run_until_cancelled(pause).await.is_some();
        }
        self.write(&store).await;
    }

    async fn write(&mut self, store: &Store) {
        let (size, note) = match store.checkpoint().await {
            Ok(Some((size, note))) if size > self.written => (size, note),
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "no checkpoint for the witness");
                return;
            }
        };
        let path = self.path.clone();
        let written =
            tokio::task::spawn_blocking(move || append(&path, &format!("{note}\n"))).await;
        match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => {
                self.written = size;
                if std::mem::take(&mut self.failing) {
                    tracing::info!(path = %self.path.display(), "the witness has checkpoints again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(path = %self.path.display(), %error, "the witness gets no checkpoint");
                }
            }
        }
    }
}

/// Adds to the end and waits for the disk. The mode is the file's own, or for everybody to read: a
/// checkpoint is no secret.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
