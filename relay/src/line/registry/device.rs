//! A device's live line, and what its task is told to do.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use belay_proto::ids::{DeviceId, Epoch, RunId, SessionId};
use belay_proto::keeping;
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::names::DeviceName;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::wire::control::Ended;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::clock;
use tokio::sync::Notify;

use super::Registry;

/// Sessions the device is to end and was not told of yet: all it can have, and all it had before.
/// A line that does not take them is ended; the device hears of them when it connects again.
const MAX_ENDINGS: usize = 2 * DEVICE_SESSIONS;

/// What its agent can do, as it says.
#[derive(Debug, Clone, Copy)]
pub(in crate::line) struct Able {
    /// Give a session to another client.
    pub(in crate::line) attaches: bool,
    /// Record sessions, as is wanted here.
    pub(in crate::line) records: bool,
    /// And what is typed, where it records.
    pub(in crate::line) records_input: bool,
    /// Let a session join a terminal of another.
    pub(in crate::line) joins: bool,
}

/// A device's live line.
pub(in crate::line) struct LiveDevice {
    pub(in crate::line) id: DeviceId,
    pub(in crate::line) epoch: Epoch,
    pub(in crate::line) carrier: Carrier,
    since: UnixTime,
    pub(super) clock_ahead: i64,
    answered: AtomicU64,
    looked: AtomicU64,
    ask_seconds: AtomicU32,
    settled: OnceLock<Settled>,
    pub(super) round_trip_us: AtomicU32,
    named: Box<[SessionId]>,
    /// Which run of the agent holds it, when it says.
    pub(in crate::line) run: Option<RunId>,
    pub(in crate::line) able: Able,
    orders: Mutex<Orders>,
    ordered: Notify,
    proven: AtomicBool,
    proved: Notify,
}

/// What a line had cost when its beginning was over: what comes after is what an idle line costs.
#[derive(Debug, Clone, Copy)]
struct Settled {
    at: UnixTime,
    bytes: u64,
}

/// A device somebody looks at is asked when it last answered this long ago, and no more often: a
/// screen that shows the list all day costs each device some 20 MB a month.
const LOOKED_AT: Duration = Duration::from_secs(20);

/// Its beginning is over by then: handshake, greeting, the search for the largest datagram.
const SETTLES: Duration = Duration::from_secs(60);

/// A cost is extrapolated from no less than this.
const MEASURED: Duration = Duration::from_secs(300);

/// What a line's cost is extrapolated to: 30 days.
const MONTH: u64 = 30 * 86_400;

/// What the line's task is to do. Not a `watch`: that takes half a kilobyte, in every idle line.
#[derive(Default)]
struct Orders {
    end: Option<Refused>,
    name: Option<DeviceName>,
    ask: bool,
    sessions: Vec<Ended>,
    prove: bool,
}

/// One of them.
pub(in crate::line) enum Order {
    /// Tell the device to end a session.
    EndSession(Ended),
    /// Tell the device why, and end the line.
    End(Refused),
    /// Tell the device its new name.
    Rename(DeviceName),
    /// Ask whether it is there, now.
    Prove,
    /// Say something that is answered, whatever it is.
    Ask,
}

