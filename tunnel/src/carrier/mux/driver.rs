//! The one task of a fallback carrier: moves messages both ways and watches the time.
//!
//! Its law: it ends, whatever the peer does, at most [`GOODBYE`] after the carrier has; its end is
//! the end of every stream. Reading goes on while writing waits, so two ends never wait for each
//! other; what reading makes it owe the peer is bounded by the streams there are.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink as _, Stream as _};
use rustls::Error as TlsError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::super::stream::Side;
use super::{End, Multiplexed, Peer, Shared};

/// How long the last words may take, and the peer's end of the connection after them: closing with
/// bytes unread would make the kernel reset the connection and lose the words.
const GOODBYE: Duration = Duration::from_secs(2);

/// Messages moved each way before other tasks have their turn.
const TURN: usize = 16;

/// What is added to a message on its way: a TLS record's head and tag for each 16 KiB (RFC 8446
/// §5.2), and the WebSocket header of a message of middling size.
const RECORD: u64 = 22;
const RECORD_OF: u64 = 16 * 1024;
const HEADER: u64 = 4;

/// What the two ends do about silence.
#[derive(Debug, Clone, Copy)]
pub(in crate::carrier) struct Pace {
    /// Silence after which the carrier is dead.
    pub(in crate::carrier) dead: Duration,
    /// Silence after which the peer is asked for a sign; this end does not ask when it is none.
    pub(in crate::carrier) ask: Option<Duration>,
    /// The same while something was sent and nothing came since: TCP's own acknowledgements do not
    /// show here, and whoever judges a path by what comes back must have something to judge.
    pub(in crate::carrier) ask_when_waiting: Duration,
}

/// The task's future. Whoever spawns it need not wait for it; every handle sees its end.
pub(in crate::carrier) struct Driver<S> {
    shared: Arc<Shared>,
    socket: WebSocketStream<S>,
    pace: Pace,
    heard: Instant,
    /// When something was first sent after the last word of the peer.
    unanswered: Option<Instant>,
    /// A question under way: its number and when it was asked.
    asked: Option<(u64, Instant)>,
    questions: u64,
    timer: Pin<Box<Sleep>>,
    unflushed: bool,
    /// Since when the carrier is over, once it is.
    leaving: Option<Instant>,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// The carrier over an open WebSocket, and the task that moves its messages.
    pub(in crate::carrier) fn new(
        side: Side,
        peer: Peer,
        socket: WebSocketStream<S>,
        pace: Pace,
        round_trip: Duration,
    ) -> (Multiplexed, Self) {
        let (carrier, shared) = Multiplexed::new(side, peer);
        let now = Instant::now();
        let driver = Self {
            socket,
            pace,
            heard: now,
            unanswered: None,
            asked: None,
            questions: 0,
            timer: Box::pin(sleep_until(now)),
            unflushed: false,
            leaving: None,
            closing: false,
            shared,
        };
        driver.measured(round_trip);
        (carrier, driver)
    }

    fn measured(&self, round_trip: Duration) {
        let now = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        let old = self.shared.round_trip_us.load(Ordering::Relaxed);
        // RFC 6298 §2: an eighth of each new measurement.
        let smooth = if old == 0 { now } else { old - old / 8 + now / 8 };
        self.shared.round_trip_us.store(smooth, Ordering::Relaxed);
    }

    /// Sends what there is. `true` when it stopped for others to have their turn.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.shared.state().mover = Some(cx.waker().clone());
        for _ in 0..TURN {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => ready.map_err(end_of)?,
                Poll::Pending => return Ok(false),
            }
            let message = self.shared.state().poll_message();
            match message {
                Some(message) => self.write(Message::Binary(message))?,
                None => {
                    if self.unflushed
                        && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
                    {
                        flushed.map_err(end_of)?;
                        self.unflushed = false;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn write(&mut self, message: Message) -> Result<(), End> {
        self.shared.sent.fetch_add(on_wire(message.len()), Ordering::Relaxed);
        self.unflushed = true;
        let now = Instant::now();
        if self.unanswered.is_none() {
            self.unanswered = Some(now);
            self.wake_by(now + self.pace.ask_when_waiting);
        }
        Pin::new(&mut self.socket).start_send(message).map_err(end_of)
    }

    /// Takes what has come. `true` when it stopped for others to have their turn.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for _ in 0..TURN {
            // Who is let in wakes the mover, who looks here again.
            if !self.shared.state().may_receive() {
                return Ok(false);
            }
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => return Err(end_of(error)),
                Poll::Ready(None) => return Err(End::Gone),
                Poll::Pending => return Ok(false),
            };
            self.shared.received.fetch_add(on_wire(message.len()), Ordering::Relaxed);
            self.heard = Instant::now();
            self.unanswered = None;
            match message {
                Message::Binary(bytes) => {
                    self.shared.state().handle_message(&bytes).map_err(End::Protocol)?;
                }
                Message::Pong(number) => self.answered(&number),
                // The answer is in the socket's own buffer by now.
                Message::Ping(_) => self.unflushed = true,
                Message::Close(_) => return Err(End::Gone),
                Message::Text(_) | Message::Frame(_) => {
                    return Err(End::Protocol("a message that is not binary"));
                }
            }
        }
        Ok(true)
    }

