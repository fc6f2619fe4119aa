//! A device's stream of segments, to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use belay_proto::ids::SessionId;
use belay_proto::limits::OPEN_DEADLINE;
use belay_proto::recording::{End, Opening, Segment, SignedSegment, Upload, Uploaded, stream};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::carrier::{RecvHalf, ResetCode, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::DeviceKey;
use tokio::time::timeout;

use super::{KeepError, Kept, Recordings, delete};
use crate::store::{EventKind, SessionRecord, Store};

/// Recordings of one stream that are held in memory: twice as many as a device has sessions.
const HELD: usize = 128;

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
    loop {
        let upload = match recv.next::<Upload>().await {
            Ok(Some(Upload { segment: Some(signed) })) => signed,
            Ok(Some(Upload { segment: None })) => continue,
            Ok(None) | Err(_) => break,
        };
        let answer = take(upload.to_vec(), &desk, &mut known).await;
        if framed::write(&mut send, &answer).await.is_err() {
            break;
        }
    }
    for session in known {
        desk.recordings.let_go(session);
    }
}

async fn take(signed: Vec<u8>, desk: &Desk, known: &mut BTreeSet<SessionId>) -> Uploaded {
    let unreadable = || Refused::new(Code::BadRequest, "a segment cannot be read", "");
    let segment: Option<Segment> = decode_payload::<SignedSegment>(&signed)
        .ok()
        .and_then(|signed| decode_payload(&signed.segment).ok());
    let Some(session) = segment.map(|segment| segment.session) else {
        return Uploaded { refused: Some(unreadable()), ..Uploaded::default() };
    };
    match kept(session, signed, desk, known).await {
        Ok(kept) => Uploaded { session: Some(session), number: Some(kept.number), refused: None },
        Err(refused) => {
            tracing::warn!(%session, device = %desk.key.device(), %refused, "a segment is refused");
            Uploaded { session: Some(session), number: None, refused: Some(refused) }
        }
    }
}

async fn kept(
    session: SessionId,
    signed: Vec<u8>,
    desk: &Desk,
    known: &mut BTreeSet<SessionId>,
) -> Result<Kept, Refused> {
    if !known.contains(&session) || !desk.recordings.is_open(session) {
        let record = of_device(session, desk).await?;
        if let Some(late) = delete::late(&record, &signed, desk).await? {
            return Ok(late);
        }
        if desk.recordings.is_new(session) {
            // Before the first of it is there, so that none is there without it.
            let event = record.event(EventKind::RecordingStarted);
            desk.store.record(event).await.map_err(|error| Refused::from(&error))?;
        }
        if known.len() >= HELD
            && let Some(first) = known.pop_first()
        {
            desk.recordings.let_go(first);
        }
        known.insert(session);
    }
    let kept = desk.recordings.keep(session, &desk.key, signed).await.map_err(|error| {
        let line = belay_proto::error_line::one_line(&error);
        match error {
            KeepError::Chain(_) | KeepError::Foreign(_) => {
                Refused::new(Code::BadRequest, line, "look at the device: its spool may be damaged")
            }
            KeepError::Leaving(_) => Refused::new(Code::Busy, line, "try again"),
            KeepError::Full | KeepError::Disk(..) => {
                Refused::new(Code::Store, line, "make room on the relay's disk")
            }
        }
    })?;
    if let Some(end) = kept.end {
        ended(session, &kept, end, desk).await?;
        known.remove(&session);
        desk.recordings.let_go(session);
    }
    Ok(kept)
}

/// A session of this very device.
async fn of_device(session: SessionId, desk: &Desk) -> Result<SessionRecord, Refused> {
    let record = desk.store.session(session).await.map_err(|error| Refused::from(&error))?;
    record
        .filter(|record| record.device == desk.key.device())
        .ok_or_else(|| Refused::new(Code::BadRequest, "the session is none of this device's", ""))
}

/// The recording's end is recorded before it is acknowledged. A device that never heard so sends it
/// again, and then it may stand twice.
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
