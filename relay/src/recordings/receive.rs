//! A device's stream of segments, to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use belay_proto::ids::SessionId;
use belay_proto::limits::OPEN_DEADLINE;
use belay_proto::recording::{
    End, Opening, Segment, SignedSegment, UNANSWERED, Upload, Uploaded, stream,
};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::DeviceKey;
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::time::timeout;

use super::{KeepError, Kept, Recordings, delete};
use crate::store::{EventKind, SessionRecord, Store, StoreError};

/// Recordings of one stream that are held in memory: twice as many as a device has sessions.
const HELD: usize = 128;

/// Bytes written in one go.
const TOGETHER: usize = 256 * 1024;

/// What a stream of a device is taken in with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) recordings: Arc<Recordings>,
    pub(crate) key: Arc<DeviceKey>,
}

/// Takes segments in until the stream ends. What was not answered the device sends again.
pub(crate) async fn receive(mut send: SendHalf, recv: RecvHalf, desk: Desk) {
    let mut recv = Messages::new(recv);
    let opening = timeout(OPEN_DEADLINE, recv.next::<Opening>()).await;
    let kind = match opening {
        Ok(Ok(Some(opening))) => opening.kind,
        Ok(Ok(None) | Err(_)) | Err(_) => None,
    };
    if kind.as_deref() != Some(stream::RECORDINGS) {
        tracing::debug!(device = %desk.key.device(), "a stream for something unknown");
        return send.reset(ResetCode::PROTOCOL);
    }
    let mut known = BTreeSet::new();
    while let Some(came) = together(&mut recv).await {
        for answer in take(came, &desk, &mut known).await {
            if framed::write(&mut send, &answer).await.is_err() {
                return let_go(known, &desk);
            }
        }
    }
    let_go(known, &desk);
}

fn let_go(known: BTreeSet<SessionId>, desk: &Desk) {
    for session in known {
        desk.recordings.let_go(session);
    }
}

/// The next segment and those that are here with it, so that they go to the disk in one go. `None`
/// when the stream is over.
async fn together(recv: &mut Messages<RecvHalf>) -> Option<Vec<Vec<u8>>> {
    let (mut came, mut bytes) = (Vec::new(), 0);
    while came.len() < UNANSWERED && bytes < TOGETHER {
        let next = recv.next::<Upload>();
        let upload = if came.is_empty() {
            next.await
        } else {
            match next.now_or_never() {
                Some(upload) => upload,
                None => break,
            }
        };
        match upload {
            Ok(Some(Upload { segment: Some(signed) })) => {
                bytes += signed.len();
                came.push(signed.to_vec());
            }
            Ok(Some(Upload { segment: None })) => {}
            // What came before it is kept all the same.
            Ok(None) | Err(_) => break,
        }
    }
    (!came.is_empty()).then_some(came)
}

/// Whose a segment says it is.
fn session_of(signed: &[u8]) -> Option<SessionId> {
    let signed: SignedSegment = decode_payload(signed).ok()?;
    let segment: Segment = decode_payload(&signed.segment).ok()?;
    Some(segment.session)
}

/// Keeps what came, each session's segments in one go, and answers in the order they came.
async fn take(came: Vec<Vec<u8>>, desk: &Desk, known: &mut BTreeSet<SessionId>) -> Vec<Uploaded> {
    let count = came.len();
    let mut by_session: BTreeMap<SessionId, (Vec<usize>, Vec<Vec<u8>>)> = BTreeMap::new();
    for (at, signed) in came.into_iter().enumerate() {
        if let Some(session) = session_of(&signed) {
            let (places, segments) = by_session.entry(session).or_default();
            places.push(at);
            segments.push(signed);
        }
    }
    let mut answers: BTreeMap<usize, Uploaded> = BTreeMap::new();
    let mut keeping = Vec::new();
    for (session, (places, segments)) in by_session {
        match admit(session, desk, known).await {
            Ok(Admitted::Keep) => keeping.push(async move {
                let kept = desk.recordings.keep_all(session, &desk.key, segments).await;
                (session, places.into_iter().zip(kept))
            }),
            Ok(Admitted::Late(record)) => {
                for (at, signed) in places.into_iter().zip(segments) {
                    let answer = match delete::late(&record, &signed, desk).await {
                        Ok(number) => {
                            Uploaded { session: Some(session), number: Some(number), refused: None }
                        }
                        Err(refused) => not_kept(session, desk, refused),
                    };
                    answers.insert(at, answer);
                }
            }
            Err(refused) => {
                answers.extend(
                    places.iter().map(|at| (*at, not_kept(session, desk, refused.clone()))),
                );
            }
        }
    }
    for (session, kept) in join_all(keeping).await {
        for (at, kept) in kept {
            let answer = match settled(session, kept, desk, known).await {
                Ok(number) => {
                    Uploaded { session: Some(session), number: Some(number), refused: None }
                }
                Err(refused) => not_kept(session, desk, refused),
            };
            answers.insert(at, answer);
        }
    }
    (0..count).map(|at| answers.remove(&at).unwrap_or_else(unreadable)).collect()
}

