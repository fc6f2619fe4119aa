//! The open channels of a connection: where the handler puts what arrives, and
//! where a channel's task finds it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::Winsize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use crate::worker::limits::{CHANNELS_MAX, CHANNELS_TOTAL_MAX};

/// Signals a program has not been sent yet; more at once are dropped, as a
/// second signal of a kind is by the kernel.
const SIGNALS: usize = 8;

/// One open channel.
pub(super) struct Entry {
    pub(super) queue: Queue,
    /// The client has closed the channel, or the session is over.
    pub(super) closed: CancellationToken,
    /// The client is gone without having ended anything.
    pub(super) vanished: Arc<AtomicBool>,
    /// The latest window size; a slow program sees the last one only.
    pub(super) size: watch::Sender<Option<Winsize>>,
    signals: mpsc::Sender<i32>,
    waiting: Mutex<Option<mpsc::Receiver<i32>>>,
}

impl Entry {
    fn new() -> Arc<Self> {
        let (signals, waiting) = mpsc::channel(SIGNALS);
        Arc::new(Self {
            queue: Queue::default(),
            closed: CancellationToken::new(),
            vanished: Arc::default(),
            size: watch::Sender::new(None),
            signals,
            waiting: Mutex::new(Some(waiting)),
        })
    }

    pub(super) fn signal(&self, number: i32) {
        if self.signals.try_send(number).is_err() {
            tracing::debug!(number, "a signal was not delivered");
        }
    }

    /// The signals to deliver; given out once, to the channel's task.
    pub(super) fn take_signals(&self) -> Option<mpsc::Receiver<i32>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn close(&self) {
        self.queue.end();
        self.closed.cancel();
    }
}

/// Why no further channel is opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Full {
    #[error("{CHANNELS_MAX} channels are open: close some first")]
    Open,
    #[error("this connection has used up its channels: open a new one")]
    Total,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<u32, Arc<Entry>>,
    total: u32,
}

#[derive(Default)]
pub(super) struct Registry(Mutex<Inner>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, channel: u32) -> Result<Arc<Entry>, Full> {
        let mut inner = self.lock();
        if inner.open.len() >= CHANNELS_MAX {
            return Err(Full::Open);
        }
        if inner.total >= CHANNELS_TOTAL_MAX {
            return Err(Full::Total);
        }
        inner.total += 1;
        let entry = Entry::new();
        inner.open.insert(channel, entry.clone());
        Ok(entry)
    }

    pub(super) fn find(&self, channel: u32) -> Option<Arc<Entry>> {
        self.lock().open.get(&channel).cloned()
    }

    /// Whether at most one channel is open.
    pub(super) fn is_single(&self) -> bool {
        self.lock().open.len() <= 1
    }

    pub(super) fn remove(&self, channel: u32) -> Option<Arc<Entry>> {
        self.lock().open.remove(&channel)
    }

    /// The connection is over; `vanished` is whether the client went without ending it.
    pub(super) fn close_all(&self, vanished: bool) {
        for entry in self.lock().open.values() {
            // One that was closed in order stays so.
            if !entry.closed.is_cancelled() {
                entry.vanished.store(vanished, Ordering::Relaxed);
            }
            entry.close();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn channels_are_bounded_at_once_and_in_total() {
        let registry = Registry::default();
        for channel in 0..CHANNELS_MAX {
            registry.open(channel as u32).unwrap();
        }
        assert_eq!(registry.open(1_000).err(), Some(Full::Open));
        for channel in 0..CHANNELS_MAX {
            registry.remove(channel as u32).unwrap();
        }
        for channel in CHANNELS_MAX as u32..CHANNELS_TOTAL_MAX {
            registry.open(channel).unwrap();
            registry.remove(channel).unwrap();
        }
        assert_eq!(registry.open(1).err(), Some(Full::Total));
    }

    #[test]
    fn a_flood_of_signals_is_bounded() {
        let entry = Entry::new();
        for _ in 0..1_000 {
            entry.signal(15);
        }
        let mut waiting = entry.take_signals().unwrap();
        let mut delivered = 0;
        while waiting.try_recv().is_ok() {
            delivered += 1;
        }
        assert_eq!(delivered, SIGNALS);
    }
}
