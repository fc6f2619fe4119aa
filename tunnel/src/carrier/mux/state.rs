//! The streams of one fallback carrier: what may be sent, what has come, what is due.
//!
//! Pure: no clock, no socket, no task. `handle_message` takes what the peer sent, `poll_message`
//! gives what is to be sent next, and the halves of streams change it in between. Why not one of
//! the public multiplexers: none keeps the code of a reset, ends one direction and not the other,
//! lets a reader stop a writer, or lets a stranger have less than a known peer.
//!
//! Its law: everything a peer can make it hold is bounded by the streams it may open and their
//! windows; whatever goes past a bound ends the carrier.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::super::quic::{STRANGER_STREAMS, STRANGER_WINDOW, STREAM_WINDOW};
use super::super::stream::{ResetCode, Side};
use super::End;
use super::frame::{DATA_HEAD, Frame, HEAD, MAX_REASON};
use super::stream::{Receiving, Sending, Stream, Waiting};

/// Longest message sent, in bytes. Half of what is taken: what is typed waits for one message and
/// for a turn of each other stream at most.
const MESSAGE: usize = 32 * 1024;

/// Bytes a stream sends before the next has its turn.
const TURN: usize = 16 * 1024;

/// Bytes a peer may let us send on one stream: more is no window but a mistake.
const MAX_CREDIT: u32 = 1 << 30;

/// The longest frame without data is a goodbye, which is alone in its message; of the others, a
/// reset.
const CONTROL_FRAME: usize = HEAD + 4;

/// The state.
#[derive(Debug)]
pub(super) struct State {
    side: Side,
    pub(super) streams: BTreeMap<u32, Box<Stream>>,
    /// Streams opened by this end so far, and how many the peer lets it open in all.
    opened: u32,
    openable: u32,
    /// Streams opened by the peer so far; how many it may, as it was told; how many have ended;
    /// and how many may be there at once.
    seen: u32,
    seeable: u32,
    ended: u32,
    at_once: u32,
    tell_seeable: bool,
    /// Opened by the peer and not accepted yet.
    accept: VecDeque<u32>,
    pub(super) accept_waiting: Waiting,
    pub(super) open_waiting: Waiting,
    pub(super) end_waiting: Waiting,
    /// Streams with something due, and those with something to send.
    due: VecDeque<u32>,
    row: VecDeque<u32>,
    /// Bytes that may come before the peer is admitted; none afterwards.
    stranger_may: Option<usize>,
    /// This end's goodbye, not sent yet.
    goodbye: Option<(ResetCode, String)>,
    pub(super) end: Option<End>,
    /// Whoever moves the messages.
    pub(super) mover: Option<Waker>,
}

impl State {
    /// `at_once`: streams the peer may have open at once. `stranger`: whether it must be admitted
    /// first.
    pub(super) fn new(side: Side, at_once: u32, stranger: bool) -> Self {
        // What each side may open before it hears of it: a dialler as much as a stranger may.
        let (openable, seeable) = match side {
            Side::Dialler => (STRANGER_STREAMS, 0),
            Side::Acceptor => (0, STRANGER_STREAMS),
        };
        let mut state = Self {
            side,
            streams: BTreeMap::new(),
            opened: 0,
            openable,
            seen: 0,
            seeable,
            ended: 0,
            at_once: 0,
            tell_seeable: false,
            accept: VecDeque::new(),
            accept_waiting: Waiting::default(),
            open_waiting: Waiting::default(),
            end_waiting: Waiting::default(),
            due: VecDeque::new(),
            row: VecDeque::new(),
            stranger_may: stranger.then_some(STRANGER_WINDOW as usize),
            goodbye: None,
            end: None,
            mover: None,
        };
        state.allow(at_once);
        state
    }

    /// Wakes whoever moves messages.
    pub(super) fn move_on(&mut self) {
        if let Some(mover) = self.mover.take() {
            mover.wake();
        }
    }

