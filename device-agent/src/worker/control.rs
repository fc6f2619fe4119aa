//! The control socket: frames of a length (32 bits, big-endian) and a body.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::event::WorkerEvent;
use super::limits::{CONTROL_FRAME_MAX, ORDER_TIMEOUT};

fn frame(body: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + 4));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn checked_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > CONTROL_FRAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a control frame of {length} bytes, more than {CONTROL_FRAME_MAX}"),
        ));
    }
    Ok(length)
}

/// The worker's end before its runtime starts.
pub(super) struct Control(UnixStream);

impl Control {
    /// Takes the descriptor the supervisor left on standard output.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(ORDER_TIMEOUT))?;
        Ok(Self(socket))
    }

    pub(super) fn read(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix)?;
        let mut body = Zeroizing::new(vec![0; checked_length(prefix)?]);
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    pub(super) fn send(&mut self, event: &WorkerEvent) -> io::Result<()> {
        self.0.write_all(&frame(&event.encode()))
    }

    /// Hands the socket over to the runtime.
    pub(super) fn into_async(self) -> io::Result<tokio::net::UnixStream> {
        self.0.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(self.0)
    }
}

/// Writes events as they come, up to the last one, [`WorkerEvent::Ended`].
pub(super) async fn write_events(
    mut socket: tokio::net::UnixStream,
    mut events: mpsc::Receiver<WorkerEvent>,
) -> io::Result<()> {
    while let Some(event) = events.recv().await {
        socket.write_all(&frame(&event.encode())).await?;
        if matches!(event, WorkerEvent::Ended { .. }) {
            break;
        }
    }
    socket.shutdown().await
}

/// The supervisor's side: one frame out.
pub(super) async fn write_frame(
    socket: &mut (impl tokio::io::AsyncWrite + Unpin),
    body: &[u8],
) -> io::Result<()> {
    socket.write_all(&frame(body)).await
}

/// The supervisor's side: the next frame, `None` at the end.
pub(super) async fn read_frame(
    socket: &mut (impl tokio::io::AsyncRead + Unpin),
) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 4];
    match socket.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; checked_length(prefix)?];
    socket.read_exact(&mut body).await?;
    Ok(Some(body))
}
