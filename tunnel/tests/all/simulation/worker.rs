//! The worker's end of a session: attached to one socket after another, for as long as the world
//! is.

use std::sync::{Arc, Mutex};

use belay_tunnel::stream::{Attacher, Carried, Reader, Writer};
use tokio::io::{DuplexStream, split};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::hearing::Hearing;
use super::suspension::Suspension;
use super::waiting::{Asked, wait_for};

pub(super) struct Worker {
    pub(super) attacher: Attacher,
    pub(super) hearing: Hearing,
    pub(super) process: Arc<Suspension>,
    carrying: Mutex<JoinSet<()>>,
    /// Attachments that came, and those that began.
    begun: Mutex<(u64, u64)>,
    began: Notify,
    wrong: Mutex<Option<String>>,
    went_wrong: Notify,
}

impl Worker {
    pub(super) fn new(attacher: Attacher, hearing: Hearing) -> Arc<Self> {
        Arc::new(Self {
            attacher,
            hearing,
            process: Arc::default(),
            carrying: Mutex::default(),
            begun: Mutex::default(),
            began: Notify::new(),
            wrong: Mutex::default(),
            went_wrong: Notify::new(),
        })
    }

    /// A new attachment; the session's newest is the one that counts.
    pub(super) fn attach(self: &Arc<Self>, socket: DuplexStream) {
        let worker = Arc::clone(self);
        let number = {
            let mut begun = self.begun.lock().unwrap();
            begun.0 += 1;
            begun.0
        };
        let mut carrying = self.carrying.lock().unwrap();
        while carrying.try_join_next().is_some() {}
        carrying.spawn(async move {
            let (read, write) = split(socket);
            let carrying = async {
                worker.turn_of(number).await;
                let source = worker.hearing.on(Reader::new(read));
                worker.attacher.carry(source, Writer::new(write)).await
            };
            match worker.process.through(carrying).await {
                Carried::Closed | Carried::Lost(_) | Carried::Replaced => {}
                other @ (Carried::Violation(_) | Carried::Ended) => {
                    let wrong = format!("the worker's attachment ended so: {other:?}");
                    worker.wrong.lock().unwrap().get_or_insert(wrong);
                    worker.went_wrong.notify_one();
                }
            }
        });
    }

    /// Attachments begin in the order they came, whoever gets to run first.
    async fn turn_of(&self, number: u64) {
        wait_for(&self.began, || {
            let mut begun = self.begun.lock().unwrap();
            if begun.1 + 1 < number {
                return Asked::Later;
            }
            begun.1 = number;
            Asked::Done(())
        })
        .await;
        self.began.notify_waiters();
    }

    /// Waits until the client is accused of something; of what.
    pub(super) async fn accusation(&self) -> String {
        loop {
            if let Some(wrong) = self.wrong.lock().unwrap().take() {
                return wrong;
            }
            self.went_wrong.notified().await;
        }
    }
}
