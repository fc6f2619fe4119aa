//! What the two ends of the application and the running attachment share: the pure core behind a
//! lock, and who waits for it.
//!
//! Its law: the lock is never held over an await, and nobody is woken under it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use belay_proto::resume::{Config, Output, Resume};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Ended;

/// What is known of the way to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The other end is there.
    Up,
    /// There is an attachment, but nothing comes where an answer is due: time to dial anew.
    Silent {
        /// Since when that is known; after a break, since that attachment was found silent.
        since: Instant,
    },
    /// There is no attachment, or none the other end has spoken on.
    Down {
        /// Since when.
        since: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    link: watch::Sender<Link>,
    over: watch::Sender<bool>,
    start: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) resume: Resume,
    /// Why the application's ends fail, where it is not the core that says so.
    pub(super) ended: Option<Ended>,
    /// The number of the running attachment. Whoever has another one has been replaced.
    pub(super) epoch: u64,
    pub(super) detached_since: Instant,
    pub(super) sender: Option<Waker>,
    pub(super) receiver: Option<Waker>,
    pub(super) carry: Option<Waker>,
    /// The running attachment has nothing to write and wants to know when that changes.
    pub(super) idle: bool,
    /// Whoever watches the link knows that the other end is there.
    pub(super) up: bool,
}

impl State {
    /// The running attachment is woken through `cx` from now on.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &self.carry {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            Some(_) | None => self.carry = Some(cx.waker().clone()),
        }
    }

    /// Who has to hear of a change the application made. An attachment that is busy writing comes
    /// for more by itself.
    pub(super) fn carry_if_idle(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.idle, false) { self.carry.take() } else { None }
    }

    /// Which of the application's ends have to hear of a change the attachment made.
    pub(super) fn application(&mut self) -> [Option<Waker>; 2] {
        let over = self.ended.is_some() || self.resume.reset_code().is_some();
        let sender = if over || self.resume.room() > 0 { self.sender.take() } else { None };
        let receiver = if over || self.resume.has_received() { self.receiver.take() } else { None };
        [sender, receiver]
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> Arc<Self> {
        let start = Instant::now();
        let state = State {
            resume: Resume::new(config),
            ended: None,
            epoch: 0,
            detached_since: start,
            sender: None,
            receiver: None,
            carry: None,
            idle: false,
            up: false,
        };
        let (link, _) = watch::channel(Link::Down { since: start });
        Arc::new(Self { state: Mutex::new(state), link, over: watch::Sender::new(false), start })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock resurfaces in its own task; the core is consistent between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    pub(super) fn watch_over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    pub(super) fn note_over(&self) {
        self.over.send_replace(true);
    }

    pub(super) fn watch_link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Tells whoever watches what the core found out.
    pub(super) fn note_outputs(&self, state: &mut State) {
        while let Some(output) = state.resume.poll_output() {
            match output {
                Output::Silent => {
                    state.up = false;
                    self.note(|now, link| match link {
                        Link::Up | Link::Down { .. } => Link::Silent { since: now },
                        Link::Silent { .. } => link,
                    });
                }
                // Any bytes say so, and whoever carries sees the end.
                Output::Heard | Output::Closed => {}
            }
        }
    }

    pub(super) fn note_heard(&self, state: &mut State) {
        if !std::mem::replace(&mut state.up, true) {
            self.note(|_, _| Link::Up);
        }
    }

    pub(super) fn note_down(&self, state: &mut State) {
        state.up = false;
        self.note(|now, link| match link {
            Link::Up => Link::Down { since: now },
            Link::Silent { since } | Link::Down { since } => Link::Down { since },
        });
    }

    fn note(&self, change: impl FnOnce(Instant, Link) -> Link) {
        self.link.send_if_modified(|link| {
            let next = change(Instant::now(), *link);
            std::mem::replace(link, next) != next
        });
    }
}

pub(super) fn wake(wakers: impl IntoIterator<Item = Option<Waker>>) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}
