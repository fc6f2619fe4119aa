//! Bringing the spool to the relay: a stream of the line's own, segment after segment.
//!
//! Little is on its way at once, and it waits for the line's sessions, so that it harms none. What was sent and not answered when
//! the line ends is sent again over the next one, and the relay keeps it once.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::ids::SessionId;
use belay_proto::recording::{Opening, UNANSWERED, Upload, Uploaded, stream};
use belay_proto::refusal::{Code, Refused};
use belay_tunnel::carrier::{Carrier, CarrierError, RecvHalf, SendHalf};
use belay_tunnel::framed::{self, MessageError, Messages};
use tokio::time::sleep;

use super::spool::{Offer, Spool, Uploading};

/// Bytes on the way at once: 1 MB/s at 120 ms.
const UNANSWERED_BYTES: usize = 128 * 1024;

/// After a refusal that may pass, such as a full disk.
const AGAIN: Duration = Duration::from_secs(10);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the line is gone")]
    Line(#[from] CarrierError),
    #[error("the stream for recordings broke")]
    Stream(#[from] MessageError),
    #[error("the relay takes no recordings now: {0}")]
    Later(Refused),
    #[error("the relay answered what was not asked")]
    Nonsense,
}

/// Uploads for as long as the line lives. Dropping it loses nothing.
pub(super) async fn upload(carrier: Carrier, spool: Arc<Spool>) {
    loop {
        match over_one_stream(&carrier, &spool).await {
            Err(UploadError::Line(_)) => return,
            Err(error) => {
                let error = belay_proto::error_line::one_line(&error);
                tracing::warn!(error, again_in_s = AGAIN.as_secs(), "recordings wait");
            }
            Ok(never) => match never {},
        }
        sleep(AGAIN).await;
    }
}

async fn over_one_stream(carrier: &Carrier, spool: &Spool) -> Result<Infallible, UploadError> {
    // Nothing is opened for nothing.
    let (sent, mut offers) = (BTreeMap::new(), spool.offers());
    while spool.offer(&sent, None).is_none() {
        if offers.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    let (mut send, recv) = carrier.open().await?;
    framed::write(&mut send, &Opening { kind: Some(stream::RECORDINGS.to_owned()) }).await?;
    let (answers, on_the_way) = (Messages::new(recv), VecDeque::new());
    let way = Way { send, answers, sent, on_the_way, spool, taking: None };
    way.go().await
}

struct Way<'a> {
    send: SendHalf,
    answers: Messages<RecvHalf>,
    /// Each session's next number to send.
    sent: BTreeMap<SessionId, u64>,
    on_the_way: VecDeque<(SessionId, usize)>,
    spool: &'a Spool,
    /// Once the relay has taken something. One that takes nothing is waited for by nobody.
    taking: Option<Uploading<'a>>,
}

impl Way<'_> {
    async fn go(mut self) -> Result<Infallible, UploadError> {
        let (mut last, mut offers) = (None, self.spool.offers());
        loop {
            offers.mark_unchanged();
            let bytes: usize = self.on_the_way.iter().map(|(_, bytes)| bytes).sum();
            let room = self.on_the_way.len() < UNANSWERED && bytes < UNANSWERED_BYTES;
            if room && let Some(offer) = self.spool.offer(&self.sent, last) {
                last = Some(offer.session);
                self.send(offer).await?;
                continue;
            }
            tokio::select! {
                answer = self.answers.next::<Uploaded>() => {
                    self.hear(answer?.ok_or(MessageError::Ended)?)?;
                }
                Ok(()) = offers.changed() => {}
            }
        }
    }

    async fn send(&mut self, Offer { session, number, signed }: Offer) -> Result<(), UploadError> {
        self.on_the_way.push_back((session, signed.len()));
        self.sent.insert(session, number + 1);
        // Sessions go first, until what waits here has to.
        self.send.yields(!self.spool.is_filling());
        framed::write(&mut self.send, &Upload { segment: Some(signed.into()) }).await?;
        Ok(())
    }

    fn hear(&mut self, answer: Uploaded) -> Result<(), UploadError> {
        let (session, _) = self.on_the_way.pop_front().ok_or(UploadError::Nonsense)?;
        if answer.session.is_some_and(|named| named != session) {
            return Err(UploadError::Nonsense);
        }
        match answer {
            Uploaded { refused: Some(refused), .. } if may_pass(&refused) => {
                Err(UploadError::Later(refused))
            }
            Uploaded { refused: Some(refused), .. } => {
                tracing::error!(%session, %refused, "the relay does not take a recording");
                removed(session, self.spool.reject(session));
                Ok(())
            }
            Uploaded { number: Some(number), .. } => {
                self.taking.get_or_insert_with(|| self.spool.uploading());
                // One that has more already needs no more than what follows that.
                let next = self.sent.entry(session).or_default();
                *next = (*next).max(number.saturating_add(1));
                removed(session, self.spool.taken(session, number));
                Ok(())
            }
            Uploaded { number: None, refused: None, .. } => Err(UploadError::Nonsense),
        }
    }
}

/// A file that stays is brought to the relay once more after the next start, and stops nothing.
fn removed(session: SessionId, removed: std::io::Result<()>) {
    if let Err(error) = removed {
        tracing::error!(%session, %error, "a recording's file cannot be removed");
    }
}

/// Whether it is worth sending the same again.
fn may_pass(refused: &Refused) -> bool {
    matches!(refused.code(), Code::Store | Code::Busy | Code::Draining | Code::Internal)
}
