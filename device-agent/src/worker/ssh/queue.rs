//! What a client has sent to one channel and its program has not read yet.
//!
//! The SSH library refills a channel's window when it *receives*, not when the
//! program consumes, and handles all channels in one loop. So a channel whose
//! reader has stopped must take in what arrives, or every other channel of the
//! connection stops with it. The queue keeps a bounded part in memory and
//! spills the rest to an unlinked file, bounded too; only when the file is full
//! does the connection wait, and after a while the channel is given up.
//!
//! What would make the spill superfluous is a window the application adjusts
//! itself (`window_adjust` on the library's session): then an unread channel
//! would simply not be granted more, as OpenSSH does it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::spill::Spill;
use crate::worker::limits::{QUEUE_MEMORY_MAX, SPILL_PATIENCE};

/// Bytes in memory from which on the reader is let run before more is taken.
const YIELD_ABOVE: usize = QUEUE_MEMORY_MAX / 4;

/// How long a full memory waits for its reader before it spills, where no other
/// channel waits with it: a reader that is merely slower than the line then
/// slows the line, and nothing goes to disk.
const SPILL_LAST_RESORT: Duration = Duration::from_millis(10);

/// The spill is full and its reader does not read.
#[derive(Debug, thiserror::Error)]
#[error("the program does not read its input, and the device holds all it can of it")]
pub(crate) struct Overflow;

#[derive(Debug, Default)]
struct Inner {
    memory: VecDeque<u8>,
    spill: Option<Spill>,
    ended: bool,
    abandoned: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    readable: Notify,
    room: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under the lock but the consumer's write,
        // which leaves the queue whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what arrived; `alone` is whether no other channel is open.
    pub(crate) async fn push(&self, mut bytes: &[u8], alone: bool) -> Result<(), Overflow> {
        if self.lock().memory.len() > YIELD_ABOVE {
            yield_now().await;
        }
        if alone {
            let patience = Instant::now() + SPILL_LAST_RESORT;
            while self.would_spill(bytes.len()) {
                if timeout_at(patience, self.room.notified()).await.is_err() {
                    tracing::debug!("a reader has stopped: its input spills");
                    break;
                }
            }
        }
        loop {
            let room = self.room.notified();
            {
                let mut inner = self.lock();
                let taken = inner.take(bytes);
                bytes = bytes.get(taken..).unwrap_or_default();
                if taken > 0 {
                    self.readable.notify_one();
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
            timeout(SPILL_PATIENCE, room).await.map_err(|_| Overflow)?;
        }
    }

    fn would_spill(&self, length: usize) -> bool {
        let inner = self.lock();
        !inner.abandoned && inner.spill.is_none() && inner.memory.len() + length > QUEUE_MEMORY_MAX
    }

    /// The client sends no more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.readable.notify_one();
    }

    /// Nobody will read: what is here and what comes is thrown away.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.abandoned = true;
        inner.memory = VecDeque::new();
        inner.spill = None;
        drop(inner);
        self.room.notify_one();
    }

    /// Waits until there is something to consume (`true`) or will never be.
    pub(crate) async fn ready(&self) -> bool {
        loop {
            let readable = self.readable.notified();
            {
                let inner = self.lock();
                if !inner.memory.is_empty() || inner.spill.is_some() {
                    return true;
                }
                if inner.ended || inner.abandoned {
                    return false;
                }
            }
            readable.await;
        }
    }

    /// Lets `sink` take from the front; what it says it took is gone.
    pub(crate) fn consume(
        &self,
        sink: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut inner = self.lock();
        inner.refill()?;
        let front = inner.memory.as_slices().0;
        let taken = sink(front)?.min(front.len());
        inner.memory.drain(..taken);
        drop(inner);
        self.room.notify_one();
        Ok(taken)
    }
}

impl Inner {
    /// How much of `bytes` was taken in.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if self.abandoned {
            return bytes.len();
        }
        if self.spill.is_none() {
            let room = QUEUE_MEMORY_MAX.saturating_sub(self.memory.len());
            if bytes.len() <= room {
                self.memory.extend(bytes);
                return bytes.len();
            }
            match Spill::open() {
                Ok(spill) => self.spill = Some(spill),
                Err(error) => {
                    tracing::warn!(%error, "no file to spill to: the connection waits for its slowest channel");
                    let taken = room.min(bytes.len());
                    self.memory.extend(bytes.iter().take(taken));
                    return taken;
                }
            }
        }
        match self.spill.as_mut().map(|spill| spill.write(bytes)) {
            Some(Ok(written)) => written,
            Some(Err(error)) => {
                // Full disk: wait for the reader, as with a full spill.
                tracing::warn!(%error, "the spill cannot be written");
                0
            }
            None => 0,
        }
    }

    /// Brings spilled bytes forward once memory has drained.
    fn refill(&mut self) -> io::Result<()> {
        if !self.memory.is_empty() {
            return Ok(());
        }
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let chunk = spill.read()?;
        self.memory.extend(&chunk);
        if spill.is_empty() {
            self.spill = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_through_memory_and_spill() {
        let queue = Queue::default();
        let sent = pattern(5 * QUEUE_MEMORY_MAX + 12_345);
        for chunk in sent.chunks(32_768) {
            queue.push(chunk, false).await.unwrap();
        }
        assert!(queue.lock().memory.len() <= QUEUE_MEMORY_MAX);
        queue.end();
        let mut received = Vec::new();
        while queue.ready().await {
            // A sink that takes odd amounts.
            queue
                .consume(|bytes| {
                    let taken = bytes.len().min(70_001);
                    received.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                })
                .unwrap();
        }
        assert!(received == sent, "{} of {}", received.len(), sent.len());
        assert!(queue.lock().spill.is_none());
    }

    #[tokio::test]
    async fn order_holds_when_reading_and_writing_take_turns() {
        let queue = Queue::default();
        let sent = pattern(8 * QUEUE_MEMORY_MAX);
        let mut received = Vec::new();
        for (turn, chunk) in sent.chunks(100_000).enumerate() {
            queue.push(chunk, false).await.unwrap();
            if turn % 3 == 0 {
                queue
                    .consume(|bytes| {
                        received.extend_from_slice(bytes);
                        Ok(bytes.len())
                    })
                    .unwrap();
            }
        }
        queue.end();
        while queue.ready().await {
            queue
                .consume(|bytes| {
                    received.extend_from_slice(bytes);
                    Ok(bytes.len())
                })
                .unwrap();
        }
        assert!(received == sent);
    }

    #[tokio::test]
    async fn an_abandoned_queue_swallows() {
        let queue = Queue::default();
        queue.push(&pattern(3 * QUEUE_MEMORY_MAX), true).await.unwrap();
        queue.abandon();
        queue.push(&pattern(3 * QUEUE_MEMORY_MAX), true).await.unwrap();
        assert!(!queue.ready().await);
        assert!(queue.lock().memory.capacity() == 0);
    }
}
