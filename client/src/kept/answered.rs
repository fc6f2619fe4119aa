//! The receiving half of a first attachment: the relay's answer comes in front of the bytes.

use std::io;
use std::pin::Pin;
use std::sync::PoisonError;

use belay_proto::wire::open::Opened;
use belay_tunnel::carrier::RecvHalf;
use belay_tunnel::stream::Source;
use bytes::Bytes;
use tokio::sync::watch;

use super::Answer;
use crate::failure::Failure;
use crate::line::Answering;

/// What became of the question.
pub(super) type Outcome = watch::Receiver<Option<Result<Opened, Failure>>>;

/// Takes the answer off the front, then passes the bytes.
pub(super) struct Answered {
    state: State,
    answer: Answer,
    outcome: watch::Sender<Option<Result<Opened, Failure>>>,
}

type Asking = Pin<Box<dyn Future<Output = Result<(RecvHalf, Opened), Failure>> + Send>>;

enum State {
    Asked(Asking),
    Bytes(RecvHalf),
    Over,
}

impl Answered {
    /// A good answer is in `answer` before the first byte that follows it is given.
    pub(super) fn new(answering: Answering, answer: Answer) -> (Self, Outcome) {
        let (outcome, told) = watch::channel(None);
        (Self { state: State::Asked(Box::pin(answering.answer())), answer, outcome }, told)
    }
}

impl Source for Answered {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        loop {
            match &mut self.state {
                State::Bytes(recv) => return Source::receive(recv, pieces).await,
                State::Asked(asking) => {
                    let (state, outcome) = match asking.as_mut().await {
                        Ok((recv, opened)) => (State::Bytes(recv), Ok(opened)),
                        Err(failure) => (State::Over, Err(failure)),
                    };
                    self.state = state;
                    if let Ok(opened) = &outcome {
                        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(opened.clone());
                    }
                    self.outcome.send_replace(Some(outcome));
                }
                State::Over => return Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    }
}