    // What the halves and the carrier ask.

    /// The peer is known: it may have this many streams at once, and their windows are the bound.
    pub(super) fn admit(&mut self, at_once: u32) {
        self.stranger_may = None;
        self.allow(at_once);
        self.move_on();
    }

    fn allow(&mut self, at_once: u32) {
        self.at_once = self.at_once.max(at_once);
        let seeable = self.ended.saturating_add(self.at_once);
        if seeable > self.seeable {
            self.seeable = seeable;
            self.tell_seeable = true;
        }
    }

    /// Opens a stream, when the peer lets it.
    pub(super) fn open(&mut self) -> Option<u32> {
        if self.opened >= self.openable || self.opened > u32::MAX / 2 {
            return None;
        }
        let id = self.opened << 1 | self.own_bit();
        self.opened += 1;
        self.streams.insert(id, Box::new(Stream::new()));
        Some(id)
    }

    /// The next stream of the peer's.
    pub(super) fn accept(&mut self) -> Option<u32> {
        self.accept.pop_front()
    }

    /// Takes a piece to send. The caller has looked that the stream takes it.
    pub(super) fn push(&mut self, id: u32, piece: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !piece.is_empty() {
            stream.out_length += piece.len();
            stream.out.push_back(piece);
            self.line_up(id);
        }
    }

