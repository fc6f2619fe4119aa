//! One end of a resumable stream: the order of things.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::ahead::Ahead;
use super::frame::{Frame, Start};
use super::inbox::Inbox;
use super::replay::Replay;
use super::silence::{Silence, Waiting};
use super::{LEAST_BUFFER, MAX_PAYLOAD, ResetCode, VERSION, Violation};

/// From this least round trip on an end holds twice as much: a satellite's line of 100 Mbit/s has
/// 8 MB under way.
const LONG_PATH: Duration = Duration::from_millis(300);

/// What one end may hold, in bytes. Either counts as [`LEAST_BUFFER`] when it is less, and as twice
/// as much on a path whose round trip is never below [`LONG_PATH`].
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Sent and not yet acknowledged, at most; a writer waits while it is full. Default 4 MiB: 40
    /// MB/s over a round trip of 100 ms. On a slower line less is taken in, about what it carries
    /// within 250 ms and two round trips; without any, all of it.
    pub replay: usize,
    /// Received and not yet taken by the application; the other end's writer waits while it is
    /// full. Default 4 MiB, for it bounds throughput like the replay buffer. Memory is used only
    /// while the application is slower than the line, at worst four times the bytes held.
    pub window: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { replay: 4 * 1024 * 1024, window: 4 * 1024 * 1024 }
    }
}

/// What the application gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The next bytes.
    Data(Bytes),
    /// The other end finished; there is no more.
    End,
    /// An end gave the stream up; what had not been taken is lost.
    Reset(ResetCode),
}

/// What the driver should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Nothing comes while an answer is due. The attachment may be dead: make another, and keep
    /// this one until then.
    Silent,
    /// Something came after all, here or on a new attachment.
    Heard,
    /// [`Resume::is_closed`] became true.
    Closed,
}

/// One end of a resumable stream.
///
/// Time is a `Duration` since any start of the caller's; it never goes back.
///
/// - **The application's side**, at any time, attached or not: [`Resume::handle_send`] as far as
///   there is [`Resume::room`], [`Resume::handle_finish`], [`Resume::handle_reset`],
///   [`Resume::poll_received`] until `None`.
/// - **The attachment's side**: [`Resume::handle_attached`], then [`Resume::handle_bytes`] with
///   what came, in any cuts, and [`Resume::handle_detached`] when it is gone. A new attachment may
///   simply replace the old one: call `handle_attached` again and feed no more of the old one's
///   bytes.
/// - **After any of them**: [`Resume::poll_transmit`] until it gives nothing, as the attachment has
///   room; [`Resume::poll_output`] until `None`; [`Resume::poll_timeout`], and at that time
///   [`Resume::handle_timeout`].
#[derive(Debug)]
pub struct Resume {
    config: Config,
    pub(super) replay: Replay,
    ahead: Ahead,
    pub(super) inbox: Inbox,
    pub(super) silence: Silence,
    attached: bool,
    attached_before: bool,
    /// Whether data may be sent on this attachment.
    pub(super) open: bool,
    start_due: bool,
    pub(super) start_heard: bool,
    /// After a violation nothing of the same attachment can be read any more.
    deaf: bool,
    /// The beginning of a header that was cut.
    pub(super) header: BytesMut,
    pub(super) ack_every: u64,
    pub(super) ack_at: Option<Duration>,
    pub(super) ack_due: bool,
    pub(super) pong_due: Option<u64>,
    pub(super) reset: Option<ResetCode>,
    reset_due: bool,
    pub(super) reset_confirmed: bool,
    pub(super) peer_reset: Option<ResetCode>,
    pub(super) confirm_due: bool,
    end_delivered: bool,
    hearing: Option<Output>,
    hearing_lost: bool,
    pub(super) closed: bool,
    closed_due: bool,
    /// Where headers and small frames are put together.
    head: BytesMut,
}

