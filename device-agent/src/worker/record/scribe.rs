//! Making segments of what the tracks were told.
//!
//! One segment is open at a time, the *sheet*. What a track was told is compressed into it frame by
//! frame, so that text waits for nothing but its frame, and a segment is as long as its payload
//! allows. It is given away when it is full, when another track has something to say, and at the
//! latest [`SEGMENT_TIME`] after its first event.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::recording::{
    KEY_EVERY, KEY_MAX, PAYLOAD_MAX, SEGMENT_TIME, SESSION_TRACK, TEXT_MAX,
};
use belay_tunnel::recording::{SealError, Sealer};
use tokio::sync::Semaphore;
use tokio::time::sleep_until;

use super::buffer::Batch;
use super::press::{Frame, Made, NotMade, Press, Writer};
use super::{Recorder, Room, millis};
use crate::worker::event::{Recorded, WorkerEvent};
use crate::worker::gate::Events;
use crate::worker::limits::{RECORD_AHEAD, RECORD_SEGMENT, RECORD_UNHEARD};

/// Segments that may be on their way to the supervisor. The teller gives a permit back when the
/// supervisor has heard of one.
#[derive(Clone, Debug)]
pub(in crate::worker) struct Permits(Arc<Semaphore>);

impl Permits {
    pub(in crate::worker) fn new() -> Self {
        Self(Arc::new(Semaphore::new(RECORD_UNHEARD)))
    }

    /// The supervisor has one.
    pub(in crate::worker) fn heard(&self) {
        self.0.add_permits(1);
    }
}

/// The segment that is open.
struct Sheet {
    track: u32,
    first: Duration,
    last: Duration,
    /// When the first of its events was told.
    since: Duration,
    text: usize,
    payload: Vec<u8>,
}

impl Sheet {
    fn takes(&self, track: u32, frame: &Frame, room: usize) -> bool {
        self.track == track
            && self.text + frame.text <= TEXT_MAX
            && self.payload.len() + frame.bytes.len() <= room
    }

    fn is_due(&self, now: Duration) -> bool {
        now >= self.since + SEGMENT_TIME
    }
}

/// Writes a session's recording.
pub(in crate::worker) struct Scribe {
    room: Option<Arc<Room>>,
    permits: Permits,
    next: u64,
    sheet: Option<Sheet>,
    /// There in a flood only.
    press: Option<Press>,
    sealer: Option<Sealer>,
}

