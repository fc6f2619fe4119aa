//! What a guest is still to be shown: bounded, and never waited for.
//!
//! Its law: whoever shows something does not wait. A guest who takes too little falls behind: what
//! waits for them is thrown away, nothing more is kept, and when they take bytes again they ask to be
//! drawn anew.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::worker::joining::FRAME_MAX;
use crate::worker::limits::GUEST_BEHIND;

#[derive(Debug)]
struct Outbox {
    bytes: BytesMut,
    /// What was shown since is missing: they are to be drawn anew.
    behind: bool,
    /// They asked for that.
    asked: bool,
    end: Option<String>,
}

/// What is to be done next for a guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Show them this.
    Bytes(Bytes),
    /// They have all there was, and are behind: ask that they be drawn. Given out once.
    Draw,
    /// Tell them why it ends. Nothing follows.
    End(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    outbox: Mutex<Outbox>,
    wake: Notify,
    ended: Notify,
}

impl Link {
    /// Of one who was not drawn yet, and will be without asking.
    pub(super) fn new() -> Self {
        let outbox = Outbox { bytes: BytesMut::new(), behind: true, asked: true, end: None };
        Self { outbox: Mutex::new(outbox), wake: Notify::new(), ended: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        // Whole between any two statements that can panic.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The terminal shows this.
    pub(super) fn show(&self, bytes: &[u8]) {
        {
            let mut outbox = self.lock();
            if outbox.behind || outbox.end.is_some() {
                return;
            }
            if outbox.bytes.len() + bytes.len() > GUEST_BEHIND {
                outbox.bytes = BytesMut::new();
                (outbox.behind, outbox.asked) = (true, false);
            } else {
                outbox.bytes.extend_from_slice(bytes);
            }
        }
        self.wake.notify_one();
    }

    /// This draws all of it anew.
    pub(super) fn draw(&self, drawn: &[u8]) {
        {
            let mut outbox = self.lock();
            if outbox.end.is_some() {
                return;
            }
            // Ends whatever was under way where they fell behind (ECMA-48, 8.3.6).
            outbox.bytes = BytesMut::from(&b"\x18"[..]);
            outbox.bytes.extend_from_slice(drawn);
            (outbox.behind, outbox.asked) = (false, false);
        }
        self.wake.notify_one();
    }

    /// It ends, after what waits; the first reason counts.
    pub(super) fn end(&self, why: &str) {
        self.lock().end.get_or_insert_with(|| why.to_owned());
        self.wake.notify_one();
        self.ended.notify_one();
    }

    fn take(&self) -> Option<Next> {
        let mut outbox = self.lock();
        if !outbox.bytes.is_empty() {
            let length = outbox.bytes.len().min(FRAME_MAX);
            return Some(Next::Bytes(outbox.bytes.split_to(length).freeze()));
        }
        if let Some(why) = &outbox.end {
            return Some(Next::End(why.clone()));
        }
        let draw = outbox.behind && !outbox.asked;
        outbox.asked |= draw;
        draw.then_some(Next::Draw)
    }

    /// Waits for what is to be done next. Cancelling loses nothing but a request to be drawn.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    /// Waits until it ends.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Option<Next> {
        Some(Next::Bytes(Bytes::copy_from_slice(text)))
    }

    #[test]
    fn who_takes_too_little_is_skipped_and_drawn_anew_when_they_take_again() {
        let link = Link::new();
        link.show(b"before they were drawn");
        assert_eq!(link.take(), None);
        link.draw(b"screen");
        link.show(b"more");
        assert_eq!(link.take(), bytes(b"\x18screenmore"));
        let piece = vec![b'x'; GUEST_BEHIND / 4];
        for _ in 0..100 {
            link.show(&piece);
            assert!(link.lock().bytes.len() <= GUEST_BEHIND);
        }
        assert_eq!(link.take(), Some(Next::Draw), "what waited is gone");
        assert_eq!(link.take(), None, "they ask once");
        link.draw(b"now");
        assert_eq!(link.take(), bytes(b"\x18now"));
    }

    #[test]
    fn the_end_comes_after_what_waits_and_nothing_after_it() {
        let link = Link::new();
        link.draw(b"screen");
        link.end("first");
        link.end("second");
        link.show(b"late");
        assert_eq!(link.take(), bytes(b"\x18screen"));
        assert_eq!(link.take(), Some(Next::End("first".into())));
    }
}
