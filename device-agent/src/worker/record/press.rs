//! Making frames of what a track was told: lines, compressed.
//!
//! That is work for the processor. Of a flood a thread does it, one for the session and only while the flood
//! lasts: what it needs is allocated once then, and an ordinary session never has it.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use belay_proto::recording::{FRAME_TEXT_MAX, cast};
use belay_tunnel::recording::Packer;
use tokio::sync::mpsc;

use super::buffer::{Batch, EVENT_MAX};
use super::millis;

/// Its deepest call is the compressor's, which keeps its tables elsewhere.
const STACK: usize = 256 * 1024;

/// A batch could not be made into frames: there is a hole in the recording.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum NotMade {
    #[error("it cannot be compressed")]
    Compressor(#[from] io::Error),
    #[error("the thread that compresses it has panicked")]
    Panicked,
}

/// What became of a batch.
pub(super) struct Made {
    pub(super) frames: Vec<Frame>,
    /// What the batch's text was written to.
    pub(super) text: String,
}

/// What frames are made with.
#[derive(Default)]
pub(super) struct Writer {
    packer: Packer,
    lines: String,
}

impl Writer {
    pub(super) fn made(&mut self, batch: Batch) -> Result<Made, NotMade> {
        Ok(Made { frames: frames(&batch, self)?, text: batch.text })
    }
}

/// The thread. Dropped, it ends.
pub(super) struct Press {
    batches: SyncSender<Batch>,
    made: mpsc::Receiver<Result<Made, NotMade>>,
}

impl Press {
    /// # Errors
    /// When there can be no further thread.
    pub(super) fn start() -> io::Result<Self> {
        let mut writer = Writer::default();
        Self::with(move |batch| writer.made(batch))
    }

    fn with(
        mut make: impl FnMut(Batch) -> Result<Made, NotMade> + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, taken) = sync_channel::<Batch>(1);
        let (give, made) = mpsc::channel(1);
        let press = move || {
            for batch in taken {
                if give.blocking_send(make(batch)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("belay-record".to_owned()).stack_size(STACK).spawn(press)?;
        Ok(Self { batches, made })
    }

    /// Makes a batch's frames.
    ///
    /// # Errors
    /// [`NotMade`].
    pub(super) async fn made(&mut self, batch: Batch) -> Result<Made, NotMade> {
        // There is room: one is made before the next is given.
        self.batches.send(batch).map_err(|_| NotMade::Panicked)?;
        self.made.recv().await.unwrap_or(Err(NotMade::Panicked))
    }

    /// One whose thread panics at its first batch.
    #[cfg(test)]
    pub(super) fn broken() -> io::Result<Self> {
        Self::with(|batch| panic!("a batch of {} bytes", batch.bytes))
    }
}

/// Some of a track's lines, compressed.
pub(super) struct Frame {
    pub(super) first: Duration,
    pub(super) last: Duration,
    /// Bytes of the lines.
    pub(super) text: usize,
    pub(super) bytes: Vec<u8>,
}

/// Lines, cut where a frame is full. A batch without a line makes none, but for a header's.
fn frames(batch: &Batch, Writer { packer, lines }: &mut Writer) -> io::Result<Vec<Frame>> {
    let mut made = Vec::new();
    lines.clear();
    lines.push_str(batch.header.as_deref().unwrap_or_default());
    // Escaped it is a little longer, and the line that has no room is there too.
    lines.reserve((batch.text.len() + batch.text.len() / 8).min(FRAME_TEXT_MAX) + EVENT_MAX);
    let first = batch.pieces.first().map_or(batch.before, |piece| piece.at);
    let (mut first, mut last, mut before, mut begin) = (first, first, batch.before, 0);
    for piece in &batch.pieces {
        let text = batch.text.get(begin..begin + piece.length).unwrap_or_default();
        begin += piece.length;
        let end = lines.len();
        // Cut before they are subtracted, so that a track's times never run from the session's.
        let after = millis(piece.at).saturating_sub(millis(before));
        cast::event(Duration::from_millis(after), piece.code, text, lines);
        if end > 0 && lines.len() > FRAME_TEXT_MAX {
            let full = lines.get(..end).unwrap_or_default();
            made.push(packed(full, (first, last), packer)?);
            lines.drain(..end);
            first = piece.at;
        }
        before = piece.at;
        last = piece.at;
    }
    if !lines.is_empty() {
        made.push(packed(lines, (first, last), packer)?);
    }
    Ok(made)
}

fn packed(
    lines: &str,
    (first, last): (Duration, Duration),
    packer: &mut Packer,
) -> io::Result<Frame> {
    Ok(Frame { first, last, text: lines.len(), bytes: packer.frame(lines)? })
}
