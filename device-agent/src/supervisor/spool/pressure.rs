//! Sessions that record faster than the relay takes it wait for the relay.
//!
//! Of a session as much may wait as there is room left: 32 MiB of one flood, which is longer than most last, and 1 MiB
//! of each of sixty-four; so all of them together do not fill the spool. Nobody waits where no relay takes any: there
//! is no line, or its disk is full.

use std::time::Duration;

use belay_proto::ids::SessionId;
use tokio::time::timeout;

use super::Spool;

/// The slowest that anybody waits to record, in bytes a second. What a worker still has when its session ends, about
/// 300 KiB, must be heard within the two seconds of its farewell.
const SLOWEST: u64 = 256 * 1024;

/// See [`Spool::uploading`].
pub(in crate::supervisor) struct Uploading<'a>(&'a Spool);

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.0.uploads.send_modify(|count| *count -= 1);
    }
}

impl Spool {
    /// A relay takes recordings, for as long as this lives.
    pub(in crate::supervisor) fn uploading(&self) -> Uploading<'_> {
        self.uploads.send_modify(|count| *count += 1);
        Uploading(self)
    }

    /// After a segment of so many bytes: returns when no more of its session waits than may. Cancel-safe.
    pub(in crate::supervisor) async fn until_taken(&self, session: SessionId, bytes: usize) {
        let mut uploads = self.uploads.subscribe();
        let taken = async {
            loop {
                let takes = *uploads.borrow_and_update() > 0;
                if !takes || !self.is_ahead(session) || uploads.changed().await.is_err() {
                    return;
                }
            }
        };
        let longest = Duration::from_millis(bytes as u64 * 1000 / SLOWEST);
        if timeout(longest, taken).await.is_err() {
            tracing::trace!(%session, "a recording goes on, faster than the relay takes it");
        }
    }

    fn is_ahead(&self, session: SessionId) -> bool {
        let inner = self.lock();
        let waiting = inner.recordings.get(&session).map_or(0, |kept| kept.frames.waiting());
        waiting > self.bounds.most.saturating_sub(inner.bytes())
    }
}
