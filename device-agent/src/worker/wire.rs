//! The session's bytes: one duplex stream made of one or two descriptors.
//!
//! Of the standard-input mode alone: a supervised worker has a resumable stream
//! ([`super::greeted`]). The SSH library sees no difference. Reads go through a buffer,
//! because that library asks for four bytes, then for the rest of a packet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::limits::{COPY_CHUNK, SOCKET_BUFFER};
use super::sys;

pub(super) struct Wire {
    input: AsyncFd<OwnedFd>,
    output: Option<AsyncFd<OwnedFd>>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    begun: bool,
}

/// What a peer begins with (RFC 4253, section 4.2: `SSH-…`). The library waits
/// for a whole line, and for more after an empty one; whoever begins otherwise
/// can be told at once.
pub(super) const FIRST: u8 = b'S';

/// OpenSSH's words for it, which its tools and tests know.
pub(super) const NO_SSH: &[u8] = b"Invalid SSH identification string.\r\n";

impl Wire {
    /// Takes over both descriptors, non-blocking. Must run inside a runtime.
    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        for fd in [&input, &output] {
            set_nonblocking(fd)?;
            enlarge(fd);
        }
        Ok(Self {
            input: sys::watch(input, Interest::READABLE)?,
            output: Some(sys::watch(output, Interest::WRITABLE)?),
            buffer: vec![0; COPY_CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
            begun: false,
        })
    }
}

pub(super) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Larger kernel buffers mean fewer wake-ups. The kernel may give less, and a
/// terminal has none: neither is an error.
pub(super) fn enlarge(fd: impl AsFd) {
    let as_socket = rustix::net::sockopt::set_socket_send_buffer_size(&fd, SOCKET_BUFFER);
    if as_socket.is_err() {
        enlarge_pipe(fd);
    }
}

pub(super) fn enlarge_pipe(fd: impl AsFd) {
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(fd, super::limits::PIPE_SIZE) {
        tracing::trace!(%error, "a pipe keeps its size");
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end {
            loop {
                let mut guard = ready!(this.input.poll_read_ready(cx))?;
                match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *this.buffer)?)) {
                    Ok(read) => {
                        this.start = 0;
                        this.end = read?;
                        if !this.begun && this.end > 0 {
                            this.begun = true;
                            if this.buffer.first() != Some(&FIRST) {
                                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                            }
                        }
                        break;
                    }
                    Err(_would_block) => {}
                }
            }
        }
        let have = this.buffer.get(this.start..this.end).unwrap_or_default();
        let take = have.len().min(into.remaining());
        into.put_slice(have.get(..take).unwrap_or_default());
        this.start += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(output) = &self.output else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut guard = ready!(output.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket is told; a pipe is closed by dropping it.
        if let Some(output) = self.output.take() {
            match rustix::net::shutdown(output.get_ref(), rustix::net::Shutdown::Write) {
                Ok(()) | Err(rustix::io::Errno::NOTSOCK | rustix::io::Errno::NOTCONN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }
}
