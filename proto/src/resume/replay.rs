//! What this end sends: kept until the other end has it, sent again from where an attachment
//! broke.
//!
//! Its law: `acknowledged <= next <= sent`, what lies between `acknowledged` and `written` is held,
//! and that is never more than the limit. The end of the stream takes one offset after the last
//! byte, so it is acknowledged and sent again like a byte.

use bytes::{Bytes, BytesMut};

use super::pieces::{Cursor, Pieces};
use super::{FIRST_LIMIT, Violation, varint};

/// Frames with less than this are copied behind their header: one piece to write instead of two.
const MERGE: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Replay {
    limit: usize,
    /// Less than the limit while there is a line.
    ahead: usize,
    /// The application had more than there was room for.
    waited: bool,
    held: Pieces,
    acknowledged: u64,
    written: u64,
    finished: bool,
    given_up: bool,
    /// Next to send on this attachment, and where that is in `held`.
    next: u64,
    cursor: Cursor,
    /// The furthest that was ever sent.
    sent: u64,
    /// How far the other end takes bytes.
    allowed: u64,
}

impl Replay {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ahead: usize::MAX,
            waited: false,
            held: Pieces::default(),
            acknowledged: 0,
            written: 0,
            finished: false,
            given_up: false,
            next: 0,
            cursor: Cursor::default(),
            sent: 0,
            allowed: FIRST_LIMIT,
        }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Raises the limit. It never falls: what is held is held.
    pub(super) fn hold(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// Bytes that may be pushed now.
    pub(super) fn room(&self) -> usize {
        let left = usize::try_from(varint::MAX - 1 - self.written).unwrap_or(usize::MAX);
        if self.finished || self.given_up {
            0
        } else {
            self.limit.min(self.ahead).saturating_sub(self.held.len()).min(left)
        }
    }

    /// How much is held from now on, if the limit is not less. What is held already stays.
    pub(super) const fn take_ahead(&mut self, most: usize) {
        self.ahead = most;
    }

    /// Whether there was more than there was room for since this was asked last.
    pub(super) const fn take_waited(&mut self) -> bool {
        std::mem::replace(&mut self.waited, false)
    }

    /// Takes what there is room for from the front of `bytes`.
    pub(super) fn push(&mut self, bytes: &mut Bytes) {
        let piece = bytes.split_to(bytes.len().min(self.room()));
        self.waited |= !bytes.is_empty();
        self.written += piece.len() as u64;
        self.held.push(piece);
    }

    /// Copies what there is room for; how much that was.
    pub(super) fn push_slice(&mut self, bytes: &[u8]) -> usize {
        let (now, rest) = bytes.split_at(bytes.len().min(self.room()));
        self.waited |= !rest.is_empty();
        self.written += now.len() as u64;
        self.held.push_slice(now);
        now.len()
    }

    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether an end that has `received` has everything, the end included.
    pub(super) const fn ends_at(&self, received: u64) -> bool {
        self.finished && received == self.end()
    }

    /// Whether the other end has everything, the end included.
    pub(super) const fn is_done(&self) -> bool {
        self.ends_at(self.acknowledged)
    }

    /// Whether something sent, or that could be sent now, has no answer yet.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_waiting() && (self.acknowledged < self.next || self.offer() > 0)
    }

    /// Whether anything is here that the other end is not known to have.
    pub(super) const fn is_waiting(&self) -> bool {
        !self.given_up && self.acknowledged < self.end()
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes held for the other end.
    pub(super) const fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The other end begins an attachment by saying what it has.
    pub(super) fn handle_start(&mut self, received: u64, limit: u64) -> Result<(), Violation> {
        if received < self.acknowledged {
            let acknowledged = self.acknowledged;
            return Err(Violation::LostState { has: received, acknowledged });
        }
        if received > self.sent {
            let sent = self.sent;
            return Err(Violation::AcknowledgedUnsent { acknowledged: received, sent });
        }
        self.allow(limit)?;
        if received > self.next {
            self.next = received;
        }
        self.forget(received);
        Ok(())
    }

    /// Sends again from what the other end said it has.
    pub(super) fn rewind(&mut self) {
        self.next = self.acknowledged;
        self.cursor = Cursor::default();
    }

    pub(super) fn handle_ack(&mut self, received: u64, limit: u64) -> Result<(), Violation> {
        if received < self.acknowledged {
            let from = self.acknowledged;
            return Err(Violation::AcknowledgementWentBack { from, to: received });
        }
        if received > self.next {
            let sent = self.next;
            return Err(Violation::AcknowledgedUnsent { acknowledged: received, sent });
        }
        self.allow(limit)?;
        self.forget(received);
        Ok(())
    }

    /// How many bytes can be sent now.
    pub(super) fn offer(&self) -> usize {
        if self.given_up {
            return 0;
        }
        let end = self.written.min(self.allowed);
        usize::try_from(end.saturating_sub(self.next)).unwrap_or(usize::MAX)
    }

    /// The offset of what [`Replay::take`] sends next.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Sends `length` bytes of the offer: behind their header in `head`, or as pieces of their own
    /// after it.
    pub(super) fn take(&mut self, length: usize, head: &mut BytesMut, out: &mut Vec<Bytes>) {
        if length < MERGE {
            self.held.copy(&mut self.cursor, length, head);
        } else {
            out.push(head.split().freeze());
            self.held.share(&mut self.cursor, length, out);
        }
        self.next += length as u64;
        self.sent = self.sent.max(self.next);
    }

    /// The final offset, once, when everything before it has been sent.
    pub(super) fn take_end(&mut self) -> Option<u64> {
        if !self.finished || self.given_up || self.next != self.written {
            return None;
        }
        self.next += 1;
        self.sent = self.sent.max(self.next);
        Some(self.written)
    }

    /// Gives up what is held: nothing more is taken, sent or waited for.
    pub(super) fn give_up(&mut self) {
        self.held.clear();
        self.given_up = true;
    }

    const fn end(&self) -> u64 {
        self.written + self.finished as u64
    }

    const fn allow(&mut self, limit: u64) -> Result<(), Violation> {
        if limit < self.allowed {
            return Err(Violation::LimitWentBack { from: self.allowed, to: limit });
        }
        self.allowed = limit;
        Ok(())
    }

    fn forget(&mut self, received: u64) {
        let bytes = received.min(self.written).saturating_sub(self.acknowledged);
        self.acknowledged = received;
        let gone = self.held.forget(usize::try_from(bytes).unwrap_or(usize::MAX));
        let in_front = self.next.min(self.written).saturating_sub(received);
        self.cursor = if self.cursor.piece > gone {
            Cursor { piece: self.cursor.piece - gone, within: self.cursor.within }
        } else {
            self.held.find(usize::try_from(in_front).unwrap_or(usize::MAX))
        };
    }
}
