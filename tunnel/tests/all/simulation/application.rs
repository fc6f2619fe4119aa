//! Who writes and who reads: each in its own rhythm until the calm, then as fast as it can.

use std::time::Duration;

use belay_tunnel::stream::{RecvEnd, SendEnd};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::tally::Tally;
use crate::chance::Chance;

/// One direction's bytes and how they are written and read.
pub(super) struct Flow {
    pub(super) bytes: Bytes,
    /// Longest piece written at once.
    most: usize,
    /// Greatest pause between two writes.
    pause: Duration,
    /// One read in so many is followed by a pause, up to so long.
    reader_pauses: (usize, Duration),
}

impl Flow {
    pub(super) fn any(bytes: Bytes, horizon: Duration, chance: &mut Chance) -> Self {
        // Enough of them for every kind of piece, and few enough for a fast test.
        let most = chance.scale(1, 128 << 10).max(bytes.len() / 200);
        let writes = (bytes.len() * 2 / most).max(1) as u32;
        // Some are done long before the last fault, some long after.
        let lasts = horizon * chance.pick(&[0, 1, 2, 3, 3, 4]) / 3;
        let reader_pauses = match chance.below(4) {
            0 => (usize::MAX, Duration::ZERO),
            1 => (40, horizon),
            _ => (20, Duration::from_secs(2)),
        };
        Self { bytes, most, pause: lasts / writes * 2, reader_pauses }
    }
}

/// Lets up to `most` pass, but for the calm.
async fn pause(most: Duration, calm: Instant, chance: &mut Chance) {
    let until = Instant::now() + chance.time(0, most.as_millis() as u64);
    sleep_until(until.min(calm)).await;
}

pub(super) async fn write(
    flow: &Flow,
    mut send: SendEnd,
    calm: Instant,
    mut chance: Chance,
) -> Result<(), String> {
    let mut left = flow.bytes.clone();
    while !left.is_empty() {
        let mut piece = left.split_to(chance.between(1, flow.most).min(left.len()));
        let sent = if chance.one_in(2) {
            send.write_all(&piece).await.map_err(|error| error.to_string())
        } else {
            send.send(&mut piece).await.map_err(|ended| ended.to_string())
        };
        sent.map_err(|why| format!("a writer is stopped: {why}"))?;
        pause(flow.pause, calm, &mut chance).await;
    }
    send.finish();
    Ok(())
}

pub(super) async fn read(
    flow: &Flow,
    mut recv: RecvEnd,
    calm: Instant,
    mut chance: Chance,
    tally: &Tally,
) -> Result<(), String> {
    let mut expected = flow.bytes.clone();
    let mut pieces = [const { Bytes::new() }; 8];
    let mut buffer = vec![0; 20_000];
    loop {
        let read = if chance.one_in(2) {
            let most = chance.between(1, buffer.len());
            let count = recv.read(&mut buffer[..most]).await.map_err(|error| error.to_string());
            count.map(|count| if count == 0 { vec![] } else { vec![&buffer[..count]] })
        } else {
            let filled = recv.receive(&mut pieces).await.map_err(|ended| ended.to_string());
            filled.map(|filled| {
                pieces[..filled.unwrap_or(0)].iter().map(|piece| &piece[..]).collect()
            })
        };
        let read = read.map_err(|why| format!("a reader is stopped: {why}"))?;
        let at = flow.bytes.len() - expected.len();
        tally.note(at as u64);
        if read.is_empty() {
            return if expected.is_empty() {
                Ok(())
            } else {
                Err(format!("the end comes after {at} bytes of {}", flow.bytes.len()))
            };
        }
        for piece in read {
            if expected.len() < piece.len() || expected.split_to(piece.len()) != piece {
                return Err(format!("other bytes than were sent, at {at} or soon after"));
            }
        }
        let (one_in, most) = flow.reader_pauses;
        if chance.one_in(one_in) {
            pause(most, calm, &mut chance).await;
        }
    }
}
