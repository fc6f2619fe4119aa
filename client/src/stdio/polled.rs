//! A descriptor the kernel tells us about: pipes, sockets, terminals.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::READ;

/// Bytes held back while the reader of our output is busy. OpenSSH holds a channel's window, 2 MiB;
/// a program that feeds our input and reads our output in turn must not stop sooner here.
const MAX_HELD: usize = 4 * 1024 * 1024;

/// Pieces written by one system call.
const MAX_SLICES: usize = 64;

/// A pipe's buffer, in bytes: what Linux grants without privilege (pipe(7), pipe-max-size). With
/// the default 64 KiB, bulk data costs four times the wake-ups.
#[cfg(target_os = "linux")]
const PIPE_BUFFER: usize = 1024 * 1024;

/// A non-blocking descriptor whose flags are put back when it is dropped: they belong to everyone
/// who shares the open file.
struct NonBlocking {
    fd: OwnedFd,
    before: Option<OFlags>,
}

impl NonBlocking {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(Self { fd, before: None });
        }
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd, before: Some(flags) })
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        if let Some(flags) = self.before {
            // Nothing can be done about a descriptor that is gone.
            fcntl_setfl(&self.fd, flags).ok();
        }
    }
}

impl std::os::fd::AsRawFd for NonBlocking {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe; the descriptor is owned here and never replaced, as asked"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<NonBlocking>> {
    #[cfg(target_os = "linux")]
    {
        // A pipe that stays small is only slower.
        rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BUFFER).ok();
    }
    AsyncFd::new(NonBlocking::new(fd)?)
}

/// The reading side.
pub(super) struct Reader {
    fd: AsyncFd<NonBlocking>,
    buffer: BytesMut,
}

impl Reader {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd)?, buffer: BytesMut::new() })
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        // What is left of the buffer serves small reads; zeroing is paid per buffer, not per read.
        if self.buffer.len() < READ / 4 {
            self.buffer.clear();
            self.buffer.resize(READ, 0);
        }
        let count = loop {
            // Data is usually there: ask first, wait after.
            match rustix::io::read(self.fd.get_ref().fd.as_fd(), &mut self.buffer[..]) {
                Ok(count) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut ready = self.fd.readable().await?;
                    ready.clear_ready();
                    match rustix::io::read(self.fd.get_ref().fd.as_fd(), &mut self.buffer[..]) {
                        Ok(count) => break count,
                        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                // A terminal whose other side went away.
                Err(rustix::io::Errno::IO) => break 0,
                Err(error) => return Err(error.into()),
            }
        };
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(count).freeze()))
    }
}

/// The writing side.
pub(super) struct Writer {
    fd: AsyncFd<NonBlocking>,
    held: Mutex<Held>,
    more: Notify,
    less: Notify,
}

#[derive(Default)]
struct Held {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    broken: Option<io::ErrorKind>,
}

impl Writer {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let fd = register(fd)?;
        Ok(Self { fd, held: Mutex::default(), more: Notify::new(), less: Notify::new() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes at once what goes; holds the rest, and waits only while too much is held.
    /// [`Writer::drive`] writes what is held.
    pub(super) async fn push(&self, mut bytes: &[u8]) -> io::Result<()> {
        {
            let mut held = self.held();
            if let Some(kind) = held.broken {
                return Err(kind.into());
            }
            if held.chunks.is_empty() {
                bytes = self.write_now(bytes)?;
                if bytes.is_empty() {
                    return Ok(());
                }
            }
            held.chunks.push_back(Bytes::copy_from_slice(bytes));
            held.bytes += bytes.len();
        }
        self.more.notify_one();
        self.wait_until(|held| held.bytes <= MAX_HELD).await
    }

    fn write_now<'b>(&self, mut bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        while !bytes.is_empty() {
            match rustix::io::write(self.fd.get_ref().fd.as_fd(), bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    async fn wait_until(&self, enough: impl Fn(&Held) -> bool) -> io::Result<()> {
        loop {
            let changed = self.less.notified();
            {
                let held = self.held();
                if let Some(kind) = held.broken {
                    return Err(kind.into());
                }
                if enough(&held) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Waits until nothing is held.
    pub(super) async fn flush(&self) -> io::Result<()> {
        self.wait_until(|held| held.chunks.is_empty()).await
    }

    /// Writes what is held, for as long as it is polled. Ends only with an error.
    pub(super) async fn drive(&self) -> io::Error {
        loop {
            self.more.notified().await;
            if let Err(error) = self.write_held().await {
                self.held().broken = Some(error.kind());
                self.less.notify_waiters();
                self.less.notify_one();
                return error;
            }
        }
    }

    async fn write_held(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.writable().await?;
            let mut held = self.held();
            while let Some(mut chunk) = held.chunks.pop_front() {
                let rest = self.write_now(&chunk)?.len();
                let done = chunk.len() - rest;
                held.bytes -= done;
                if rest > 0 {
                    chunk.advance(done);
                    held.chunks.push_front(chunk);
                    break;
                }
            }
            let empty = held.chunks.is_empty();
            drop(held);
            self.less.notify_waiters();
            self.less.notify_one();
            if empty {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Writes pieces in order, waiting for each. Not to be mixed with [`Writer::push`].
    pub(super) async fn write_pieces(&self, pieces: &mut [Bytes]) -> io::Result<()> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(rest.iter()) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let slices = slices.get(..used).unwrap_or_default();
            let mut written = match rustix::io::writev(self.fd.get_ref().fd.as_fd(), slices) {
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => self.wait_writable(slices).await?,
                Err(error) => return Err(error.into()),
            };
            let mut done = 0;
            for piece in rest.iter_mut() {
                if written < piece.len() {
                    piece.advance(written);
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

    async fn wait_writable(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.writable().await?;
            match rustix::io::writev(self.fd.get_ref().fd.as_fd(), slices) {
                Ok(written) => return Ok(written),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