/// Why a recording stopped before its session.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum Stopped {
    /// Its segments have nowhere to go.
    #[error("the session is no more")]
    Gone,
    /// It was to be sealed.
    #[error("it cannot be sealed")]
    Unsealed(#[from] SealError),
    /// A part of it is missing.
    #[error("a part of it is lost")]
    NotMade(#[from] NotMade),
}

impl Scribe {
    /// With a sealer, what is recorded leaves this process sealed.
    pub(in crate::worker) fn new(
        recorder: &Recorder,
        permits: Permits,
        sealer: Option<Sealer>,
    ) -> Self {
        let room = recorder.0.clone();
        Self { room, permits, next: 0, sheet: None, press: None, sealer }
    }

    /// The longest payload of a sheet: sealed, it gets a tag, and some segments carry the key.
    const fn most(&self) -> usize {
        if self.sealer.is_some() { PAYLOAD_MAX - KEY_MAX } else { PAYLOAD_MAX }
    }

    /// Writes until [`Recorder::end`], and what is left then. Where there is no recording it waits
    /// for nothing.
    ///
    /// # Errors
    /// [`Stopped`]: the recording has no end, so that whoever looks at it sees that it is not whole. A session that
    /// needs one has to be ended.
    pub(in crate::worker) async fn write(mut self, events: Events) -> Result<(), Stopped> {
        let Some(room) = self.room.take() else { return Ok(()) };
        self.write_on(&room, &events).await
    }

    async fn write_on(&mut self, room: &Room, events: &Events) -> Result<(), Stopped> {
        loop {
            let over = due(room, self.sheet.as_ref()).await;
            for (track, batch) in take(room, self.sheet.as_ref(), over) {
                let bytes = batch.bytes;
                let added = self.add(room, track, batch, events).await;
                free(room, bytes);
                added?;
            }
            if over {
                let last = room.lock().tracks.remove(&SESSION_TRACK).map(|mut last| last.take());
                if let Some(batch) = last {
                    self.add(room, SESSION_TRACK, batch, events).await?;
                }
                return self.close(room, true, events).await;
            }
            if self.sheet.as_ref().is_some_and(|sheet| sheet.is_due(room.at())) {
                self.close(room, false, events).await?;
                self.press = None;
            }
        }
    }

    /// Adds a batch to the sheet, and gives away what is full on the way.
    async fn add(
        &mut self,
        room: &Room,
        track: u32,
        batch: Batch,
        events: &Events,
    ) -> Result<(), Stopped> {
        let since = batch.since;
        let Made { frames, text } = self.made(batch).await?;
        if let Some(buffer) = room.lock().tracks.get_mut(&track) {
            buffer.give_back(text);
        }
        for frame in frames {
            let room_left = self.most();
            if !self.sheet.as_ref().is_some_and(|sheet| sheet.takes(track, &frame, room_left)) {
                self.close(room, false, events).await?;
            }
            let sheet = self.sheet.get_or_insert_with(|| Sheet {
                track,
                first: frame.first,
                last: frame.last,
                since,
                text: 0,
                payload: Vec::new(),
            });
            sheet.last = frame.last;
            sheet.text += frame.text;
            // Doubled, it would be twice as large as a payload may be.
            sheet.payload.reserve_exact(frame.bytes.len());
            sheet.payload.extend_from_slice(&frame.bytes);
        }
        Ok(())
    }

    /// A batch's frames: of a flood made while the session goes on, of little at once.
    async fn made(&mut self, batch: Batch) -> Result<Made, NotMade> {
        if !batch.is_flood() {
            return Writer::default().made(batch);
        }
        let press = match &mut self.press {
            Some(press) => press,
            none => match Press::start() {
                Ok(press) => none.insert(press),
                Err(error) => {
                    tracing::debug!(%error, "no thread to record with: the session waits for it");
                    return Writer::default().made(batch);
                }
            },
        };
        press.made(batch).await
    }

    /// With a thread that panics at the first flood.
    #[cfg(test)]
    pub(super) fn breaking(mut self) -> Self {
        self.press = Press::broken().ok();
        self
    }

    /// Gives the sheet away. `end`: the recording ends with it.
    async fn close(&mut self, room: &Room, end: bool, events: &Events) -> Result<(), Stopped> {
        let Some(mut sheet) = self.sheet.take() else { return Ok(()) };
        let mut key = None;
        if let Some(sealer) = &self.sealer {
            sealer.seal(self.next, sheet.track, &mut sheet.payload)?;
            key = self.next.is_multiple_of(KEY_EVERY).then(|| sealer.wrapped().to_vec().into());
        }
        let recorded = Recorded {
            number: self.next,
            track: sheet.track,
            first_ms: room.begun_ms + millis(sheet.first),
            last_ms: room.begun_ms + millis(sheet.last),
            compressed: Some(true),
            end: end.then_some(true),
            payload: sheet.payload.into(),
            sealed: self.sealer.is_some().then_some(true),
            key,
        };
        self.next += 1;
        self.permits.0.acquire().await.map_err(|_| Stopped::Gone)?.forget();
        events.send(WorkerEvent::Recorded(recorded)).await.map_err(|_| Stopped::Gone)
    }
}

/// Waits until some track has a frame's worth, or something has waited long enough. Whether all is
/// over.
async fn due(room: &Room, sheet: Option<&Sheet>) -> bool {
    loop {
        let next = {
            let state = room.lock();
            if state.over {
                return true;
            }
            if state.tracks.values().any(|track| track.pending() >= RECORD_SEGMENT) {
                return false;
            }
            let tracks = state.tracks.values().filter_map(super::Buffer::since);
            tracks.chain(sheet.map(|sheet| sheet.since)).min()
        };
        let waited = async {
            match next {
                Some(since) => sleep_until(room.begun + since + SEGMENT_TIME).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = waited => return false,
            () = room.told.notified() => {}
        }
    }
}

/// What is due, by track; all of it at the end, but for the session's own track. What goes into a
/// sheet that is due goes with it.
fn take(room: &Room, sheet: Option<&Sheet>, over: bool) -> Vec<(u32, Batch)> {
    let now = room.at();
    let closing = sheet.filter(|sheet| sheet.is_due(now)).map(|sheet| sheet.track);
    let mut state = room.lock();
    let mut batches = Vec::new();
    for (number, track) in &mut state.tracks {
        let Some(since) = track.since() else { continue };
        let waited = now >= since + SEGMENT_TIME || closing == Some(*number);
        let due = over || waited || track.pending() >= RECORD_SEGMENT;
        if due && !(over && *number == SESSION_TRACK) {
            batches.push((*number, track.take()));
        }
    }
    state.tracks.retain(|_, track| !track.is_closed() || track.since().is_some());
    // The sheet's own track first: what follows on it opens no new one.
    batches.sort_by_key(|(number, _)| Some(*number) != sheet.map(|sheet| sheet.track));
    batches
}

fn free(room: &Room, bytes: usize) {
    {
        let mut state = room.lock();
        state.pending = state.pending.saturating_sub(bytes);
        if state.pending < RECORD_AHEAD {
            state.given_up = false;
        }
    }
    room.freed.notify_waiters();
}
