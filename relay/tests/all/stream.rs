//! A session's stream, byte by byte.
#![allow(clippy::unwrap_used, reason = "tests")]

use belay_tunnel::carrier::{RecvHalf, SendHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lines::soon;

/// One end of a session's stream.
pub(crate) struct Stream {
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
}

impl Stream {
    pub(crate) async fn says(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn hears(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        soon("bytes arrive", self.recv.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, bytes);
    }

    /// Waits until the other side breaks the stream off.
    pub(crate) async fn breaks(&mut self) {
        let mut rest = Vec::new();
        let ended = soon("the stream breaks", self.recv.read_to_end(&mut rest)).await;
        ended.unwrap_err();
    }

    /// Waits for the clean end of what comes.
    pub(crate) async fn ends(&mut self) {
        let mut rest = Vec::new();
        soon("the stream ends", self.recv.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
    }
}

/// Passes a word each way.
pub(crate) async fn both_ways(client: &mut Stream, device: &mut Stream, word: &[u8]) {
    client.says(word).await;
    device.hears(word).await;
    device.says(word).await;
    client.hears(word).await;
}
