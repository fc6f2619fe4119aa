//! Systems without pollable descriptors: a thread for each stream.

use std::io;

use bytes::Bytes;

use super::{Which, thread};

/// Nobody is known to wait for its end here.
pub const fn let_go_of_stderr() {}

/// Standard input.
pub struct Source(thread::Reader);

impl Source {
    /// Takes standard input.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stdin() -> io::Result<Self> {
        thread::Reader::start(io::stdin()).map(Self)
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// Of the stream.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.next().await
    }
}

/// Standard output or error.
pub struct Sink(thread::Writer);

impl Sink {
    /// Takes one of the two outputs.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(which: Which) -> io::Result<Self> {
        match which {
            Which::Out => thread::Writer::start(io::stdout()),
            Which::Err => thread::Writer::start(io::stderr()),
        }
        .map(Self)
    }

    /// Takes bytes; waits only while far too many are held back.
    ///
    /// # Errors
    /// Of the stream.
    pub async fn push(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(Bytes::copy_from_slice(bytes)).await
    }

    /// Writes pieces in order.
    ///
    /// # Errors
    /// Of the stream.
    pub async fn write_pieces(&self, pieces: &mut [Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.0.write(std::mem::take(piece)).await?;
        }
        Ok(())
    }

    /// Nothing to do: the thread writes by itself.
    pub async fn drive(&self) -> io::Error {
        std::future::pending().await
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Of the stream.
    pub async fn finish(&self) -> io::Result<()> {
        self.0.finish().await
    }
}
