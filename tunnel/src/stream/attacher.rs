//! The side of a session that attachments are brought to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::resume::{ResetCode, Violation};
use tokio::sync::watch;

use super::carry::carry;
use super::shared::{Shared, wake};
use super::{Ended, Link, Sink, Source};

/// How one attachment ended.
#[derive(Debug)]
pub enum Carried {
    /// The session is over and both ends have everything. Nothing is left to do.
    Closed,
    /// The attachment broke. If [`Attacher::is_closed`], only the other end may still want the last
    /// acknowledgement, and that it no longer knows the session is as good as an answer.
    Lost(Lost),
    /// The other end broke the protocol; the session is over.
    Violation(Violation),
    /// Another attachment took its place.
    Replaced,
    /// [`Attacher::end`] was called.
    Ended,
}

/// How an attachment broke.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It ended, in the middle of the session.
    #[error("the attachment ended before the session did")]
    Ended,
    /// The transport failed.
    #[error("the attachment failed: {0}")]
    Failed(io::Error),
    /// The session is over, but the other end does not end the attachment.
    #[error("the other end does not end the attachment")]
    NotEnded,
}

/// What a session has moved, in bytes of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Given by the application.
    pub written: u64,
    /// Known to be at the other end; its end counts one.
    pub acknowledged: u64,
    /// Held until the other end has them.
    pub unacknowledged: usize,
    /// Received in order.
    pub received: u64,
    /// Received and not yet taken by the application.
    pub waiting: usize,
    /// To the other end and back, once it was measured.
    pub round_trip: Option<Duration>,
}

/// Brings attachments to a session. Clones are the same session's.
#[derive(Debug, Clone)]
pub struct Attacher(Arc<Shared>);

impl Attacher {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Runs one attachment to its end. One that runs already is replaced at once. Dropping the
    /// future detaches; the session lives on.
    pub async fn carry(&self, source: impl Source, sink: impl Sink) -> Carried {
        carry(&self.0, source, sink).await
    }

    /// What is known of the way to the other end, as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.watch_link()
    }

    /// Waits until the running attachment is silent where an answer is due: time to dial anew.
    pub async fn silent(&self) {
        let mut link = self.link();
        // It cannot fail: the sender lives in what we hold.
        if link.wait_for(|link| matches!(link, Link::Silent { .. })).await.is_err() {
            tracing::trace!("a session went away under its attacher");
        }
    }

    /// Waits until both ends have everything and the running attachment has said so. What it still
    /// waits for is the other side's end of it, which whoever leaves anyway need not hear.
    pub async fn over(&self) {
        // It cannot fail: the sender lives in what we hold.
        if self.0.watch_over().wait_for(|over| *over).await.is_err() {
            tracing::trace!("a session went away under its attacher");
        }
    }

    /// For how long there has been no attachment; `None` while there is one.
    pub fn detached_for(&self) -> Option<Duration> {
        let state = self.0.lock();
        (!state.resume.is_attached()).then(|| state.detached_since.elapsed())
    }

    /// Whether this end has everything and needs the other no more.
    pub fn is_closed(&self) -> bool {
        self.0.lock().resume.is_closed()
    }

    /// What was moved so far.
    pub fn traffic(&self) -> Traffic {
        let state = self.0.lock();
        let resume = &state.resume;
        Traffic {
            written: resume.bytes_written(),
            acknowledged: resume.bytes_acknowledged(),
            unacknowledged: resume.unacknowledged(),
            received: resume.bytes_received(),
            waiting: resume.bytes_waiting(),
            round_trip: resume.round_trip(),
        }
    }

    /// Ends the session here for good: both of the application's ends fail with `reason`, and an
    /// attachment that runs, or comes later, ends. The other end is not told: it is not there, or
    /// it was refused.
    pub fn end(&self, reason: impl Into<Arc<str>>) {
        let mut state = self.0.lock();
        if state.ended.is_none() {
            state.ended = Some(Ended::Over(reason.into()));
        }
        state.resume.handle_reset(ResetCode::GONE);
        let [sender, receiver] = state.application();
        let carry = state.carry.take();
        drop(state);
        wake([sender, receiver, carry]);
    }
}
