//! Passing bytes on: stream to stream, and between a stream and a local socket.
//!
//! Each direction ends by itself. An end is passed on as an end, a reset as a reset with its code,
//! and a reader that gave up makes the writer on the far side give up: nothing is buffered beyond
//! the windows, so a slow reader slows its writer and nobody else.

use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stream::{RecvHalf, ResetCode, SendHalf, StreamError};

/// Pieces taken at once. A piece is at most one packet's payload.
const BATCH: usize = 64;

/// Bytes read from a local socket at once.
const READ: usize = 128 * 1024;

/// One direction ended otherwise than by its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The stream side.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The local side.
    #[error("the local socket broke")]
    Local(#[source] io::Error),
}

/// Passes one direction on from carrier to carrier. Returns the bytes passed.
///
/// # Errors
/// When either side gave up; the other has been told by then.
pub async fn splice(
    mut from: RecvHalf,
    to: SendHalf,
    passed: impl Fn(u64),
) -> Result<(), StreamError> {
    pass_on(&mut from, to, passed).await.inspect_err(|gone| from.stop(code_of(gone)))
}

/// The same, but a sender whose reader is gone is not told: that is left to whoever has `from`.
///
/// # Errors
/// The side that broke; the reader has been told by then.
pub async fn pass_on(
    from: &mut RecvHalf,
    mut to: SendHalf,
    passed: impl Fn(u64),
) -> Result<(), StreamError> {
    let mut pieces = [const { Bytes::new() }; BATCH];
    loop {
        let received = tokio::select! {
            received = from.receive(&mut pieces) => received,
            // While nothing comes, a reader that gave up must still be noticed.
            Err(gone) = to.stopped() => return Err(gone),
        };
        match received {
            Ok(Some(count)) => {
                let (filled, _) = pieces.split_at_mut(count.min(BATCH));
                passed(filled.iter().map(|piece| piece.len() as u64).sum());
                to.send(joined(filled)).await?;
            }
            Ok(None) => {
                to.finish();
                return Ok(());
            }
            Err(gone) => {
                to.reset(code_of(&gone));
                return Err(gone);
            }
        }
    }
}

/// What was received, in one piece. For each packet it sends, quinn looks for its place among all
/// pieces that are not yet acknowledged, from the first on: thousands of the size of a packet cost
/// several times what this copy does.
fn joined(pieces: &mut [Bytes]) -> Bytes {
    if let [only] = pieces {
        return std::mem::take(only);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&std::mem::take(piece));
    }
    whole.freeze()
}

const fn code_of(error: &StreamError) -> ResetCode {
    match error {
        StreamError::Reset(code) => *code,
        StreamError::Carrier => ResetCode::GONE,
    }
}

/// Passes a stream on to a local socket, and its end as a shutdown.
///
/// # Errors
/// [`CopyError`]; the other side has been told.
pub async fn to_socket(
    mut from: RecvHalf,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), CopyError> {
    let mut pieces = [const { Bytes::new() }; BATCH];
    loop {
        match from.receive(&mut pieces).await {
            Ok(Some(count)) => {
                let (filled, _) = pieces.split_at_mut(count.min(BATCH));
                if let Err(error) = write_pieces(&mut to, filled).await {
                    from.stop(ResetCode::GONE);
                    return Err(CopyError::Local(error));
                }
            }
            Ok(None) => return to.shutdown().await.map_err(CopyError::Local),
            Err(gone) => {
                // A local socket knows no reset; what reads it finds its protocol unfinished.
                to.shutdown().await.map_err(CopyError::Local)?;
                return Err(gone.into());
            }
        }
    }
}

async fn write_pieces(to: &mut (impl AsyncWrite + Unpin), pieces: &mut [Bytes]) -> io::Result<()> {
    let mut rest = pieces;
    while !rest.is_empty() {
        let mut slices = [IoSlice::new(&[]); BATCH];
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(rest.iter()) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        let (slices, _) = slices.split_at(used);
        let mut written = to.write_vectored(slices).await?;
        if written == 0 && rest.iter().any(|piece| !piece.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut done = 0;
        for piece in rest.iter_mut() {
            if written < piece.len() {
                bytes::Buf::advance(piece, written);
                break;
            }
            written -= piece.len();
            *piece = Bytes::new();
            done += 1;
        }
        rest = rest.split_at_mut(done).1;
    }
    Ok(())
}

/// Passes a local socket's bytes on to a stream, and its shutdown as an end.
///
/// # Errors
/// [`CopyError`]; the other side has been told.
pub async fn from_socket(
    mut from: impl AsyncRead + Unpin,
    mut to: SendHalf,
) -> Result<(), CopyError> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read.map_err(CopyError::Local)?,
            Err(gone) = to.stopped() => return Err(gone.into()),
        };
        if read == 0 {
            to.finish();
            return Ok(());
        }
        to.send(buffer.split().freeze()).await?;
    }
}