fn unreadable() -> Uploaded {
    let refused = Refused::new(Code::BadRequest, "a segment cannot be read", "");
    Uploaded { refused: Some(refused), ..Uploaded::default() }
}

fn not_kept(session: SessionId, desk: &Desk, refused: Refused) -> Uploaded {
    tracing::warn!(%session, device = %desk.key.device(), %refused, "a segment is refused");
    Uploaded { session: Some(session), number: None, refused: Some(refused) }
}

/// What is to be done with a session's segments.
enum Admitted {
    Keep,
    /// Its recording was deleted.
    Late(Box<SessionRecord>),
}

/// A session whose segments this stream may bring. That its recording begins is on record before the
/// first of it is there, so that none is there without it.
async fn admit(
    session: SessionId,
    desk: &Desk,
    known: &mut BTreeSet<SessionId>,
) -> Result<Admitted, Refused> {
    if known.contains(&session) && desk.recordings.is_open(session) {
        return Ok(Admitted::Keep);
    }
    let record = of_device(session, desk).await?;
    if delete::is_gone(&record, desk).await? {
        return Ok(Admitted::Late(Box::new(record)));
    }
    if desk.recordings.is_new(session) {
        // What has no room does not begin: each try would be one more record, on a disk that is full.
        desk.recordings.room_now(session).map_err(|error| refusal(&error))?;
        let event = record.event(EventKind::RecordingStarted);
        desk.store.record(event).await.map_err(|error| Refused::from(&error))?;
    }
    if known.len() >= HELD
        && let Some(first) = known.pop_first()
    {
        desk.recordings.let_go(first);
    }
    known.insert(session);
    Ok(Admitted::Keep)
}

/// What is answered to a segment: the number of the last one on the disk.
async fn settled(
    session: SessionId,
    kept: Result<Kept, KeepError>,
    desk: &Desk,
    known: &mut BTreeSet<SessionId>,
) -> Result<u64, Refused> {
    let kept = kept.map_err(|error| refusal(&error))?;
    if let Some(end) = kept.end {
        // Its device never heard of that, or wants the log to grow.
        let is_known = kept.again
            && desk.store.has_event(session, EventKind::RecordingEnded).await.map_err(store)?;
        if !is_known {
            ended(session, &kept, end, desk).await?;
        }
        known.remove(&session);
        desk.recordings.let_go(session);
    }
    Ok(kept.number)
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}

fn refusal(error: &KeepError) -> Refused {
    let line = belay_proto::error_line::one_line(error);
    match error {
        KeepError::Chain(_) | KeepError::Foreign(_) => {
            Refused::new(Code::BadRequest, line, "look at the device: its spool may be damaged")
        }
        KeepError::Leaving(_) => Refused::new(Code::Busy, line, "try again"),
        KeepError::Full | KeepError::Disk(..) => {
            Refused::new(Code::Store, line, "make room on the relay's disk")
        }
    }
}

/// A session of this very device.
async fn of_device(session: SessionId, desk: &Desk) -> Result<SessionRecord, Refused> {
    let record = desk.store.session(session).await.map_err(|error| Refused::from(&error))?;
    record
        .filter(|record| record.device == desk.key.device())
        .ok_or_else(|| Refused::new(Code::BadRequest, "the session is none of this device's", ""))
}

/// The recording's end is recorded before it is acknowledged.
async fn ended(session: SessionId, kept: &Kept, end: End, desk: &Desk) -> Result<(), Refused> {
    let record = of_device(session, desk).await?;
    let head: String = kept.head.iter().map(|byte| format!("{byte:02x}")).collect();
    let how = match end {
        End::Whole => "",
        End::Cut => ", cut",
    };
    let detail = format!("last segment {}, SHA-256 {head}{how}", kept.number);
    let event = record.event(EventKind::RecordingEnded).detail(&detail);
    desk.store.record(event).await.map_err(|error| Refused::from(&error))?;
    tracing::info!(%session, segments = kept.number + 1, ?end, "recording ended");
    Ok(())
}
