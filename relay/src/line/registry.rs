//! Who holds a live connection now, and which sessions are open.
//!
//! One entry a device: the newest connection of its key. Each has an epoch; removing is by epoch,
//! so a late goodbye of an old connection never marks a newer one offline.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belay_proto::api;
use belay_proto::ids::{DeviceId, Epoch, SessionId, UserId};
use belay_proto::names::DeviceName;
use belay_proto::refusal::Refused;
use belay_proto::time::UnixTime;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::clock;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, watch};

use crate::presence::{Presence, Present};

/// A device's live line.
pub(super) struct LiveDevice {
    pub(super) id: DeviceId,
    pub(super) epoch: Epoch,
    pub(super) carrier: Carrier,
    since: UnixTime,
    clock_ahead: i64,
    answered: AtomicU64,
    round_trip_us: AtomicU32,
    sessions: AtomicU32,
    orders: Mutex<Orders>,
    ordered: Notify,
}

/// What the line's task is to do. Not a `watch`: that takes half a kilobyte, in every idle line.
#[derive(Default)]
struct Orders {
    end: Option<Refused>,
    name: Option<DeviceName>,
}

/// One of them.
pub(super) enum Order {
    /// Tell the device why, and end the line.
    End(Refused),
    /// Tell the device its new name.
    Rename(DeviceName),
}

impl LiveDevice {
    pub(super) fn new(id: DeviceId, epoch: Epoch, carrier: Carrier, clock_ahead: i64) -> Self {
        let now = clock::now();
        Self {
            id,
            epoch,
            carrier,
            since: now,
            clock_ahead,
            answered: AtomicU64::new(now.0),
            round_trip_us: AtomicU32::new(u32::MAX),
            sessions: AtomicU32::new(0),
            orders: Mutex::default(),
            ordered: Notify::new(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Whole between any two statements that can panic.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device is to learn this name.
    pub(super) fn rename(&self, name: DeviceName) {
        self.orders().name = Some(name);
        self.ordered.notify_one();
    }

    /// Ends the line, with a word to the device. The first reason stands.
    pub(super) fn end(&self, reason: Refused) {
        self.orders().end.get_or_insert(reason);
        self.ordered.notify_one();
    }

    /// Waits for an order. Only the line's own task asks.
    pub(super) async fn order(&self) -> Order {
        loop {
            {
                let mut orders = self.orders();
                if let Some(reason) = &orders.end {
                    return Order::End(reason.clone());
                }
                if let Some(name) = orders.name.take() {
                    return Order::Rename(name);
                }
            }
            self.ordered.notified().await;
        }
    }

    /// It answered a probe.
    pub(super) fn answered(&self, round_trip: Option<Duration>) {
        self.answered.store(clock::now().0, Ordering::Relaxed);
        if let Some(round_trip) = round_trip {
            let us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1);
            self.round_trip_us.store(us, Ordering::Relaxed);
        }
    }

    /// When it last answered.
    pub(super) fn last_seen(&self) -> UnixTime {
        UnixTime(self.answered.load(Ordering::Relaxed))
    }
}

/// A session open now.
pub(super) struct LiveSession {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) login: belay_proto::names::Login,
    pub(super) kind: String,
    cut: watch::Sender<Option<Refused>>,
}

impl LiveSession {
    pub(super) fn cut(&self, reason: Refused) {
        self.cut.send_if_modified(|cut| cut.is_none().then(|| *cut = Some(reason)).is_some());
    }
}

/// A person's client connected now.
struct LiveClient {
    user: UserId,
    end: watch::Sender<Option<Refused>>,
}

/// All that is live on this relay.
#[derive(Default)]
pub struct Registry {
    devices: DashMap<DeviceId, Arc<LiveDevice>>,
    sessions: DashMap<SessionId, Arc<LiveSession>>,
    clients: DashMap<Epoch, LiveClient>,
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

/// Takes a device off the registry when its task ends, however it ends.
pub(super) struct DeviceGuard {
    registry: Arc<Registry>,
    device: Arc<LiveDevice>,
}

impl Drop for DeviceGuard {
    fn drop(&mut self) {
        let epoch = self.device.epoch;
        self.registry.devices.remove_if(&self.device.id, |_, live| live.epoch == epoch);
    }
}

/// Takes a session off the registry and gives its places back.
pub(super) struct SessionGuard {
    registry: Arc<Registry>,
    id: SessionId,
    device: Arc<LiveDevice>,
    user: UserId,
    cut: watch::Receiver<Option<Refused>>,
}

impl SessionGuard {
    /// Waits until somebody cuts the session.
    pub(super) async fn cut(&self) -> Option<Refused> {
        said(self.cut.clone()).await
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.id);
        self.device.sessions.fetch_sub(1, Ordering::Relaxed);
        self.registry.by_user.remove_if_mut(&self.user, |_, open| {
            *open = open.saturating_sub(1);
            *open == 0
        });
    }
}

/// Takes a client off the registry.
pub(super) struct ClientGuard {
    registry: Arc<Registry>,
    key: Epoch,
    end: watch::Receiver<Option<Refused>>,
}

impl ClientGuard {
    /// Waits until somebody ends the connection.
    pub(super) async fn ended(&self) -> Option<Refused> {
        said(self.end.clone()).await
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.registry.clients.remove(&self.key);
    }
}

/// Waits for a reason; for ever when whoever could give one is gone.
async fn said(mut reason: watch::Receiver<Option<Refused>>) -> Option<Refused> {
    let said = reason.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match said {
        Some(reason) => Some(reason),
        None => std::future::pending().await,
    }
}

/// Which bound a new session would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Device,
    User,
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

