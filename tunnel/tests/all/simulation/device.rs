//! The device's supervisor: a line to the relay, as `device-agent/src/supervisor` holds it. It may
//! die and start again; the worker does not.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use belay_tunnel::reach::{Silence, insist};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::attachment;
use super::carrier::{Carrier, End, NEAR};
use super::path::Path;
use super::relay::{Relay, Who};
use super::worker::Worker;

/// The supervisor's own: between two attempts, under way at once, between two words to the relay.
const EAGER: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 8;
const BEAT: Duration = Duration::from_secs(20);

pub(super) struct Device {
    relay: Arc<Relay>,
    path: Arc<Path>,
    worker: Arc<Worker>,
    state: Mutex<State>,
    dies: Notify,
    /// There is a better line than the one that is held.
    pub(super) better: Notify,
}

#[derive(Default)]
struct State {
    line: Weak<Carrier>,
    down_for: Option<Duration>,
}

enum Outcome {
    Lost,
    Moved(End),
}

impl Device {
    pub(super) fn new(relay: &Arc<Relay>, path: &Arc<Path>, worker: &Arc<Worker>) -> Arc<Self> {
        Arc::new(Self {
            relay: Arc::clone(relay),
            path: Arc::clone(path),
            worker: Arc::clone(worker),
            state: Mutex::default(),
            dies: Notify::new(),
            better: Notify::new(),
        })
    }

    /// The supervisor ends now and is away for so long. Killed, it says nothing to anybody.
    pub(super) fn die(&self, killed: bool, down_for: Duration) {
        let mut state = self.state.lock().unwrap();
        state.down_for = Some(down_for);
        let line = state.line.upgrade();
        drop(state);
        if let Some(line) = line.filter(|_| killed) {
            line.vanish(NEAR);
        }
        self.dies.notify_one();
    }

    pub(super) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.dies.notified() => {}
                never = self.life() => match never {},
            }
            let down_for = self.state.lock().unwrap().down_for.take();
            sleep(down_for.unwrap_or_default()).await;
        }
    }

    async fn life(&self) -> Infallible {
        let mut line = self.dial().await;
        loop {
            line = match self.hold(line).await {
                Outcome::Moved(next) => {
                    self.relay.tally.count(|counts| counts.device_moved += 1);
                    next
                }
                Outcome::Lost => self.dial().await,
            };
        }
    }

    async fn dial(&self) -> End {
        dial(Arc::clone(&self.relay), Arc::clone(&self.path)).await
    }

    /// Serves the line until it ends, or until it is silent and there is another.
    async fn hold(&self, line: End) -> Outcome {
        self.state.lock().unwrap().line = Arc::downgrade(&line.carrier);
        let mut attachments = JoinSet::new();
        let mut silence = Silence::new(line.bytes());
        let mut better = false;
        let mut redial: Option<Pin<Box<dyn Future<Output = End> + Send>>> = None;
        let (mut look, mut beat) = (interval(Silence::LOOK), interval(BEAT));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            let dials = redial.is_some();
            let again = async {
                match &mut redial {
                    Some(redial) => redial.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                stream = line.accept() => match stream {
                    Ok((send, recv)) => {
                        attachments.spawn(attachment::serve(send, recv, Arc::clone(&self.worker)));
                    }
                    Err(_) => break Outcome::Lost,
                },
                Some(_) = attachments.join_next() => {}
                next = again => break Outcome::Moved(next),
                _ = beat.tick() => line.beat(),
                () = self.better.notified(), if !dials => {
                    better = true;
                    redial = Some(Box::pin(dial(Arc::clone(&self.relay), Arc::clone(&self.path))));
                }
                _ = look.tick() => {
                    let round_trip = self.path.shape.round_trip();
                    let now = Instant::now().into_std();
                    let silent = silence.judge(line.bytes(), round_trip, now);
                    if silent && redial.is_none() {
                        let dialling = dial(Arc::clone(&self.relay), Arc::clone(&self.path));
                        redial = Some(Box::pin(dialling));
                    } else if !silent && !better {
                        redial = None;
                    }
                }
            }
        };
        attachments.shutdown().await;
        line.close();
        outcome
    }
}

async fn dial(relay: Arc<Relay>, path: Arc<Path>) -> End {
    let beat = relay.beat;
    beat.even().await;
    let attempt = || {
        let (relay, path) = (Arc::clone(&relay), Arc::clone(&path));
        async move {
            let dialled = relay.dial(&path, Who::Device).await;
            beat.odd().await;
            dialled
        }
    };
    match insist(EAGER, ATTEMPTS, attempt, |_| false).await {
        Ok(end) => end,
        Err(_) => unreachable!("no failure is fatal"),
    }
}