    /// Ends the sending direction cleanly.
    pub(super) fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.sending == Sending::Open {
            stream.sending = Sending::Finishing;
            self.line_up(id);
        }
    }

    /// Gives the sending direction up, unless it has ended.
    pub(super) fn reset(&mut self, id: u32, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.sending {
            Sending::Open | Sending::Finishing | Sending::Finished => {
                stream.end_sending(Sending::Reset);
                stream.due.reset = Some(code);
                self.line_up_due(id);
            }
            Sending::Taken | Sending::Reset | Sending::Stopped(_) => {}
        }
    }

    /// Reads no more, unless it has ended.
    pub(super) fn stop(&mut self, id: u32, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.inbox.clear();
        match stream.receiving {
            Receiving::Open => {
                stream.receiving = Receiving::Stopped;
                stream.due.stop = Some(code);
                stream.due.credit = 0;
                self.line_up_due(id);
            }
            Receiving::Ended => stream.receiving = Receiving::StoppedAndEnded,
            Receiving::Reset(_) | Receiving::Stopped | Receiving::StoppedAndEnded => {}
        }
    }

    /// Takes up to `most` bytes that have come.
    pub(super) fn take(&mut self, id: u32, most: usize) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        let piece = stream.inbox.pop(most)?;
        stream.have_read(piece.len(), STREAM_WINDOW);
        if stream.due.credit > 0 {
            self.line_up_due(id);
        }
        Some(piece)
    }

    /// A half was dropped; its end has been said by then.
    pub(super) fn let_go(&mut self, id: u32, half: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.get_mut(&id) {
            half(stream);
            self.forget_if_done(id);
        }
    }

    /// Ends the carrier with a word to the peer.
    pub(super) fn close(&mut self, code: ResetCode, reason: &str) {
        if self.end.is_none() {
            let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or_default();
            self.goodbye = Some((code, reason.to_owned()));
            self.finish_with(End::Local);
        }
    }

    /// The carrier has ended; a peer that broke the protocol is told so.
    pub(super) fn fail(&mut self, end: End) {
        if self.end.is_none()
            && let End::Protocol(what) = end
        {
            self.goodbye = Some((ResetCode::PROTOCOL, what.to_owned()));
        }
        self.finish_with(end);
    }

    /// Whether a last word is still to be sent.
    pub(super) const fn has_word(&self) -> bool {
        self.goodbye.is_some()
    }

    /// The carrier has ended.
    pub(super) fn finish_with(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        for stream in self.streams.values_mut() {
            stream.wake_all();
        }
        self.streams.clear();
        self.due.clear();
        self.row.clear();
        self.accept.clear();
        self.accept_waiting.wake();
        self.open_waiting.wake();
        self.end_waiting.wake();
        self.move_on();
    }

    // What the mover of messages asks.

    /// Whether more may be read from the peer now.
    pub(super) const fn may_receive(&self) -> bool {
        !matches!(self.stranger_may, Some(0))
    }

    /// Takes a message of the peer's. An error ends the carrier.
    pub(super) fn handle_message(&mut self, message: &[u8]) -> Result<(), &'static str> {
        if let Some(may) = &mut self.stranger_may {
            *may = may.saturating_sub(message.len());
        }
        let mut rest = message;
        while let Some(frame) =
            Frame::decode(&mut rest).map_err(|_| "a message is no row of frames")?
        {
            self.handle(&frame)?;
            if self.end.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn handle(&mut self, frame: &Frame<'_>) -> Result<(), &'static str> {
        match *frame {
            Frame::Data(id, data) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                stream.allowed =
                    stream.allowed.checked_sub(length).ok_or("more than a stream's window")?;
                match stream.receiving {
                    Receiving::Open => {
                        stream.inbox.push(data);
                        stream.recv_waiting.wake();
                    }
                    Receiving::Stopped => {}
                    Receiving::Ended | Receiving::Reset(_) | Receiving::StoppedAndEnded => {
                        return Err("data behind a stream's end");
                    }
                }
            }
            Frame::Fin(id) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                stream.receiving = match stream.receiving {
                    Receiving::Open => Receiving::Ended,
                    Receiving::Stopped => Receiving::StoppedAndEnded,
                    Receiving::Ended | Receiving::Reset(_) | Receiving::StoppedAndEnded => {
                        return Err("a stream ended twice");
                    }
                };
                stream.due.taken = true;
                stream.due.credit = 0;
                stream.recv_waiting.wake();
                self.line_up_due(id);
            }
            Frame::Reset(id, code) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                stream.receiving = match stream.receiving {
                    // RFC 9000 §3.2: what has come may be dropped, and whoever reads hears of it.
                    Receiving::Open | Receiving::Ended => Receiving::Reset(code),
                    Receiving::Stopped | Receiving::StoppedAndEnded => Receiving::StoppedAndEnded,
                    Receiving::Reset(_) => return Err("a stream was reset twice"),
                };
                stream.inbox.clear();
                stream.due.credit = 0;
                stream.due.taken = false;
                stream.recv_waiting.wake();
                self.forget_if_done(id);
            }
            Frame::Stop(id, code) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                match stream.sending {
                    Sending::Open | Sending::Finishing => {
                        stream.end_sending(Sending::Stopped(code));
                        stream.due.reset = Some(code);
                        self.line_up_due(id);
                    }
                    // The peer has our last word, or will have.
                    Sending::Finished => {
                        stream.end_sending(Sending::Stopped(code));
                        self.forget_if_done(id);
                    }
                    Sending::Taken | Sending::Reset | Sending::Stopped(_) => {}
                }
            }
            Frame::Credit(id, more) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                stream.credit = stream
                    .credit
                    .checked_add(more)
                    .filter(|credit| *credit <= MAX_CREDIT)
                    .ok_or("a window without bounds")?;
                self.line_up(id);
            }
            Frame::Taken(id) => {
                let Some(stream) = self.of_peer(id)? else { return Ok(()) };
                if stream.sending == Sending::Finished {
                    stream.end_sending(Sending::Taken);
                    self.forget_if_done(id);
                }
            }
            Frame::Streams(count) => {
                if count > self.openable {
                    self.openable = count;
                    self.open_waiting.wake();
                }
            }
            Frame::Close(code, reason) => {
                let reason = reason.get(..reason.len().min(MAX_REASON)).unwrap_or_default();
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.finish_with(End::Peer(code, reason));
            }
        }
        Ok(())
    }

    /// The stream a frame is about; `None` for one that has ended, of which frames may still have
    /// been under way.
    fn of_peer(&mut self, id: u32) -> Result<Option<&mut Stream>, &'static str> {
        let index = id >> 1;
        if id & 1 == self.own_bit() {
            if index >= self.opened {
                return Err("a stream that was never opened");
            }
        } else if index >= self.seeable {
            return Err("more streams than were allowed");
        } else {
            // A stream's number opens those below it too (RFC 9000 §2.1): they may come late.
            while self.seen <= index {
                let new = self.seen << 1 | (id & 1);
                self.seen += 1;
                self.streams.insert(new, Box::new(Stream::new()));
                self.accept.push_back(new);
                self.accept_waiting.wake();
            }
        }
        Ok(self.streams.get_mut(&id).map(Box::as_mut))
    }

    /// The next message to send.
    pub(super) fn poll_message(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        if let Some((code, reason)) = self.goodbye.take() {
            Frame::Close(code, reason.as_bytes()).encode(&mut out);
            return Some(out.freeze());
        }
        if self.end.is_some() {
            return None;
        }
        if std::mem::take(&mut self.tell_seeable) {
            Frame::Streams(self.seeable).encode(&mut out);
        }
        while out.len() + 4 * CONTROL_FRAME <= MESSAGE
            && let Some(id) = self.due.pop_front()
        {
            self.write_due(id, &mut out);
        }
        while MESSAGE - out.len() > DATA_HEAD + HEAD
            && let Some(id) = self.next_in_row()
        {
            self.write_data(id, &mut out);
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn write_due(&mut self, id: u32, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.due_in_row = false;
        let due = std::mem::take(&mut stream.due);
        if let Some(code) = due.reset {
            Frame::Reset(id, code).encode(out);
        }
        if let Some(code) = due.stop {
            Frame::Stop(id, code).encode(out);
        }
        if due.credit > 0 {
            Frame::Credit(id, due.credit).encode(out);
        }
        if due.taken {
            Frame::Taken(id).encode(out);
        }
        self.forget_if_done(id);
    }

    fn write_data(&mut self, id: u32, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        // Room for the end behind it.
        let mut turn = TURN.min(MESSAGE - out.len() - HEAD);
        while turn > DATA_HEAD
            && let Some(piece) = stream.take_out(turn - DATA_HEAD)
        {
            turn -= piece.len() + DATA_HEAD;
            if out.capacity() == 0 && stream.out_length > 0 {
                out.reserve(MESSAGE);
            }
            Frame::Data(id, &piece).encode(out);
        }
        if stream.sending == Sending::Finishing && stream.out.is_empty() {
            Frame::Fin(id).encode(out);
            stream.sending = Sending::Finished;
        }
        self.line_up(id);
    }

    /// Takes the first in the row.
    fn next_in_row(&mut self) -> Option<u32> {
        loop {
            let id = self.row.pop_front()?;
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.in_row = false;
                return Some(id);
            }
        }
    }

    fn line_up(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.in_row && stream.can_send() {
            stream.in_row = true;
            self.row.push_back(id);
            self.move_on();
        }
    }

    fn line_up_due(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.due_in_row {
            stream.due_in_row = true;
            self.due.push_back(id);
            self.move_on();
        }
    }

    fn forget_if_done(&mut self, id: u32) {
        if !self.streams.get(&id).is_some_and(|stream| stream.is_done()) {
            return;
        }
        if let Some(stream) = self.streams.remove(&id)
            && stream.in_row
        {
            self.row.retain(|other| *other != id);
        }
        if id & 1 != self.own_bit() {
            self.ended = self.ended.saturating_add(1);
            let before = self.seeable;
            self.allow(self.at_once);
            if self.seeable != before {
                self.move_on();
            }
        }
    }

    const fn own_bit(&self) -> u32 {
        match self.side {
            Side::Dialler => 0,
            Side::Acceptor => 1,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
