//! Who holds a live connection now, and which sessions have a stream.
//!
//! One entry a device: the newest connection of its key. Each has an epoch; removing is by epoch,
//! so a late goodbye of an old connection never marks a newer one offline. What it is not: it does
//! not know sessions that wait for their client; those are in the store.

mod device;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belay_proto::api;
use belay_proto::ids::{DeviceId, Epoch, SessionId, UserId};
use belay_proto::reconnect;
use belay_proto::refusal::Refused;
use belay_tunnel::clock;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use crate::presence::{Presence, Present};
use crate::store::Passed;
use device::Awaited;
pub(super) use device::{Able, DeviceGuard, LiveDevice, Order};
pub(super) use session::{Ending, Full, LiveSession, SessionGuard};

/// A person's client connected now.
struct LiveClient {
    user: UserId,
    end: watch::Sender<Option<Refused>>,
}

/// All that is live on this relay.
#[derive(Default)]
pub struct Registry {
    devices: DashMap<DeviceId, Arc<LiveDevice>>,
    awaited: DashMap<DeviceId, Awaited>,
    sessions: DashMap<SessionId, Arc<LiveSession>>,
    clients: DashMap<Epoch, LiveClient>,
    by_device: DashMap<DeviceId, u32>,
    by_user: DashMap<UserId, u32>,
}

/// Epochs grow over restarts too: the first of a run is its start in microseconds since 1970.
pub(super) fn next_epoch() -> Epoch {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if NEXT.load(Ordering::Relaxed) == 0 {
        let start = clock::now().0.saturating_mul(1_000_000).max(1);
        // Whoever comes first sets it.
        if NEXT.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            tracing::trace!("the epoch had been started");
        }
    }
    Epoch(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Takes a client off the registry.
pub(super) struct ClientGuard {
    registry: Arc<Registry>,
    key: Epoch,
    end: watch::Receiver<Option<Refused>>,
}

impl ClientGuard {
    /// Waits until somebody ends the connection.
    pub(super) async fn ended(&self) -> Refused {
        said(self.end.clone()).await
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.registry.clients.remove(&self.key);
    }
}

/// Waits for a reason; for ever when whoever could give one is gone.
async fn said<T: Clone>(mut reason: watch::Receiver<Option<T>>) -> T {
    let said = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match said {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

impl Registry {
    /// Makes this connection the device's. Returns the one it takes over from.
    pub(super) fn insert(
        self: &Arc<Self>,
        device: &Arc<LiveDevice>,
    ) -> (DeviceGuard, Option<Arc<LiveDevice>>) {
        let old = match self.devices.entry(device.id) {
            Entry::Occupied(mut entry) if entry.get().epoch < device.epoch => {
                Some(entry.insert(Arc::clone(device)))
            }
            // A newer connection has come meanwhile: this one is the old one.
            Entry::Occupied(_) => Some(Arc::clone(device)),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(device));
                None
            }
        };
        self.tell_waiting(device.id);
        (DeviceGuard { registry: Arc::clone(self), device: Arc::clone(device) }, old)
    }

    /// The device's live line.
    pub(super) fn device(&self, id: DeviceId) -> Option<Arc<LiveDevice>> {
        self.devices.get(&id).map(|live| Arc::clone(&live))
    }

    /// Enters a client.
    pub(super) fn insert_client(self: &Arc<Self>, user: UserId) -> ClientGuard {
        let key = next_epoch();
        let (sender, end) = watch::channel(None);
        self.clients.insert(key, LiveClient { user, end: sender });
        ClientGuard { registry: Arc::clone(self), key, end }
    }

    /// Ends every connection of a person.
    pub(super) fn end_clients(&self, user: UserId, reason: &Refused) {
        for client in self.clients.iter().filter(|client| client.user == user) {
            client.end.send_replace(Some(reason.clone()));
        }
    }

    /// Ends every connection, devices' and people's. People may dial again at once; a device is
    /// told its slot, and one whose session somebody waits for has one of the first.
    pub(crate) fn end_all(&self, reason: &Refused) {
        for client in &self.clients {
            client.end.send_replace(Some(reason.clone()));
        }
        let (waited_for, others): (Vec<_>, Vec<_>) = self
            .all_devices()
            .into_iter()
            .partition(|device| self.by_device.contains_key(&device.id));
        let all = waited_for.len() + others.len();
        for (n, device) in waited_for.iter().chain(&others).enumerate() {
            device.end(reason.clone().retry_after(reconnect::slot(n, all)));
        }
    }

    /// Every live line, as of now.
    pub(super) fn all_devices(&self) -> Vec<Arc<LiveDevice>> {
        self.devices.iter().map(|live| Arc::clone(&live)).collect()
    }

    /// People with a client connected now.
    pub(super) fn connected_users(&self) -> Vec<UserId> {
        let mut users: Vec<_> = self.clients.iter().map(|client| client.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Live lines.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }
}

impl Presence for Registry {
    fn holds_line(&self, device: DeviceId) -> bool {
        self.devices.contains_key(&device)
    }

    fn attached(&self, session: SessionId) -> Option<Passed> {
        self.sessions.get(&session).map(|live| live.passed())
    }

    fn line(&self, device: DeviceId) -> Option<Present> {
        let live = self.device(device)?;
        live.looked_at();
        let round_trip = live.round_trip_us.load(Ordering::Relaxed);
        let (bytes, bytes_a_month) = live.cost();
        Some(Present {
            line: api::Line {
                since: live.since(),
                carrier: live.carrier.kind().to_owned(),
                address: live.carrier.remote_address().to_string(),
                round_trip_ms: (round_trip != u32::MAX).then(|| f64::from(round_trip) / 1000.0),
                sessions: self.by_device.get(&device).map_or(0, |open| *open),
                clock_ahead_s: live.clock_ahead,
                asked_every_s: u32::try_from(live.asked_every().as_secs()).ok(),
                bytes: Some(bytes),
                bytes_a_month,
            },
            last_seen: live.last_seen(),
        })
    }
}
