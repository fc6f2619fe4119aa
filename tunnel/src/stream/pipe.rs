//! What an attachment is made of: anything that gives and takes pieces of bytes in order.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::ready;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How much is asked for in one read. The core keeps pieces of a quarter of it without copying.
const BLOCK: usize = 64 * 1024;

/// With less room than this left in a block, the next read begins a new one.
const LEAST_READ: usize = 16 * 1024;

/// Pieces given to the kernel at once; Linux takes 1,024 (`UIO_MAXIOV`), and 256 KiB of bulk are
/// eight.
const SLICES: usize = 32;

/// Where an attachment's bytes come from.
pub trait Source: Send {
    /// Receives into `pieces`; how many were filled, or `None` at a clean end. May be dropped
    /// before it is done.
    ///
    /// # Errors
    /// When the attachment is broken.
    fn receive(
        &mut self,
        pieces: &mut [Bytes],
    ) -> impl Future<Output = io::Result<Option<usize>>> + Send;
}

/// Where an attachment's bytes go.
pub trait Sink: Send {
    /// Sends all of `pieces`, waiting as long as the transport does. What is left in them is not
    /// defined.
    ///
    /// # Errors
    /// When the attachment is broken.
    fn send_all(&mut self, pieces: &mut [Bytes]) -> impl Future<Output = io::Result<()>> + Send;

    /// Ends it cleanly: the other side gets all, then the end.
    ///
    /// # Errors
    /// When the attachment is broken.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Any byte stream as a [`Source`].
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    block: BytesMut,
}

impl<R: AsyncRead + Unpin + Send> Reader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, block: BytesMut::new() }
    }
}

impl<R: AsyncRead + Unpin + Send> Source for Reader<R> {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        let Some(piece) = pieces.first_mut() else { return Ok(Some(0)) };
        if self.block.capacity() < LEAST_READ {
            self.block.reserve(BLOCK);
        }
        if self.inner.read_buf(&mut self.block).await? == 0 {
            return Ok(None);
        }
        *piece = self.block.split().freeze();
        Ok(Some(1))
    }
}

/// Any byte stream as a [`Sink`].
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: AsyncWrite + Unpin + Send> Writer<W> {
    /// Writes to `inner`.
    pub const fn new(inner: W) -> Self {
        Self(inner)
    }
}

impl<W: AsyncWrite + Unpin + Send> Sink for Writer<W> {
    async fn send_all(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        let mut left = pieces;
        loop {
            while left.first().is_some_and(Bytes::is_empty) {
                left = left.split_first_mut().map_or(&mut [], |(_, rest)| rest);
            }
            if left.is_empty() {
                return self.0.flush().await;
            }
            let mut count = poll_fn(|cx| {
                let mut slices = [IoSlice::new(&[]); SLICES];
                for (slice, piece) in slices.iter_mut().zip(left.iter()) {
                    *slice = IoSlice::new(piece);
                }
                let filled = slices.get(..left.len()).unwrap_or(&slices);
                let count = ready!(Pin::new(&mut self.0).poll_write_vectored(cx, filled));
                std::task::Poll::Ready(count)
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            for piece in left.iter_mut() {
                let now = count.min(piece.len());
                piece.advance(now);
                count -= now;
                if count == 0 {
                    break;
                }
            }
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
