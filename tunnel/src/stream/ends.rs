//! The application's ends of a session.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use belay_proto::resume::{Received, ResetCode, Violation};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Shared, State, wake};

/// Why a session's end gives nothing and takes nothing any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    /// One of the ends gave it up.
    #[error("the session was given up (code {})", .0.0)]
    Reset(ResetCode),
    /// The other end broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// [`super::Attacher::end`], with its reason.
    #[error("{0}")]
    Over(Arc<str>),
    /// This end was finished before.
    #[error("this direction of the session has ended")]
    Finished,
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        let kind = match ended {
            Ended::Reset(_) => io::ErrorKind::ConnectionReset,
            Ended::Violation(_) => io::ErrorKind::InvalidData,
            Ended::Over(_) => io::ErrorKind::ConnectionAborted,
            Ended::Finished => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, ended)
    }
}

/// Why nothing can be sent, if so.
fn send_error(state: &State) -> Option<Ended> {
    let reset = || state.resume.reset_code().map(Ended::Reset);
    let finished = || state.resume.is_finished().then_some(Ended::Finished);
    state.ended.clone().or_else(reset).or_else(finished)
}

/// The sending end. Dropped without [`SendEnd::finish`] it resets the session with
/// [`ResetCode::GONE`].
#[derive(Debug)]
pub struct SendEnd(Arc<Shared>);

impl SendEnd {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Sends all of `bytes`, waiting while the replay buffer is full. Dropped before it is done,
    /// what was not taken is still in `bytes`.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn send(&mut self, bytes: &mut Bytes) -> Result<(), Ended> {
        poll_fn(|cx| {
            self.poll_with(cx, |state| {
                state.resume.handle_send(bytes);
                bytes.is_empty().then_some(())
            })
        })
        .await
    }

    /// Ends this direction after what was sent, which still arrives.
    pub fn finish(&mut self) {
        self.change(|state| state.resume.handle_finish());
    }

    /// Gives both directions up at both ends, with a reason as a number.
    pub fn reset(&mut self, code: ResetCode) {
        self.change(|state| state.resume.handle_reset(code));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let carry = state.carry_if_idle();
        let [sender, receiver] = state.application();
        drop(state);
        wake([carry, sender, receiver]);
    }

    /// Lets `take` give bytes to the core until it says it is done.
    fn poll_with<T>(
        &self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut State) -> Option<T>,
    ) -> Poll<Result<T, Ended>> {
        let mut state = self.0.lock();
        if let Some(ended) = send_error(&state) {
            return Poll::Ready(Err(ended));
        }
        let done = take(&mut state);
        if done.is_none() {
            state.sender = Some(cx.waker().clone());
        }
        let carry = state.carry_if_idle();
        drop(state);
        wake([carry]);
        done.map_or(Poll::Pending, |done| Poll::Ready(Ok(done)))
    }
}

impl Drop for SendEnd {
    fn drop(&mut self) {
        if !self.0.lock().resume.is_finished() {
            self.reset(ResetCode::GONE);
        }
    }
}

impl AsyncWrite for SendEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(self.poll_with(cx, |state| {
            let count = state.resume.handle_send_slice(bytes);
            (count > 0 || bytes.is_empty()).then_some(count)
        }));
        Poll::Ready(Ok(taken?))
    }

    /// What was written is on its way, or held until there is one.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// The receiving end. Dropped, what is there and what still comes is thrown away.
#[derive(Debug)]
pub struct RecvEnd {
    shared: Arc<Shared>,
    /// How it ended, once the application has heard.
    end: Option<Option<Ended>>,
}

impl RecvEnd {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, end: None }
    }

    /// Receives into `pieces`; how many were filled, or `None` at the end.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn receive(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, Ended> {
        poll_fn(|cx| self.poll_receive(cx, usize::MAX, pieces)).await
    }

    fn poll_receive(
        &mut self,
        cx: &Context<'_>,
        most: usize,
        pieces: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, Ended>> {
        if let Some(end) = &self.end {
            return Poll::Ready(end.clone().map_or(Ok(None), Err));
        }
        let mut state = self.shared.lock();
        let mut filled = 0;
        for piece in pieces.iter_mut() {
            match state.resume.poll_received_up_to(most) {
                Some(Received::Data(bytes)) => *piece = bytes,
                Some(Received::End) => {
                    self.end = Some(None);
                    break;
                }
                Some(Received::Reset(code)) => {
                    let why = state.ended.clone().unwrap_or(Ended::Reset(code));
                    self.end = Some(Some(why));
                    break;
                }
                None => break,
            }
            filled += 1;
        }
        if filled > 0 {
            let carry = if state.resume.has_news_of_room() { state.carry_if_idle() } else { None };
            drop(state);
            wake([carry]);
            return Poll::Ready(Ok(Some(filled)));
        }
        if self.end.is_none() && state.ended.is_some() {
            self.end = Some(state.ended.clone());
        }
        if let Some(end) = &self.end {
            return Poll::Ready(end.clone().map_or(Ok(None), Err));
        }
        if !pieces.is_empty() {
            state.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(Some(0)))
    }
}

impl Drop for RecvEnd {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.resume.handle_reader_gone();
        let carry = state.carry_if_idle();
        drop(state);
        wake([carry]);
    }
}

impl AsyncRead for RecvEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut piece = [Bytes::new()];
        let _filled = ready!(self.poll_receive(cx, buf.remaining(), &mut piece))?;
        // At the end the piece is empty, and an empty read is the end.
        let [piece] = piece;
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

/// Both ends as one stream.
pub const fn join(send: SendEnd, recv: RecvEnd) -> Joined {
    Joined { send, recv }
}

/// Both ends of a session as one byte stream. Shut down, it sends no more and still receives;
/// dropped before that, it resets the session.
#[derive(Debug)]
pub struct Joined {
    send: SendEnd,
    recv: RecvEnd,
}

impl Joined {
    /// The ends again.
    pub fn split(self) -> (SendEnd, RecvEnd) {
        (self.send, self.recv)
    }
}

impl AsyncRead for Joined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Joined {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
