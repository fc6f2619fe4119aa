//! What one end of a resumable stream does with the bytes of an attachment.
//!
//! Its law: START comes first and once; each frame's header is checked before its payload is
//! touched; nothing waits for a whole payload.

use std::time::Duration;

use bytes::{Buf as _, Bytes};

use super::frame::{Frame, MAX_HEADER, Start};
use super::state::Resume;
use super::{LEAST_BUFFER, Violation};

/// An acknowledgement waits at most for this many bytes …
const ACK_BYTES: u64 = 256 * 1024;

/// … or this long. An answer to a keystroke mostly carries it before that.
const ACK_DELAY: Duration = Duration::from_millis(20);

impl Resume {
    /// Reads frames until the bytes end.
    pub(super) fn read(&mut self, bytes: &mut Bytes, now: Duration) -> Result<(), Violation> {
        loop {
            if self.inbox.expects() > 0 {
                self.inbox.handle_payload(bytes);
                self.note_received(now);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let Some(frame) = self.take_header(bytes)? else { return Ok(()) };
            self.handle_frame(frame, now)?;
        }
    }

    /// The next header, from what was left of the last bytes and from these.
    fn take_header(&mut self, bytes: &mut Bytes) -> Result<Option<Frame>, Violation> {
        if self.header.is_empty() {
            if let Some((frame, length)) = Frame::take(bytes)? {
                bytes.advance(length);
                return Ok(Some(frame));
            }
            self.header.extend_from_slice(bytes);
            bytes.clear();
            return Ok(None);
        }
        let before = self.header.len();
        let (now, _) = bytes.split_at(bytes.len().min(MAX_HEADER - before));
        self.header.extend_from_slice(now);
        match Frame::take(&self.header)? {
            Some((frame, length)) => {
                bytes.advance(length - before);
                self.header.clear();
                Ok(Some(frame))
            }
            None => {
                bytes.clear();
                Ok(None)
            }
        }
    }

    fn handle_frame(&mut self, frame: Frame, now: Duration) -> Result<(), Violation> {
        match frame {
            Frame::Start(_) if self.start_heard => return Err(Violation::SecondStart),
            Frame::Start(start) => return self.handle_start(start, now),
            Frame::Data { .. }
            | Frame::Ack { .. }
            | Frame::Fin { .. }
            | Frame::Reset(_)
            | Frame::Confirm
            | Frame::Ping(_)
            | Frame::Pong(_)
                if !self.start_heard =>
            {
                return Err(Violation::NoStart);
            }
            Frame::Data { offset, length } => self.inbox.handle_data(offset, length)?,
            Frame::Ack { received, limit } => {
                if !self.is_reset() {
                    self.replay.handle_ack(received, limit)?;
                    self.note_acknowledged(now);
                }
            }
            Frame::Fin { offset } => {
                self.inbox.handle_end(offset)?;
                self.ack_due = !self.is_reset();
            }
            Frame::Reset(code) => {
                self.confirm_due = true;
                if self.peer_reset.is_none() && !self.closed {
                    self.peer_reset = Some(code);
                    self.drop_both();
                }
            }
            Frame::Confirm => {
                if self.reset.is_none() {
                    return Err(Violation::UnaskedConfirmation);
                }
                self.reset_confirmed = true;
            }
            Frame::Ping(number) => self.pong_due = Some(number),
            Frame::Pong(number) => self.silence.handle_pong(number, now),
        }
        Ok(())
    }

    fn handle_start(&mut self, start: Start, now: Duration) -> Result<(), Violation> {
        self.start_heard = true;
        self.ack_every = ACK_BYTES.min(start.replay.max(LEAST_BUFFER as u64) / 4);
        if self.is_reset() {
            // The other end was closed before it heard of the reset, and it will not confirm.
            self.reset_confirmed |= self.inbox.is_ended() && self.replay.ends_at(start.received);
            return Ok(());
        }
        self.replay.handle_start(start.received, start.limit)?;
        self.note_acknowledged(now);
        if !self.open {
            self.replay.rewind();
            self.open = true;
        }
        Ok(())
    }

    fn note_received(&mut self, now: Duration) {
        let untold = self.inbox.untold();
        if untold == 0 || self.is_reset() {
            return;
        }
        if untold >= self.ack_every {
            self.ack_due = true;
        } else if self.ack_at.is_none() && !self.ack_due {
            self.ack_at = Some(now.saturating_add(ACK_DELAY));
        }
    }
}
