//! A carrier's stream as an attachment.

use std::io;

use bytes::Bytes;

use super::{Sink, Source};
use crate::carrier::{RecvHalf, SendHalf, StreamError};

impl Source for RecvHalf {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        Self::receive(self, pieces).await.map_err(broken)
    }
}

impl Sink for SendHalf {
    async fn send_all(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        Self::send_all(self, pieces).await.map_err(broken)
    }

    /// Also waits until the relay has all of it: a line that is closed right after loses nothing.
    async fn finish(&mut self) -> io::Result<()> {
        Self::finish(self);
        self.stopped().await.map_err(broken)
    }
}

fn broken(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Carrier => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}
