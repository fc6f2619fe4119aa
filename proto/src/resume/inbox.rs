//! What this end receives: in order, once, and kept until the application takes it.
//!
//! Its law: nothing is kept twice, nothing after a gap, nothing beyond the room that was told. Room
//! is `taken by the application + window`, so the queue never holds more than the window and the
//! attachment can always be read: a slow reader stops the other end's writer, not its
//! acknowledgements.

use bytes::Bytes;

use super::pieces::Pieces;
use super::{FIRST_LIMIT, Violation};

#[derive(Debug)]
pub(super) struct Inbox {
    window: u64,
    kept: Pieces,
    /// Bytes received, in order.
    received: u64,
    ended: bool,
    /// Bytes the application has taken.
    taken: u64,
    /// What the other end was last told: offset received, end included, and room.
    told: u64,
    told_limit: u64,
    /// Of the DATA frame under way: bytes we have already, then bytes that are new.
    repeated: usize,
    fresh: usize,
    discard: bool,
}

impl Inbox {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window: window as u64,
            kept: Pieces::default(),
            received: 0,
            ended: false,
            taken: 0,
            told: 0,
            told_limit: FIRST_LIMIT,
            repeated: 0,
            fresh: 0,
            discard: false,
        }
    }

    /// Raises the window. It never falls: room that was told stays told.
    pub(super) fn hold(&mut self, window: usize) {
        self.window = self.window.max(window as u64);
    }

    /// A new attachment: the frame that was under way on the last one will not be completed.
    pub(super) const fn handle_attached(&mut self) {
        self.repeated = 0;
        self.fresh = 0;
    }

    /// The header of a DATA frame.
    pub(super) fn handle_data(&mut self, offset: u64, length: usize) -> Result<(), Violation> {
        let end = offset + length as u64;
        if offset > self.received {
            return Err(Violation::Gap { expected: self.received, got: offset });
        }
        if self.ended && end > self.received {
            return Err(Violation::AfterEnd { end: self.received, got: end });
        }
        if end > self.told_limit {
            return Err(Violation::BeyondLimit { end, limit: self.told_limit });
        }
        let before = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
        self.repeated = before.min(length);
        self.fresh = length - self.repeated;
        Ok(())
    }

    /// Payload of the frame under way that has not come yet.
    pub(super) const fn expects(&self) -> usize {
        self.repeated + self.fresh
    }

    /// Takes payload from the front of `bytes`; what follows the frame stays.
    pub(super) fn handle_payload(&mut self, bytes: &mut Bytes) {
        let repeated = bytes.split_to(self.repeated.min(bytes.len()));
        self.repeated -= repeated.len();
        let fresh = bytes.split_to(self.fresh.min(bytes.len()));
        self.fresh -= fresh.len();
        self.received += fresh.len() as u64;
        if self.discard {
            self.taken += fresh.len() as u64;
        } else if !fresh.is_empty() {
            self.kept.push(fresh);
        }
    }

    pub(super) const fn handle_end(&mut self, offset: u64) -> Result<(), Violation> {
        if offset > self.received {
            return Err(Violation::Gap { expected: self.received, got: offset });
        }
        if offset < self.received {
            return Err(Violation::AfterEnd { end: offset, got: self.received });
        }
        self.ended = true;
        Ok(())
    }

    /// The next bytes for the application.
    pub(super) fn pop(&mut self, most: usize) -> Option<Bytes> {
        let piece = self.kept.pop(most)?;
        self.taken += piece.len() as u64;
        Some(piece)
    }

    /// Nobody takes what is here or comes.
    pub(super) fn discard(&mut self) {
        self.taken = self.received;
        self.kept.clear();
        self.discard = true;
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn waiting(&self) -> usize {
        self.kept.len()
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Received and not yet acknowledged.
    pub(super) const fn untold(&self) -> u64 {
        self.offset() - self.told
    }

    /// Whether enough room came free that the other end should hear of it.
    pub(super) const fn has_news_of_room(&self) -> bool {
        !self.ended && self.limit().saturating_sub(self.told_limit) >= self.window / 4
    }

    /// What to tell the other end; it counts as told.
    pub(super) const fn tell(&mut self) -> (u64, u64) {
        self.told = self.offset();
        self.told_limit = self.limit();
        (self.told, self.told_limit)
    }

    const fn offset(&self) -> u64 {
        self.received + self.ended as u64
    }

    const fn limit(&self) -> u64 {
        let limit = self.taken + self.window;
        if limit > self.told_limit { limit } else { self.told_limit }
    }
}
