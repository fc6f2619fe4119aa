//! The relay: who is there, and one life after another of it.
//!
//! What it knows of a session outlives it, as its store does; who is connected does not.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::beat::Beat;
use super::carrier::{Carrier, End, FAR, Gone};
use super::mischief::{Culprit, Mischief};
use super::path::Path;
use super::session;
use super::tally::Tally;

/// Who dials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Client,
    Device,
}

pub(super) struct Relay {
    pub(super) tally: Arc<Tally>,
    pub(super) beat: Beat,
    culprit: Arc<Culprit>,
    life: Mutex<Option<Arc<Life>>>,
}

impl Relay {
    pub(super) fn new(beat: Beat, tally: &Arc<Tally>, mischief: Mischief) -> Arc<Self> {
        let relay = Self {
            tally: Arc::clone(tally),
            beat,
            culprit: Arc::new(Culprit::new(mischief)),
            life: Mutex::new(None),
        };
        relay.start();
        Arc::new(relay)
    }

    pub(super) fn start(&self) {
        *self.life.lock().unwrap() = Some(Arc::new(Life {
            tally: Arc::clone(&self.tally),
            culprit: Arc::clone(&self.culprit),
            tasks: Mutex::default(),
            carriers: Mutex::default(),
            device: watch::Sender::new(None),
            epoch: Mutex::new(0),
            attachment: Mutex::new(None),
        }));
    }

    pub(super) fn is_up(&self) -> bool {
        self.life.lock().unwrap().is_some()
    }

    /// Ends it in order: whoever can be reached hears of it, the others do not.
    pub(super) fn stop(&self) {
        for carrier in self.end() {
            if carrier.path.is_down() {
                carrier.vanish(FAR);
            } else {
                carrier.reset();
            }
        }
    }

    /// Ends it without a word. The lines it leaves behind, whose ends know nothing.
    pub(super) fn kill(&self) -> Vec<Arc<Carrier>> {
        let left = self.end();
        left.iter().for_each(|carrier| carrier.vanish(FAR));
        left
    }

    fn end(&self) -> Vec<Arc<Carrier>> {
        let Some(life) = self.life.lock().unwrap().take() else { return Vec::new() };
        life.tasks.lock().unwrap().abort_all();
        let carriers = std::mem::take(&mut *life.carriers.lock().unwrap());
        carriers.iter().filter_map(Weak::upgrade).collect()
    }

    /// A line to the relay that runs now: three ways of packets, and its welcome.
    pub(super) async fn dial(&self, path: &Arc<Path>, who: Who) -> Result<End, Gone> {
        for _ in 0..3 {
            path.trip().await;
        }
        let life = self.life.lock().unwrap().clone();
        let near = life.map(|life| {
            let (near, far) = Carrier::between(path);
            life.admit(far, who);
            near
        });
        path.trip().await;
        near.filter(|near| !near.is_over()).ok_or(Gone)
    }
}

/// A device's line as the relay holds it.
pub(super) struct Line {
    pub(super) epoch: u64,
    pub(super) end: End,
}

/// The relay from one start to its end.
pub(super) struct Life {
    pub(super) tally: Arc<Tally>,
    pub(super) culprit: Arc<Culprit>,
    pub(super) device: watch::Sender<Option<Arc<Line>>>,
    tasks: Mutex<JoinSet<()>>,
    carriers: Mutex<Vec<Weak<Carrier>>>,
    epoch: Mutex<u64>,
    /// The session's newest attachment, told when it is replaced.
    attachment: Mutex<Option<watch::Sender<bool>>>,
}

impl Life {
    fn admit(self: &Arc<Self>, end: End, who: Who) {
        self.carriers.lock().unwrap().push(Arc::downgrade(&end.carrier));
        let life = Arc::clone(self);
        let mut tasks = self.tasks.lock().unwrap();
        match who {
            Who::Client => tasks.spawn(life.serve(end)),
            Who::Device => {
                let epoch = {
                    let mut epoch = self.epoch.lock().unwrap();
                    *epoch += 1;
                    *epoch
                };
                let line = Arc::new(Line { epoch, end });
                if let Some(old) = self.device.send_replace(Some(Arc::clone(&line))) {
                    old.end.close();
                }
                tasks.spawn(life.hold(line))
            }
        };
    }

    /// A client's line.
    async fn serve(self: Arc<Self>, end: End) {
        let mut sessions = JoinSet::new();
        while let Ok((send, recv)) = end.accept().await {
            sessions.spawn(session::serve(Arc::clone(&self), send, recv));
        }
        sessions.shutdown().await;
    }

    /// A device's line.
    async fn hold(self: Arc<Self>, line: Arc<Line>) {
        line.end.over().await;
        self.device.send_if_modified(|now| now.take_if(|now| now.epoch == line.epoch).is_some());
    }

    /// Enters an attachment of the session; one that is there hears that it is replaced.
    pub(super) fn attach(&self) -> watch::Receiver<bool> {
        let (replace, replaced) = watch::channel(false);
        if let Some(old) = self.attachment.lock().unwrap().replace(replace)
            && !old.is_closed()
        {
            self.tally.count(|counts| counts.replaced += 1);
            old.send_replace(true);
        }
        replaced
    }
}
