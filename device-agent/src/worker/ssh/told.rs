//! Our own file server's standard error: lines for the recording, and words for the client.
//!
//! It is read to its end, whatever becomes of the client, and no line waits for the words before it.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::unix::AsyncFd;

use super::pump::STDERR;
use super::registry::Entry;
use crate::worker::gate::Admitted;
use crate::worker::limits::COPY_CHUNK;
use crate::worker::process::read_some;
use crate::worker::record::{Lines, Said, Track};

/// From `source` to the recording and, until the channel is closed, to the client.
pub(super) async fn outward_told(
    source: &AsyncFd<OwnedFd>,
    client: &ChannelWriteHalf<Msg>,
    entry: &Entry,
    leave: &Admitted,
    track: &Track,
) {
    let mut buffer = vec![0; COPY_CHUNK];
    let mut lines = Lines::default();
    loop {
        track.room().await;
        let Some(read) = read_some(source, &mut buffer).await else { return };
        let mut words = Vec::new();
        for said in lines.cut(buffer.get(..read).unwrap_or_default()) {
            match said {
                Said::ToRecording(fact) => track.told(&fact),
                Said::ToClient(bytes) => words.extend(bytes),
            }
        }
        if words.is_empty() {
            continue;
        }
        let length = words.len() as u64;
        leave.sending();
        tokio::select! {
            sent = client.extended_data_bytes(STDERR, Bytes::from(words)) => {
                if sent.is_ok() {
                    leave.sent(length);
                }
            }
            () = entry.closed.cancelled() => {}
        }
    }
}
