//! What goes wrong, and when: drawn from the seed before the world begins, overlapping as it
//! likes, and all over when the calm begins.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::carrier::{Carrier, FAR, IDLE, NEAR};
use super::device::Device;
use super::path::Path;
use super::relay::Relay;
use super::suspension::Suspension;
use super::tally::{KINDS, Kind, Tally};
use super::worker::Worker;
use crate::chance::Chance;

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    kind: Kind,
    at: Duration,
    lasts: Duration,
    /// Whether it is the end that dialled which forgets.
    near: bool,
}

/// The faults of one world.
pub(super) fn plan(horizon: Duration, chance: &mut Chance) -> Vec<Fault> {
    let count = chance.scale(2, 24);
    // Some worlds know a few kinds of fault only, so that each meets itself as well.
    let kinds: Vec<_> = (0..chance.scale(1, 12)).map(|_| chance.pick(&KINDS)).collect();
    let mut fault = || {
        let kind = chance.pick(&kinds);
        // Most are short enough to be survived; some outlive every patience.
        let idle = IDLE.as_millis() as u64;
        let lasts = match (chance.below(8), kind) {
            (0, Kind::ClientBlackout | Kind::DeviceBlackout) | (0..=3, Kind::Suspension) => {
                chance.time(idle, 2 * idle)
            }
            (0..=3, _) | (_, Kind::WorkerStall) => chance.time(1_000, 20_000),
            _ => chance.time(100, 3_000),
        };
        let lasts = lasts.min(horizon);
        let at = chance.time(0, (horizon - lasts).as_millis() as u64);
        Fault { kind, at, lasts, near: chance.one_in(2) }
    };
    (0..count).map(|_| fault()).collect()
}

/// What faults can strike.
pub(super) struct Victims {
    pub(super) tally: Arc<Tally>,
    pub(super) relay: Arc<Relay>,
    pub(super) client_path: Arc<Path>,
    pub(super) device_path: Arc<Path>,
    pub(super) device: Arc<Device>,
    pub(super) process: Arc<Suspension>,
    pub(super) worker: Arc<Worker>,
    pub(super) client_better: Arc<Notify>,
}

impl Victims {
    pub(super) async fn strike(self: Arc<Self>, fault: Fault) {
        let Fault { kind, at, lasts, near } = fault;
        let begin = self.relay.beat.at(at);
        let end = begin + lasts;
        sleep_until(begin).await;
        let forgetting = if near { NEAR } else { FAR };
        match kind {
            Kind::ClientReset => self.each(kind, &self.client_path, |carrier| carrier.reset()),
            Kind::DeviceReset => self.each(kind, &self.device_path, |carrier| carrier.reset()),
            Kind::ClientVanish => {
                self.each(kind, &self.client_path, |carrier| carrier.vanish(forgetting));
            }
            Kind::DeviceVanish => {
                self.each(kind, &self.device_path, |carrier| carrier.vanish(forgetting));
            }
            Kind::ClientBlackout => self.black_out(kind, &self.client_path, begin, end).await,
            Kind::DeviceBlackout => self.black_out(kind, &self.device_path, begin, end).await,
            Kind::RelayRestart | Kind::RelayKill => self.relay_ends(kind, end).await,
            Kind::SupervisorRestart | Kind::SupervisorKill => {
                self.tally.strikes(kind);
                self.device.die(kind == Kind::SupervisorKill, lasts);
            }
            Kind::Suspension => self.suspend(begin, end).await,
            Kind::WorkerStall => self.stall(kind, &self.worker.process, end).await,
            Kind::ClientBetter => self.better(kind, &self.client_better),
            Kind::DeviceBetter => self.better(kind, &self.device.better),
        }
    }

    fn better(&self, kind: Kind, there_is: &Notify) {
        self.tally.strikes(kind);
        there_is.notify_waiters();
    }

    fn each(&self, kind: Kind, path: &Path, strike: impl Fn(&Arc<Carrier>)) {
        self.tally.strikes(kind);
        path.carriers().iter().for_each(strike);
    }

    async fn black_out(&self, kind: Kind, path: &Path, begin: Instant, end: Instant) {
        let struck = self.tally.strikes(kind);
        path.fall();
        let carriers = path.carriers();
        if end > begin + IDLE {
            sleep_until(begin + IDLE).await;
            self.tally.strikes_again(kind, struck);
            carriers.iter().for_each(|carrier| carrier.end());
        }
        drop(carriers);
        sleep_until(end).await;
        path.rise();
        self.tally.is_over(kind, struck);
    }

    /// Killed, it says nothing. The next one answers what comes on a line it does not know with a
    /// reset, where anything gets through.
    async fn relay_ends(&self, kind: Kind, end: Instant) {
        if !self.relay.is_up() {
            return;
        }
        self.tally.strikes(kind);
        let left = if kind == Kind::RelayKill {
            self.relay.kill()
        } else {
            self.relay.stop();
            Vec::new()
        };
        sleep_until(end).await;
        self.relay.start();
        for carrier in left.into_iter().filter(|carrier| !carrier.path.is_down()) {
            let learns = end + carrier.path.shape.round_trip();
            carrier.path.later(learns, {
                let carrier = Arc::clone(&carrier);
                move || carrier.end()
            });
        }
    }

    /// A suspended client answers nothing, so the relay's patience ends with its lines.
    async fn suspend(&self, begin: Instant, end: Instant) {
        let carriers = self.client_path.carriers();
        let struck = self.tally.passing();
        let forgotten = async {
            sleep_until(begin + IDLE).await;
            self.tally.strikes_again(Kind::Suspension, struck);
            carriers.iter().for_each(|carrier| carrier.vanish(FAR));
            pending().await
        };
        tokio::select! {
            biased;
            () = self.stall(Kind::Suspension, &self.process, end) => {}
            () = forgotten => {}
        }
    }

    async fn stall(&self, kind: Kind, process: &Suspension, end: Instant) {
        if process.is_frozen() {
            return;
        }
        self.relay.beat.even().await;
        let struck = self.tally.strikes(kind);
        process.freeze();
        sleep_until(end).await;
        self.relay.beat.even().await;
        process.thaw();
        self.tally.is_over(kind, struck);
    }
}