impl Resume {
    /// A stream nothing was sent on yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            replay: Replay::new(config.replay.max(LEAST_BUFFER)),
            ahead: Ahead::new(),
            inbox: Inbox::new(config.window.max(LEAST_BUFFER)),
            silence: Silence::new(),
            attached: false,
            attached_before: false,
            open: false,
            start_due: false,
            start_heard: false,
            deaf: false,
            header: BytesMut::new(),
            ack_every: LEAST_BUFFER as u64 / 4,
            ack_at: None,
            ack_due: false,
            pong_due: None,
            reset: None,
            reset_due: false,
            reset_confirmed: false,
            peer_reset: None,
            confirm_due: false,
            end_delivered: false,
            hearing: None,
            hearing_lost: false,
            closed: false,
            closed_due: false,
            head: BytesMut::new(),
        }
    }

    /// Bytes [`Resume::handle_send`] takes now. Nothing after the end or a reset.
    pub fn room(&self) -> usize {
        self.replay.room()
    }

    /// Sends from the front of `bytes` as much as there is room for. The rest stays in it.
    pub fn handle_send(&mut self, bytes: &mut Bytes) {
        self.replay.push(bytes);
    }

    /// Sends a copy of as much of `bytes` as there is room for; how much that was.
    pub fn handle_send_slice(&mut self, bytes: &[u8]) -> usize {
        self.replay.push_slice(bytes)
    }

    /// This direction ends after what was sent.
    pub const fn handle_finish(&mut self) {
        self.replay.finish();
    }

    /// Gives both directions up. What is under way is dropped at both ends, but what the other end
    /// had wholly sent and ended stays here for the application. Changes nothing once both
    /// directions have ended or a reset is known.
    pub fn handle_reset(&mut self, code: ResetCode) {
        if self.is_reset() || (self.replay.is_done() && self.inbox.is_ended()) {
            return;
        }
        self.reset = Some(code);
        self.reset_due = self.attached;
        self.drop_both();
    }

    /// What the application may have next. `None`: nothing yet, or nothing ever again.
    pub fn poll_received(&mut self) -> Option<Received> {
        self.poll_received_up_to(usize::MAX)
    }

    /// The same, with at most `most` bytes of data.
    pub fn poll_received_up_to(&mut self, most: usize) -> Option<Received> {
        if let Some(piece) = self.inbox.pop(most) {
            return Some(Received::Data(piece));
        }
        if self.end_delivered {
            return None;
        }
        let end = if self.inbox.is_ended() {
            Received::End
        } else {
            Received::Reset(self.peer_reset.or(self.reset)?)
        };
        self.end_delivered = true;
        Some(end)
    }

    /// Whether [`Resume::poll_received`] has something.
    pub const fn has_received(&self) -> bool {
        self.inbox.waiting() > 0
            || (!self.end_delivered && (self.inbox.is_ended() || self.is_reset()))
    }

    /// Whether the application took so much that the other end should hear of it.
    pub const fn has_news_of_room(&self) -> bool {
        self.inbox.has_news_of_room()
    }

    /// The application takes no more. What is here and what comes is dropped, and acknowledged so
    /// that the other end can finish.
    pub fn handle_reader_gone(&mut self) {
        self.inbox.discard();
        self.end_delivered = true;
    }

    /// There is a new attachment; it replaces any other.
    pub fn handle_attached(&mut self, now: Duration) {
        self.open = !self.attached_before;
        self.attached = true;
        self.attached_before = true;
        self.start_due = true;
        self.start_heard = false;
        self.deaf = false;
        self.header.clear();
        self.ack_at = None;
        self.ack_due = false;
        self.pong_due = None;
        self.reset_due = self.reset.is_some() && !self.reset_confirmed;
        // Our last word on it may have been lost, and once closed we end the attachment at once.
        self.confirm_due = self.peer_reset.is_some();
        self.inbox.handle_attached();
        self.silence.handle_attached(now);
        self.ahead.handle_attached();
        self.replay.take_ahead(self.ahead.most());
    }

    /// The other end said what it has.
    pub(super) fn note_acknowledged(&mut self, now: Duration) {
        let acknowledged = self.replay.acknowledged();
        self.silence.handle_acknowledged(acknowledged, now);
        if self.replay.take_waited() {
            self.ahead.handle_wait();
        }
        let least = self.silence.least_round_trip();
        self.ahead.handle_acknowledged((acknowledged, self.replay.held()), least, now);
        self.replay.take_ahead(self.ahead.most());
    }

    /// The attachment is gone.
    pub const fn handle_detached(&mut self) {
        self.attached = false;
        self.ack_at = None;
        self.replay.take_ahead(usize::MAX);
    }

    /// Bytes came on the attachment.
    ///
    /// # Errors
    /// What the other end did wrong. The stream is then reset with [`ResetCode::PROTOCOL`], which
    /// [`Resume::poll_transmit`] tells the other end.
    pub fn handle_bytes(&mut self, mut bytes: Bytes, now: Duration) -> Result<(), Violation> {
        if !self.attached || self.deaf || bytes.is_empty() {
            return Ok(());
        }
        self.silence.handle_heard(now);
        if std::mem::replace(&mut self.hearing_lost, false) {
            self.hearing = Some(Output::Heard);
        }
        let read = self.read(&mut bytes, now);
        if read.is_err() {
            self.deaf = true;
            self.handle_reset(ResetCode::PROTOCOL);
        }
        self.settle(now);
        read
    }

    /// What to write to the attachment now: pieces of about `budget` bytes in all, appended to
    /// `out`. They count as sent on this attachment. How many bytes they are.
    pub fn poll_transmit(&mut self, budget: usize, now: Duration, out: &mut Vec<Bytes>) -> usize {
        if !self.attached {
            return 0;
        }
        let (before, mut data) = (out.len(), 0);
        self.put_signals(now);
        if self.open && !self.is_reset() {
            loop {
                let length = self.replay.offer().min(MAX_PAYLOAD);
                if length == 0 || data >= budget {
                    break;
                }
                Frame::Data { offset: self.replay.next(), length }.put(&mut self.head);
                self.replay.take(length, &mut self.head, out);
                data += length;
                self.silence.handle_sent(self.replay.next(), now);
            }
            if let Some(offset) = self.replay.take_end() {
                Frame::Fin { offset }.put(&mut self.head);
                self.silence.handle_sent(self.replay.next(), now);
            }
        }
        if !self.head.is_empty() {
            out.push(self.head.split().freeze());
        }
        self.settle(now);
        out.iter().skip(before).map(Bytes::len).sum()
    }

    /// When [`Resume::handle_timeout`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if !self.attached {
            return None;
        }
        [self.ack_at, self.silence.poll_timeout()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if !self.attached {
            return;
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.ack_due = true;
        }
        if self.silence.handle_timeout(now) {
            self.hearing_lost = true;
            self.hearing = Some(Output::Silent);
        }
    }

    /// What the driver should know next. A later word about hearing replaces an unread one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.hearing
            .take()
            .or_else(|| std::mem::replace(&mut self.closed_due, false).then_some(Output::Closed))
    }

    /// Whether there is an attachment.
    pub const fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether this end needs the other no more: both directions ended and acknowledged, or a reset
    /// known to both. It stays so. The other end may still lack our last acknowledgement, so an
    /// attachment is served on, and a new one if it comes.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The reset that ended it, the other end's before our own.
    pub const fn reset_code(&self) -> Option<ResetCode> {
        if self.peer_reset.is_some() { self.peer_reset } else { self.reset }
    }

    /// Whether [`Resume::handle_finish`] was called.
    pub const fn is_finished(&self) -> bool {
        self.replay.is_finished()
    }

    /// Bytes the application gave to be sent.
    pub const fn bytes_written(&self) -> u64 {
        self.replay.written()
    }

    /// The furthest offset ever handed to an attachment; the end counts one.
    pub const fn bytes_sent(&self) -> u64 {
        self.replay.sent()
    }

    /// The offset up to which the other end has everything; the end counts one.
    pub const fn bytes_acknowledged(&self) -> u64 {
        self.replay.acknowledged()
    }

    /// Bytes received in order.
    pub const fn bytes_received(&self) -> u64 {
        self.inbox.received()
    }

    /// Bytes that wait for the application.
    pub const fn bytes_waiting(&self) -> usize {
        self.inbox.waiting()
    }

    /// Bytes held for the other end, sent or not.
    pub const fn unacknowledged(&self) -> usize {
        self.replay.held()
    }

    /// The smoothed round trip to the other end, acknowledgement delays included.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.silence.round_trip()
    }

    pub(super) const fn is_reset(&self) -> bool {
        self.reset.is_some() || self.peer_reset.is_some()
    }

    pub(super) fn drop_both(&mut self) {
        self.replay.give_up();
        if !self.inbox.is_ended() {
            self.inbox.discard();
        }
        self.ack_at = None;
        self.ack_due = false;
    }

    fn put_signals(&mut self, now: Duration) {
        if std::mem::replace(&mut self.start_due, false) {
            let (received, limit) = self.inbox.tell();
            let replay = self.replay.limit() as u64;
            Frame::Start(Start { version: VERSION, received, limit, replay }).put(&mut self.head);
        }
        if std::mem::replace(&mut self.reset_due, false)
            && let Some(code) = self.reset
        {
            Frame::Reset(code).put(&mut self.head);
        }
        if std::mem::replace(&mut self.confirm_due, false) {
            Frame::Confirm.put(&mut self.head);
        }
        if let Some(number) = self.pong_due.take() {
            Frame::Pong(number).put(&mut self.head);
        }
        if let Some(number) = self.silence.take_ping(now) {
            Frame::Ping(number).put(&mut self.head);
        }
        let carried = self.open && self.replay.offer() > 0 && self.inbox.untold() > 0;
        if !self.is_reset() && (self.ack_due || carried || self.inbox.has_news_of_room()) {
            let (received, limit) = self.inbox.tell();
            Frame::Ack { received, limit }.put(&mut self.head);
            self.ack_due = false;
            self.ack_at = None;
        }
    }

    /// What follows from any change of state.
    fn settle(&mut self, now: Duration) {
        let unanswered = !self.start_heard && !self.start_due;
        let unconfirmed =
            self.peer_reset.is_none() && self.reset.is_some() && !self.reset_confirmed;
        let waiting = if !self.attached {
            Waiting::Nothing
        } else if unanswered || unconfirmed || self.replay.is_unanswered() {
            Waiting::Answer
        } else if self.replay.is_waiting() {
            Waiting::Room
        } else {
            Waiting::Nothing
        };
        self.silence.set_waiting(waiting, now);
        if self.silence.least_round_trip().is_some_and(|least| least >= LONG_PATH) {
            self.replay.hold(self.config.replay.saturating_mul(2));
            self.inbox.hold(self.config.window.saturating_mul(2));
        }
        if !self.closed && self.needs_nothing() {
            self.closed = true;
            self.closed_due = true;
        }
    }

    const fn needs_nothing(&self) -> bool {
        if self.peer_reset.is_some() {
            !self.confirm_due
        } else if self.reset.is_some() {
            self.reset_confirmed
        } else {
            self.replay.is_done() && self.inbox.is_ended() && self.inbox.untold() == 0
        }
    }
}