    /// Enters a session, within the bounds.
    pub(super) fn insert_session(
        self: &Arc<Self>,
        id: SessionId,
        session: (UserId, belay_proto::names::Login, String),
        device: &Arc<LiveDevice>,
        (per_device, per_user): (u32, u32),
    ) -> Result<SessionGuard, Full> {
        let (user, login, kind) = session;
        let grown = device.sessions.try_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < per_device).then_some(open + 1)
        });
        if grown.is_err() {
            return Err(Full::Device);
        }
        {
            let mut open = self.by_user.entry(user).or_insert(0);
            if *open >= per_user {
                device.sessions.fetch_sub(1, Ordering::Relaxed);
                return Err(Full::User);
            }
            *open += 1;
        }
        let (sender, cut) = watch::channel(None);
        let live = LiveSession { user, device: device.id, login, kind, cut: sender };
        self.sessions.insert(id, Arc::new(live));
        Ok(SessionGuard { registry: Arc::clone(self), id, device: Arc::clone(device), user, cut })
    }

    /// Ends every connection of a person.
    pub(super) fn end_clients(&self, user: UserId, reason: &Refused) {
        for client in self.clients.iter().filter(|client| client.user == user) {
            client.end.send_replace(Some(reason.clone()));
        }
    }

    /// Ends every connection, devices' and people's.
    pub(crate) fn end_all(&self, reason: &Refused) {
        for device in &self.devices {
            device.end(reason.clone());
        }
        for client in &self.clients {
            client.end.send_replace(Some(reason.clone()));
        }
    }

    /// Every live line, as of now.
    pub(super) fn all_devices(&self) -> Vec<Arc<LiveDevice>> {
        self.devices.iter().map(|live| Arc::clone(&live)).collect()
    }

    /// Every open session, as of now.
    pub(super) fn all_sessions(&self) -> Vec<Arc<LiveSession>> {
        self.sessions.iter().map(|live| Arc::clone(&live)).collect()
    }

    /// People with a client connected now.
    pub(super) fn connected_users(&self) -> Vec<UserId> {
        let mut users: Vec<_> = self.clients.iter().map(|client| client.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Open sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Live lines.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }
}

impl Presence for Registry {
    fn line(&self, device: DeviceId) -> Option<Present> {
        let live = self.device(device)?;
        let round_trip = live.round_trip_us.load(Ordering::Relaxed);
        Some(Present {
            line: api::Line {
                since: live.since,
                carrier: live.carrier.kind().to_owned(),
                address: live.carrier.remote_address().to_string(),
                round_trip_ms: (round_trip != u32::MAX).then(|| f64::from(round_trip) / 1000.0),
                sessions: live.sessions.load(Ordering::Relaxed),
                clock_ahead_s: live.clock_ahead,
            },
            last_seen: live.last_seen(),
        })
    }
}
