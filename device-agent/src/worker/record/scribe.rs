//! Making segments of what the tracks were told.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::recording::cast;
use belay_proto::recording::{SEGMENT_TIME, SESSION_TRACK, TEXT_MAX};
use tokio::sync::Semaphore;
use tokio::time::sleep_until;

use super::buffer::Batch;
use super::{Recorder, Room, millis};
use crate::worker::event::{Recorded, WorkerEvent};
use crate::worker::gate::Events;
use crate::worker::limits::{RECORD_AHEAD, RECORD_SEGMENT, RECORD_UNHEARD};

/// Fast, and a third of the size for what people type and see.
const LEVEL: i32 = 1;

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

/// Writes a session's recording.
pub(in crate::worker) struct Scribe {
    room: Option<Arc<Room>>,
    permits: Permits,
    next: u64,
}

impl Scribe {
    pub(in crate::worker) fn new(recorder: &Recorder, permits: Permits) -> Self {
        Self { room: recorder.0.clone(), permits, next: 0 }
    }

    /// Writes until [`Recorder::end`], and what is left then. Where there is no recording it waits
    /// for nothing.
    pub(in crate::worker) async fn write(mut self, events: Events) {
        let Some(room) = self.room.take() else { return };
        loop {
            let over = due(&room).await;
            let batches = take(&room, over);
            let last = over.then_some(SESSION_TRACK);
            for (track, batch) in batches {
                let bytes = batch.bytes;
                if last == Some(track) {
                    continue;
                }
                self.give(&room, track, batch, false, &events).await;
                free(&room, bytes);
            }
            if over {
                let batch = room.lock().tracks.remove(&SESSION_TRACK).map(|mut last| last.take());
                if let Some(batch) = batch {
                    self.give(&room, SESSION_TRACK, batch, true, &events).await;
                }
                return;
            }
        }
    }

    /// A batch as segments, one after another. `last`: the recording ends with it.
    async fn give(&mut self, room: &Room, track: u32, batch: Batch, last: bool, events: &Events) {
        // The processor's work, and the session goes on meanwhile.
        let made = tokio::task::spawn_blocking(move || segments(&batch)).await;
        let made = made.unwrap_or_else(|error| {
            tracing::error!(%error, "a recording's segment was not made");
            Vec::new()
        });
        let count = made.len();
        for (at, Made { first, last: to, compressed, payload }) in made.into_iter().enumerate() {
            let recorded = Recorded {
                number: self.next,
                track,
                first_ms: room.begun_ms + millis(first),
                last_ms: room.begun_ms + millis(to),
                compressed: compressed.then_some(true),
                end: (last && at + 1 == count).then_some(true),
                payload: payload.into(),
            };
            self.next += 1;
            // It fails only when the session is no more.
            if let Ok(permit) = self.permits.0.acquire().await {
                permit.forget();
            }
            if let Err(denied) = events.send(WorkerEvent::Recorded(recorded)).await {
                tracing::debug!(%denied, "a segment has nowhere to go");
                return;
            }
        }
    }
}

/// Waits until some track has a segment's worth, or has waited long enough. Whether all is over.
async fn due(room: &Room) -> bool {
    loop {
        let next = {
            let state = room.lock();
            if state.over {
                return true;
            }
            if state.tracks.values().any(|track| track.pending() >= RECORD_SEGMENT) {
                return false;
            }
            state.tracks.values().filter_map(super::Buffer::since).min()
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

/// What is due, by track; all of it at the end, but for the session's own track.
fn take(room: &Room, over: bool) -> Vec<(u32, Batch)> {
    let now = room.at();
    let mut state = room.lock();
    let mut batches = Vec::new();
    for (number, track) in &mut state.tracks {
        let waited = track.since().is_some_and(|since| now >= since + SEGMENT_TIME);
        let due = over || waited || track.pending() >= RECORD_SEGMENT;
        if due && !(over && *number == SESSION_TRACK) {
            batches.push((*number, track.take()));
        }
    }
    state.tracks.retain(|_, track| !track.is_closed() || track.since().is_some());
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

struct Made {
    first: Duration,
    last: Duration,
    compressed: bool,
    payload: Vec<u8>,
}

/// Lines, cut where a segment is full. A batch without a line makes none, but for a header's.
fn segments(batch: &Batch) -> Vec<Made> {
    let mut made = Vec::new();
    let mut lines = batch.header.clone().unwrap_or_default();
    let mut line = String::new();
    let first = batch.pieces.first().map_or(batch.before, |piece| piece.at);
    let (mut first, mut last, mut before, mut begin) = (first, first, batch.before, 0);
    for piece in &batch.pieces {
        let text = batch.text.get(begin..begin + piece.length).unwrap_or_default();
        begin += piece.length;
        line.clear();
        cast::event(piece.at.saturating_sub(before), piece.code, text, &mut line);
        if !lines.is_empty() && lines.len() + line.len() > TEXT_MAX {
            made.push(finish(&lines, first, last));
            lines.clear();
            first = piece.at;
        }
        lines.push_str(&line);
        before = piece.at;
        last = piece.at;
    }
    if !lines.is_empty() {
        made.push(finish(&lines, first, last));
    }
    made
}

fn finish(lines: &str, first: Duration, last: Duration) -> Made {
    match zstd::bulk::compress(lines.as_bytes(), LEVEL) {
        Ok(smaller) if smaller.len() < lines.len() => {
            Made { first, last, compressed: true, payload: smaller }
        }
        Ok(_) => Made { first, last, compressed: false, payload: lines.as_bytes().to_vec() },
        Err(error) => {
            tracing::warn!(%error, "a segment is not compressed");
            Made { first, last, compressed: false, payload: lines.as_bytes().to_vec() }
        }
    }
}
