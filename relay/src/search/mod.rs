//! Which recordings show a text: an index over what terminals and commands showed.
//!
//! Its law: the index is derived from recordings, whose signatures are checked as they are read, and from
//! nothing else; what it finds is a place to look, and what stands there is proven by playing it. A
//! recording that is deleted leaves the index. What is sealed is not read here. What it is not: it
//! decides not who may ask (`api/search`).
//!
//! `keeper` follows the directory of recordings, on a thread of `aside`; `index` keeps what
//! [`belay_tunnel::transcript`] makes of them, `find` answers, `sealed` says what it cannot.

mod aside;
#[cfg(test)]
mod exact;
mod find;
mod index;
mod keeper;
mod sealed;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;
use sqlx::sqlite::SqlitePool;
use tokio::sync::Semaphore;

use crate::recordings::Recordings;
pub(crate) use find::{Asked, Found, Hit};
pub(crate) use index::IndexError;
pub(crate) use sealed::Sealed;

/// Searches at a time: each may use both cores of a small machine.
const AT_ONCE: usize = 2;

/// The index of all recordings, and whoever keeps it.
pub(crate) struct Search {
    recordings: Arc<Recordings>,
    ca: CertificateDer<'static>,
    readers: Mutex<Option<SqlitePool>>,
    /// Recordings that are not in it yet.
    waiting: AtomicU64,
    turns: Semaphore,
}

/// A search was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    /// There is no index yet.
    #[error("the search index is being made")]
    NotYet,
    /// Too many at a time.
    #[error("others search at the moment")]
    Busy,
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Search {
    /// Over these recordings, of devices of this CA. There is something to find once it is kept.
    pub(crate) fn new(recordings: Arc<Recordings>, ca: CertificateDer<'static>) -> Arc<Self> {
        Arc::new(Self {
            recordings,
            ca,
            readers: Mutex::default(),
            waiting: AtomicU64::new(0),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    fn readers(&self) -> Option<SqlitePool> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_readers(&self, readers: Option<SqlitePool>) {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
    }

    fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}
