//! Recording what strangers do, without letting them fill the disk.
//!
//! Its law: what a known person or device does is recorded one by one, by
//! [`Store::record`](crate::store::Store::record); what somebody unknown does is recorded while it
//! is rare, and counted when it is not: one record a minute then says how many.

pub mod cosigner;
pub mod witness;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belay_proto::refusal::Refused;
use tokio_util::sync::CancellationToken;

use crate::rate::{Allowance, Each, Source, Total};
use crate::store::{Event, EventKind, Store};

/// Records of strangers in total: at about 450 bytes each, under 40 MB a day.
const TOTAL: Allowance = Allowance::new(240, 60);

/// Of one source: enough to see what it tries, not enough to crowd out the others.
const PER_SOURCE: Allowance = Allowance::new(30, 10);

/// How often what was only counted is summed up.
const SUM_UP_EVERY: Duration = Duration::from_secs(60);

/// The recorder of strangers. One for the whole relay.
pub struct Strangers {
    store: Store,
    total: Total,
    each: Each<Source>,
    counted: AtomicU64,
}

impl Strangers {
    /// Records into this store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            total: Total::new(TOTAL),
            each: Each::new(PER_SOURCE),
            counted: AtomicU64::new(0),
        }
    }

    /// Records an event of somebody unknown at `peer`, or counts it; returns once it is on disk or
    /// counted.
    pub async fn record(&self, peer: SocketAddr, event: Event) {
        let rare = self.each.take(&peer.ip().into()).is_ok() && self.total.take().is_ok();
        if !(rare && self.store.record(event.source(peer)).await.is_ok()) {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records or counts that somebody unknown was refused before anything was known of them.
    pub async fn refused(&self, peer: SocketAddr, refused: &Refused) {
        tracing::debug!(%peer, code = refused.code().token(), "a stranger was refused");
        self.record(peer, Event::new(EventKind::PeerRefused).refused(refused)).await;
    }

    /// Writes the sum of what was only counted, once a minute, and a last time when cancelled.
    pub async fn sum_up(&self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(tokio::time::sleep(SUM_UP_EVERY)).await.is_some() {
            self.sum_up_now().await;
        }
        self.sum_up_now().await;
    }

    async fn sum_up_now(&self) {
        let counted = self.counted.swap(0, Ordering::Relaxed);
        if counted == 0 {
            return;
        }
        let detail = format!("{counted} refusals of strangers were counted, not recorded");
        let event = Event::new(EventKind::Suppressed).detail(&detail);
        if self.store.record(event).await.is_err() {
            // Kept for the next minute; the store itself has said why in the log.
            self.counted.fetch_add(counted, Ordering::Relaxed);
        }
    }
}
