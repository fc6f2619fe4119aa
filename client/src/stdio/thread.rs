//! Blocking reads and writes on threads of their own.
//!
//! A thread blocked in a read cannot be called back, so it is left to the end of the process; a
//! writer's end is waited for.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::READ;

/// Chunks read ahead: the next one is ready while the last is being sent, and no more is taken
/// from a file than the far side takes.
const READ_AHEAD: usize = 4;

/// Chunks waiting to be written: 4 MiB of full SSH packets, about what an OpenSSH channel holds.
const WRITE_BEHIND: usize = 64;

/// A reader on its thread.
pub(super) struct Reader(mpsc::Receiver<io::Result<Bytes>>);

impl Reader {
    pub(super) fn start(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let (chunks, receiver) = mpsc::channel(READ_AHEAD);
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut buffer = BytesMut::new();
            loop {
                buffer.resize(READ, 0);
                let chunk = match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        buffer.truncate(count);
                        Ok(buffer.split().freeze())
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = chunk.is_err();
                if chunks.blocking_send(chunk).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.recv().await.transpose()
    }
}

/// A writer on its thread.
pub(super) struct Writer {
    chunks: mpsc::Sender<Bytes>,
    end: std::sync::Mutex<Option<oneshot::Receiver<io::Result<()>>>>,
}

impl Writer {
    pub(super) fn start(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(WRITE_BEHIND);
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("stdout".into()).spawn(move || {
            let mut result = Ok(());
            while let Some(chunk) = receiver.blocking_recv() {
                result = to.write_all(&chunk);
                if result.is_err() {
                    break;
                }
                // An empty chunk is the request to finish.
                if chunk.is_empty() {
                    break;
                }
            }
            result = result.and_then(|()| to.flush());
            receiver.close();
            // Nobody waits for it when the session ended first.
            ended.send(result).ok();
        })?;
        Ok(Self { chunks, end: std::sync::Mutex::new(Some(end)) })
    }

    /// Hands bytes over, waiting for room.
    pub(super) async fn write(&self, bytes: Bytes) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.chunks.send(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.outcome().await.err().unwrap_or(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Waits until all is written.
    pub(super) async fn finish(&self) -> io::Result<()> {
        if self.chunks.send(Bytes::new()).await.is_err() {
            return self.outcome().await;
        }
        self.outcome().await
    }

    async fn outcome(&self) -> io::Result<()> {
        let end = self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match end {
            Some(end) => end.await.unwrap_or(Err(io::ErrorKind::BrokenPipe.into())),
            None => Ok(()),
        }
    }
}
