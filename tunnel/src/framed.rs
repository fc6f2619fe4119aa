//! One message on a byte stream.

use std::io;

use belay_proto::wire::frame::{
    FrameError, LENGTH_BYTES, decode_payload, encode_frame, payload_length,
};
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