impl LiveDevice {
    pub(in crate::line) fn new(
        id: DeviceId,
        epoch: Epoch,
        carrier: Carrier,
        clock_ahead: i64,
        named: Box<[SessionId]>,
        run: Option<RunId>,
        able: Able,
    ) -> Self {
        let now = clock::now();
        Self {
            id,
            epoch,
            carrier,
            since: now,
            clock_ahead,
            answered: AtomicU64::new(now.0),
            looked: AtomicU64::new(0),
            ask_seconds: AtomicU32::new(0),
            settled: OnceLock::new(),
            round_trip_us: AtomicU32::new(u32::MAX),
            named,
            run,
            able,
            orders: Mutex::default(),
            ordered: Notify::new(),
            proven: AtomicBool::new(false),
            proved: Notify::new(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Whole between any two statements that can panic.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it came up.
    pub(in crate::line) const fn since(&self) -> UnixTime {
        self.since
    }

    /// Whether the device had this session when the line came up.
    pub(in crate::line) fn has_named(&self, session: SessionId) -> bool {
        self.named.contains(&session)
    }

    /// The device is to learn this name.
    pub(in crate::line) fn rename(&self, name: DeviceName) {
        self.orders().name = Some(name);
        self.ordered.notify_one();
    }

    /// The device is to end a session. It may not have it; then it ignores the word.
    pub(in crate::line) fn end_session(&self, ended: Ended) {
        {
            let mut orders = self.orders();
            if orders.sessions.iter().any(|waiting| waiting.session == ended.session) {
                return;
            }
            if orders.sessions.len() < MAX_ENDINGS {
                orders.sessions.push(ended);
            } else {
                orders.end.get_or_insert_with(|| {
                    Refused::new(Code::Busy, "the device takes no orders", "connect again")
                });
            }
        }
        self.ordered.notify_one();
    }

    /// Somebody waits for the device, and its path may have been away. A transport repeats what was
    /// lost ever more seldom; the answer to something new makes it repeat all of it at once.
    pub(in crate::line) fn ask(&self) {
        self.orders().ask = true;
        self.ordered.notify_one();
    }

    /// Ends the line, with a word to the device. The first reason stands.
    pub(in crate::line) fn end(&self, reason: Refused) {
        self.orders().end.get_or_insert(reason);
        self.ordered.notify_one();
    }

    /// Waits for an order. Only the line's own task asks. Sessions come first: a line that ends
    /// because the device was quarantined must not leave their workers running.
    pub(in crate::line) async fn order(&self) -> Order {
        loop {
            {
                let mut orders = self.orders();
                if let Some(ended) = orders.sessions.pop() {
                    return Order::EndSession(ended);
                }
                if let Some(reason) = &orders.end {
                    return Order::End(reason.clone());
                }
                if let Some(name) = orders.name.take() {
                    return Order::Rename(name);
                }
                if std::mem::take(&mut orders.prove) {
                    return Order::Prove;
                }
                if std::mem::take(&mut orders.ask) {
                    return Order::Ask;
                }
            }
            self.ordered.notified().await;
        }
    }

    /// Asks the device whether it is there, and waits for an answer to that very question.
    pub(in crate::line) async fn proves_itself(&self, patience: Duration) -> bool {
        self.proven.store(false, Ordering::Relaxed);
        let proved = self.proved.notified();
        tokio::pin!(proved);
        // From here on it is heard.
        proved.as_mut().enable();
        self.orders().prove = true;
        self.ordered.notify_one();
        let proof = tokio::time::timeout(patience, proved).await;
        proof.is_ok() && self.proven.load(Ordering::Relaxed)
    }

    /// It answered the question of [`Self::proves_itself`].
    pub(in crate::line) fn proved(&self) {
        self.proven.store(true, Ordering::Relaxed);
        self.proved.notify_waiters();
    }

    /// Its round trip, as the last probe measured it.
    pub(in crate::line) fn round_trip(&self) -> Option<Duration> {
        let us = self.round_trip_us.load(Ordering::Relaxed);
        (us != u32::MAX).then(|| Duration::from_micros(us.into()))
    }

    /// It answered a probe.
    pub(in crate::line) fn answered(&self, round_trip: Option<Duration>) {
        let now = clock::now();
        self.answered.store(now.0, Ordering::Relaxed);
        if self.since.distance(now) >= SETTLES {
            self.settled.get_or_init(|| Settled { at: now, bytes: self.carrier.wire_bytes() });
        }
        if let Some(round_trip) = round_trip {
            let us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX - 1);
            self.round_trip_us.store(us, Ordering::Relaxed);
        }
    }

    /// Bytes on the wire since it came up, both ways, and how many that makes in 30 days; the
    /// octets that keep its mapping, which nobody sees here, are counted in as it sends them.
    pub(super) fn cost(&self) -> (u64, Option<u64>) {
        let now = clock::now();
        let asked = self.ask_seconds.load(Ordering::Relaxed);
        let octets = |span: Duration| match asked {
            0 => 0,
            asked => {
                span.as_secs() / u64::from(asked) * keeping::octets_between(asked) * keeping::OCTET
            }
        };
        let bytes = self.carrier.wire_bytes();
        let month = self.settled.get().and_then(|settled| {
            let span = settled.at.distance(now);
            let spent = bytes.saturating_sub(settled.bytes) + octets(span);
            (span >= MEASURED).then(|| spent.saturating_mul(MONTH) / span.as_secs().max(1))
        });
        (bytes + octets(self.since.distance(now)), month)
    }

    /// How often it is asked whether it is there.
    pub(in crate::line) fn asked_every(&self) -> Duration {
        Duration::from_secs(self.ask_seconds.load(Ordering::Relaxed).into())
    }

    /// From now on it is asked so often.
    pub(in crate::line) fn ask_every(&self, every: Duration) {
        let seconds = u32::try_from(every.as_secs()).unwrap_or(u32::MAX);
        self.ask_seconds.store(seconds, Ordering::Relaxed);
    }

    /// Somebody got no answer from it: it is asked now.
    pub(in crate::line) fn suspect(&self) {
        self.orders().prove = true;
        self.ordered.notify_one();
    }

    /// Somebody looks at how it stands: what was last heard a while ago is asked for now, so that a
    /// device that died between two questions is soon seen to be dead.
    pub(in crate::line) fn looked_at(&self) {
        let now = clock::now();
        let looked = UnixTime(self.looked.load(Ordering::Relaxed));
        if self.last_seen().distance(now) >= LOOKED_AT && looked.distance(now) >= LOOKED_AT {
            self.looked.store(now.0, Ordering::Relaxed);
            self.suspect();
        }
    }

    /// When it last answered.
    pub(in crate::line) fn last_seen(&self) -> UnixTime {
        UnixTime(self.answered.load(Ordering::Relaxed))
    }
}

/// Takes a device off the registry when its task ends, however it ends.
pub(in crate::line) struct DeviceGuard {
    pub(super) registry: Arc<Registry>,
    pub(super) device: Arc<LiveDevice>,
}

impl Drop for DeviceGuard {
    fn drop(&mut self) {
        let epoch = self.device.epoch;
        self.registry.devices.remove_if(&self.device.id, |_, live| live.epoch == epoch);
    }
}

/// Somebody waits for a device's line.
#[derive(Default)]
pub(super) struct Awaited {
    notify: Arc<Notify>,
    waiting: usize,
}

#[cfg(test)]
impl Awaited {
    pub(super) const fn is_by(&self, number: usize) -> bool {
        self.waiting == number
    }
}

/// One who waits; the last one's end takes the entry away.
struct Waiting<'a> {
    registry: &'a Registry,
    device: DeviceId,
    notify: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.registry.awaited.remove_if_mut(&self.device, |_, awaited| {
            awaited.waiting = awaited.waiting.saturating_sub(1);
            awaited.waiting == 0
        });
    }
}

