//! What a client says before its device has answered.
//!
//! It is passed on behind the grant, so that a session's first words cost no round trip of their
//! own, and kept until the answer is there: a device that comes back on another line gets them
//! again.

use belay_tunnel::carrier::RecvHalf;
use bytes::Bytes;

/// Bytes passed on before the answer, to which one piece more may come. The first words of an SSH
/// client are under 4 KiB; whoever says more waits for the answer with it.
const MOST: usize = 64 * 1024;

/// A client's side of a session that is not there yet.
pub(super) struct Early {
    from: RecvHalf,
    kept: Vec<Bytes>,
    bytes: usize,
    over: bool,
}

impl Early {
    pub(super) const fn new(from: RecvHalf) -> Self {
        Self { from, kept: Vec::new(), bytes: 0, over: false }
    }

    /// What has been said so far.
    pub(super) fn kept(&self) -> Vec<Bytes> {
        self.kept.clone()
    }

    /// Waits for more; for ever where no more is taken, or none will come. Cancelling loses nothing.
    pub(super) async fn more(&mut self) -> Bytes {
        let mut piece = [Bytes::new()];
        while !self.over && self.bytes < MOST {
            // An end or a break is met again by whoever reads on.
            self.over = !matches!(self.from.receive(&mut piece).await, Ok(Some(_)));
            let [piece] = &mut piece;
            if !piece.is_empty() {
                let piece = std::mem::take(piece);
                self.bytes += piece.len();
                self.kept.push(piece.clone());
                return piece;
            }
        }
        std::future::pending().await
    }

    /// The rest, and how many bytes have been passed on.
    pub(super) fn into_rest(self) -> (RecvHalf, u64) {
        (self.from, self.bytes as u64)
    }
}
