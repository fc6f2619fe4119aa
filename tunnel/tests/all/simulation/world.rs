//! One world from its seed: put together, run to its end, judged.

use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::stream::{Config, Traffic, session};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::application::{Flow, read, write};
use super::beat::Beat;
use super::carrier::IDLE;
use super::client::{Client, Kept};
use super::device::Device;
use super::faults::{Victims, plan};
use super::hearing::Hearing;
use super::mischief::Mischief;
use super::path::{Path, Shape};
use super::relay::Relay;
use super::suspension::Suspension;
use super::tally::{Counts, Tally};
use super::watcher::Watched;
use super::worker::Worker;
use crate::chance::{Chance, text};

/// A direction is done within so long on a path that nothing happens to.
const BULK: u64 = 20;

/// What was found in a world that ended well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Report {
    pub(super) counts: Counts,
    pub(super) ended: Duration,
    /// How long the calm took, and how long it may.
    pub(super) calm: Duration,
    pub(super) bound: Duration,
}

/// Runs the world of that seed on a clock and a thread of its own.
///
/// # Errors
/// What must not be, and was.
pub(super) fn run(seed: u64, mischief: Mischief) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(world(seed, mischief))
}

async fn world(seed: u64, mischief: Mischief) -> Result<Report, String> {
    let beat = Beat::begin();
    let mut chance = Chance(seed);
    let chance = &mut chance;
    let shapes = [Shape::any(chance), Shape::any(chance)];
    let configs = [config(chance), config(chance)];
    let horizon = chance.time(10_000, 150_000);
    let calm = beat.at(horizon);
    let speed = speed(&shapes, &configs);
    let most = (speed * BULK).min(2 << 20) as usize;
    let mut flow = || {
        let length = chance.scale(1_000, most.max(2_000));
        Flow::any(text(chance.next(), length), horizon, chance)
    };
    let (up, down) = (flow(), flow());
    let bulk = (up.bytes.len() + down.bytes.len()) as u64;
    let bound = settling(&shapes) + Duration::from_secs(bulk / speed * 3);

    let tally = Arc::new(Tally::new(beat));
    let process = Arc::new(Suspension::default());
    let relay = Relay::new(beat, &tally, mischief);
    let [client_path, device_path] = shapes.map(|shape| Path::new(shape, chance.fork()));
    let ((near_send, near_recv, near), (far_send, far_recv, far)) =
        (session(configs[0]), session(configs[1]));
    let worker = Worker::new(far.clone(), Hearing::new());
    let client = Client {
        relay: Arc::clone(&relay),
        path: Arc::clone(&client_path),
        attacher: near.clone(),
        hearing: Hearing::new(),
        process: Arc::clone(&process),
        better: Arc::default(),
    };
    let ends = [
        Watched {
            name: "the client",
            attacher: near,
            hearing: client.hearing.clone(),
            config: configs[0],
            says: up.bytes.len() as u64,
            process: Arc::clone(&process),
        },
        Watched {
            name: "the worker",
            attacher: far,
            hearing: worker.hearing.clone(),
            config: configs[1],
            says: down.bytes.len() as u64,
            process: Arc::clone(&worker.process),
        },
    ];
    let device = Device::new(&relay, &device_path, &worker);
    let victims = Arc::new(Victims {
        tally: Arc::clone(&tally),
        relay,
        client_path,
        device_path,
        device: Arc::clone(&device),
        process: Arc::clone(&process),
        worker: Arc::clone(&worker),
        client_better: Arc::clone(&client.better),
    });
    let mut around = JoinSet::new();
    around.spawn(device.run());
    for fault in plan(horizon, chance) {
        around.spawn(Arc::clone(&victims).strike(fault));
    }

    let [writing, reading, working, hearing] = [(); 4].map(|()| chance.fork());
    let laptop = async {
        tokio::try_join!(
            write(&up, near_send, calm, writing),
            read(&down, near_recv, calm, reading, &tally),
            client.keep(),
        )
    };
    let machine = async {
        tokio::try_join!(
            write(&down, far_send, calm, working),
            read(&up, far_recv, calm, hearing, &tally),
        )
    };
    let all = async { tokio::try_join!(process.through(laptop), worker.process.through(machine)) };
    let [near, far] = &ends;
    let ended = tokio::select! {
        biased;
        wrong = near.watch(far, &tally) => Err(wrong),
        wrong = far.watch(near, &tally) => Err(wrong),
        wrong = worker.accusation() => Err(wrong),
        done = timeout_at(calm + bound, all) => match done {
            Ok(done) => done.map(|((_, _, kept), _)| kept),
            Err(_) => Err(format!("the calm does not end it within {bound:?}: {:?}", traffic(&ends))),
        },
    };
    let kept = ended?;
    if !near.attacher.is_closed() || (kept == Kept::Closed && !far.attacher.is_closed()) {
        return Err(format!("an end that has everything is not closed: {:?}", traffic(&ends)));
    }
    if let Some(early) = near.closed_early(far).or_else(|| far.closed_early(near)) {
        return Err(early);
    }
    let ended = Duration::from_millis(beat.ms());
    let counts = tally.counts();
    Ok(Report { counts, ended, calm: ended.saturating_sub(horizon), bound })
}

fn traffic(ends: &[Watched; 2]) -> [Traffic; 2] {
    ends.each_ref().map(|end| end.attacher.traffic())
}

fn config(chance: &mut Chance) -> Config {
    let sizes = [64 << 10, 64 << 10, 200_000, 1 << 20, 4 << 20];
    Config { replay: chance.pick(&sizes), window: chance.pick(&sizes) }
}

/// Bytes a second that either direction gets when nothing happens. An end sends its smallest
/// buffer and hears of it a round trip later, some of it with every delay there is.
fn speed(shapes: &[Shape; 2], configs: &[Config; 2]) -> u64 {
    let trip = shapes.iter().map(Shape::round_trip).sum::<Duration>().as_millis() as u64 + 50;
    let buffer = configs.iter().flat_map(|config| [config.replay, config.window]).min();
    let paths = shapes.iter().map(Shape::speed).min();
    paths.unwrap_or(0).min(buffer.unwrap_or(0) as u64 * 1000 / trip / 2)
}

/// How long the last faults may go unnoticed and take to mend, before bytes move again for good.
///
/// An end that only listens learns of a line that vanished when the line's patience is over. What
/// it asks then may be given to a device's line that is as dead, and the relay finds that out with
/// the delivery; the device itself has found out long before. Then come the dialling and the
/// asking: some round trips, and what a carrier sends again late.
fn settling(shapes: &[Shape; 2]) -> Duration {
    let trip = shapes.iter().map(Shape::round_trip).sum::<Duration>();
    IDLE + belay_proto::limits::DELIVER_DEADLINE + Duration::from_secs(15) + trip * 20
}