    fn answered(&mut self, number: &[u8]) {
        if let Some((asked, at)) = self.asked
            && number == asked.to_be_bytes()
        {
            self.asked = None;
            self.measured(at.elapsed());
        }
    }

    /// Looks at the time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let dead = self.heard + self.pace.dead;
            if now >= dead {
                return Err(End::Silent);
            }
            let mut next = dead;
            if let Some(ask) = self.pace.ask {
                let idle = self.heard + ask;
                let waiting = self.unanswered.map(|since| since + self.pace.ask_when_waiting);
                let due = waiting.map_or(idle, |waiting| waiting.min(idle));
                // One question at a time: TCP repeats it by itself.
                let asking = self.asked.is_some_and(|(_, at)| at >= self.heard);
                if now < due {
                    next = next.min(due);
                } else {
                    if !asking {
                        self.questions += 1;
                        self.asked = Some((self.questions, now));
                        let number = Bytes::copy_from_slice(&self.questions.to_be_bytes());
                        self.write(Message::Ping(number))?;
                    }
                    next = next.min(now + ask);
                }
            }
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    fn wake_by(&mut self, at: Instant) {
        if self.pace.ask.is_some() && self.timer.deadline() > at {
            self.timer.as_mut().reset(at);
        }
    }

    /// While the carrier lives.
    fn poll_live(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        // First, so that a question is sent at once.
        self.poll_time(cx)?;
        let received = self.poll_receive(cx)?;
        let sent = self.poll_send(cx)?;
        // What was written may have set a timer that nobody has polled.
        self.poll_time(cx)?;
        Ok(received || sent)
    }

    /// After its end: the last words, then the end of the connection.
    fn poll_leave(&mut self, cx: &mut Context<'_>, since: Instant) -> Poll<()> {
        self.timer.as_mut().reset(since + GOODBYE);
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.closing {
            if self.poll_send(cx).is_err() {
                return Poll::Ready(());
            }
            if self.unflushed || self.shared.state().has_word() {
                return Poll::Pending;
            }
            self.closing = true;
            self.shared.over.send_replace(true);
        }
        match Pin::new(&mut self.socket).poll_close(cx) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
        }
        // What still comes is thrown away, until the peer ends it.
        for _ in 0..TURN {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.leaving.is_none() {
            match this.poll_live(cx) {
                Ok(again) => {
                    if this.shared.state().end.is_none() {
                        if again {
                            cx.waker().wake_by_ref();
                        }
                        return Poll::Pending;
                    }
                }
                Err(end) => this.shared.state().fail(end),
            }
            this.leaving = Some(Instant::now());
        }
        let since = this.leaving.unwrap_or_else(Instant::now);
        this.poll_leave(cx, since)
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        // A driver that was dropped before its time moves nothing any more.
        self.shared.state().finish_with(End::Broken("its task has ended".to_owned()));
        self.shared.over.send_replace(true);
    }
}

fn on_wire(length: usize) -> u64 {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    length + HEADER + RECORD * (1 + length / RECORD_OF)
}

/// Why a WebSocket ended.
fn end_of(error: WsError) -> End {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => End::Gone,
        WsError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => End::Gone,
        WsError::Io(error) => end_of_io(&error),
        WsError::Capacity(_) => End::Protocol("a message that is too long"),
        WsError::Protocol(_)
        | WsError::WriteBufferFull(_)
        | WsError::Utf8(_)
        | WsError::AttackAttempt
        | WsError::Url(_)
        | WsError::Http(_)
        | WsError::HttpFormat(_)
        | WsError::Tls(_) => End::Protocol("no WebSocket"),
    }
}

/// Why a connection ended.
pub(in crate::carrier) fn end_of_io(error: &io::Error) -> End {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    if let Some(TlsError::AlertReceived(alert)) = tls {
        return End::Alert(u8::from(*alert));
    }
    let gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    );
    match (gone, error.kind() == io::ErrorKind::TimedOut) {
        (true, _) => End::Gone,
        (false, true) => End::Silent,
        (false, false) => End::Broken(error.to_string()),
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
