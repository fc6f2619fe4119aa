//! What one end knows of one stream: two directions that live and end by themselves.
//!
//! A stream is forgotten when both directions have ended on the wire and both halves are dropped.
//! Nothing here waits or wakes on its own; `mux` does, after each change.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::super::stream::ResetCode;
use super::inbox::Inbox;

/// What a peer may send on a new stream before it hears more.
pub(super) const FIRST_WINDOW: u32 = 256 * 1024;

/// Bytes of one stream that wait here for the peer's window and the network.
pub(super) const OUT_BUFFER: usize = 256 * 1024;

/// Everybody who waits for the same change.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Waker>);

impl Waiting {
    pub(super) fn add(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    pub(super) fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Where the sending direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// More may come.
    Open,
    /// All is here, its end not sent yet.
    Finishing,
    /// The end is sent.
    Finished,
    /// The peer has it all.
    Taken,
    /// Given up by this end.
    Reset,
    /// The peer will not read it.
    Stopped(ResetCode),
}

/// Where the receiving direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    /// More may come.
    Open,
    /// All has come, its end included.
    Ended,
    /// The peer gave it up.
    Reset(ResetCode),
    /// This end will not read it; the peer's last word is still to come.
    Stopped,
    /// And has come.
    StoppedAndEnded,
}

/// Frames about a stream that are due. Each is a state, not a queue: there is at most one of each.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) credit: u32,
    pub(super) stop: Option<ResetCode>,
    pub(super) reset: Option<ResetCode>,
    pub(super) taken: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sending: Sending,
    pub(super) out: VecDeque<Bytes>,
    pub(super) out_length: usize,
    /// Bytes the peer will still take.
    pub(super) credit: u32,
    /// Whether it stands in the row of those with something to send.
    pub(super) in_row: bool,
    pub(super) send_held: bool,
    pub(super) send_waiting: Waiting,
    pub(super) stop_waiting: Waiting,

    pub(super) receiving: Receiving,
    pub(super) inbox: Inbox,
    /// Bytes the peer may still send.
    pub(super) allowed: u32,
    /// Bytes the peer may have under way at once.
    window: u32,
    /// Bytes read that the peer was not told of.
    read: u32,
    pub(super) recv_held: bool,
    pub(super) recv_waiting: Waiting,

    pub(super) due: Due,
    /// Whether it stands in the row of those with something due.
    pub(super) due_in_row: bool,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            sending: Sending::Open,
            out: VecDeque::new(),
            out_length: 0,
            credit: FIRST_WINDOW,
            in_row: false,
            send_held: true,
            send_waiting: Waiting::default(),
            stop_waiting: Waiting::default(),
            receiving: Receiving::Open,
            inbox: Inbox::default(),
            allowed: FIRST_WINDOW,
            window: FIRST_WINDOW,
            read: 0,
            recv_held: true,
            recv_waiting: Waiting::default(),
            due: Due::default(),
            due_in_row: false,
        }
    }

    /// Whether there is something to send now: data within the peer's window, or the end.
    pub(super) fn can_send(&self) -> bool {
        match self.sending {
            Sending::Open => !self.out.is_empty() && self.credit > 0,
            Sending::Finishing => self.out.is_empty() || self.credit > 0,
            Sending::Finished | Sending::Taken | Sending::Reset | Sending::Stopped(_) => false,
        }
    }

    /// Takes up to `most` bytes to send.
    pub(super) fn take_out(&mut self, most: usize) -> Option<Bytes> {
        let most = most.min(usize::try_from(self.credit).unwrap_or(usize::MAX));
        let first = self.out.front_mut()?;
        if most == 0 {
            return None;
        }
        let piece = if first.len() > most {
            first.split_to(most)
        } else {
            self.out.pop_front().unwrap_or_default()
        };
        self.out_length -= piece.len();
        self.credit -= u32::try_from(piece.len()).unwrap_or(self.credit);
        if self.out_length < OUT_BUFFER {
            self.send_waiting.wake();
        }
        Some(piece)
    }

    /// Forgets what was to be sent and wakes whoever waits for that direction.
    pub(super) fn end_sending(&mut self, how: Sending) {
        self.sending = how;
        self.out.clear();
        self.out_length = 0;
        self.send_waiting.wake();
        self.stop_waiting.wake();
    }

    /// Bytes were read: when half a window has been, the peer is told. A reader that had emptied
    /// the inbox waits for the network and not the network for it, so its window grows.
    pub(super) fn have_read(&mut self, bytes: usize, most: u32) {
        if self.receiving != Receiving::Open {
            return;
        }
        self.read = self.read.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.read < self.window / 2 {
            return;
        }
        let mut more = self.read;
        if self.inbox.length() == 0 && self.window < most {
            let grown = self.window.saturating_mul(2).min(most);
            more += grown - self.window;
            self.window = grown;
        }
        self.read = 0;
        self.allowed += more;
        self.due.credit += more;
    }

    /// Nothing more of it can come or go on the wire.
    const fn is_over(&self) -> bool {
        let sent = match self.sending {
            Sending::Open | Sending::Finishing | Sending::Finished => false,
            Sending::Taken | Sending::Reset | Sending::Stopped(_) => self.due.reset.is_none(),
        };
        let received = match self.receiving {
            Receiving::Open | Receiving::Stopped => false,
            Receiving::Ended | Receiving::Reset(_) | Receiving::StoppedAndEnded => {
                !self.due.taken && self.due.stop.is_none()
            }
        };
        sent && received
    }

    /// Whether it can be forgotten.
    pub(super) const fn is_done(&self) -> bool {
        self.is_over() && !self.send_held && !self.recv_held
    }

    /// Wakes everybody: the carrier is gone.
    pub(super) fn wake_all(&mut self) {
        self.send_waiting.wake();
        self.stop_waiting.wake();
        self.recv_waiting.wake();
    }
}
