//! One message on a byte stream.

use std::io;

use belay_proto::wire::frame::{
    FrameError, LENGTH_BYTES, decode_payload, encode_frame, payload_length,
};
use bytes::{Buf as _, BytesMut};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The stream ended before the message did.
    #[error("the stream ended before the message was whole")]
    Ended,
    /// The stream broke.
    #[error("the stream broke")]
    Stream(#[source] io::Error),
    /// The peer sent something else.
    #[error("the peer broke the protocol")]
    Frame(#[from] FrameError),
}

impl From<io::Error> for MessageError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Ended } else { Self::Stream(error) }
    }
}

/// Reads one message. Cancelling loses what was read: do not race it on a stream that goes on.
///
/// # Errors
/// [`MessageError`].
pub async fn read<M, R>(stream: &mut R) -> Result<M, MessageError>
where
    M: for<'b> Decode<'b, ()>,
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut payload = vec![0; payload_length(prefix)?];
    stream.read_exact(&mut payload).await?;
    Ok(decode_payload(&payload)?)
}

/// Writes one message.
///
/// # Errors
/// [`MessageError`].
pub async fn write<M, W>(stream: &mut W, message: &M) -> Result<(), MessageError>
where
    M: Encode<()>,
    W: AsyncWrite + Unpin,
{
    let frame = encode_frame(message)?;
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads message after message from a stream that goes on. Idle it holds no payload.
#[derive(Debug)]
pub struct Messages<R> {
    stream: R,
    buffer: BytesMut,
}

/// Bytes asked for at once: most control messages are shorter.
const READ: usize = 256;

impl<R: AsyncRead + Unpin> Messages<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the stream's end. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`MessageError`].
    pub async fn next<M>(&mut self) -> Result<Option<M>, MessageError>
    where
        M: for<'b> Decode<'b, ()>,
    {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = payload_length(*prefix)?;
                let rest = self.buffer.get(LENGTH_BYTES..).unwrap_or_default();
                if let Some(payload) = rest.get(..length) {
                    let message = decode_payload(payload)?;
                    self.buffer.advance(LENGTH_BYTES + length);
                    return Ok(Some(message));
                }
            }
            self.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(MessageError::Ended) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use belay_proto::wire::control::Control;

    #[tokio::test]
    async fn messages_are_told_apart_however_the_network_cuts_them() {
        let sent: Vec<_> =
            (0..50).map(|n| Control { ping: Some(n), ..Control::default() }).collect();
        let mut bytes = Vec::new();
        for message in &sent {
            write(&mut bytes, message).await.unwrap();
        }
        for step in [1, 3, 7, bytes.len()] {
            let mut pieces = in_pieces(&bytes, step);
            let mut messages = Messages::new(&mut pieces);
            for expected in &sent {
                assert_eq!(messages.next::<Control>().await.unwrap().as_ref(), Some(expected));
            }
            assert!(messages.next::<Control>().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_cut_message_and_a_long_one_are_errors() {
        let mut cut: &[u8] = &[0, 0, 0, 9, 0xa1];
        let error = Messages::new(&mut cut).next::<Control>().await.unwrap_err();
        assert!(matches!(error, MessageError::Ended));
        let mut long: &[u8] = &[0xff; 64];
        let error = Messages::new(&mut long).next::<Control>().await.unwrap_err();
        assert!(matches!(error, MessageError::Frame(FrameError::TooLong(_))));
    }

    /// A reader that gives at most `step` bytes at a time.
    fn in_pieces(bytes: &[u8], step: usize) -> impl AsyncRead + Unpin + use<> {
        struct Pieces(Vec<u8>, usize);
        impl AsyncRead for Pieces {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                let take = self.1.min(self.0.len()).min(buf.remaining());
                let piece: Vec<u8> = self.0.drain(..take).collect();
                buf.put_slice(&piece);
                std::task::Poll::Ready(Ok(()))
            }
        }
        Pieces(bytes.to_vec(), step)
    }
}