impl Registry {
    /// The device's line, as soon as it has one. Cancelling leaves nothing behind.
    pub(in crate::line) async fn line_up(&self, id: DeviceId) -> Arc<LiveDevice> {
        self.line_such(id, |_| true).await
    }

    /// The line that has taken this one's place, as soon as there is one. Cancelling leaves nothing
    /// behind.
    pub(in crate::line) async fn newer_line(&self, line: &LiveDevice) -> Arc<LiveDevice> {
        self.line_such(line.id, |live| live.epoch != line.epoch).await
    }

    async fn line_such(&self, id: DeviceId, such: impl Fn(&LiveDevice) -> bool) -> Arc<LiveDevice> {
        let found = || self.device(id).filter(|live| such(live));
        if let Some(live) = found() {
            return live;
        }
        let notify = {
            let mut awaited = self.awaited.entry(id).or_default();
            awaited.waiting += 1;
            Arc::clone(&awaited.notify)
        };
        let waiting = Waiting { registry: self, device: id, notify };
        loop {
            let notified = waiting.notify.notified();
            tokio::pin!(notified);
            // From here on a line that comes up is heard of; before, it is seen.
            notified.as_mut().enable();
            if let Some(live) = found() {
                return live;
            }
            notified.await;
        }
    }

    /// Wakes who waits for this device.
    pub(super) fn tell_waiting(&self, id: DeviceId) {
        if let Some(awaited) = self.awaited.get(&id) {
            awaited.notify.notify_waiters();
        }
    }
}
