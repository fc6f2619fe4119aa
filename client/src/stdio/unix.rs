//! Which way fits a descriptor, by what it is.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::termios::ttyname;

use super::{Which, polled, thread};

/// Points standard error at nothing, so that whoever reads it to its end does not wait for this
/// process.
pub fn let_go_of_stderr() {
    let let_go =
        open("/dev/null", OFlags::WRONLY, Mode::empty()).and_then(rustix::stdio::dup2_stderr);
    if let Err(error) = let_go {
        // It is still there then, and can be told.
        drop(writeln!(io::stderr(), "belay: cannot let go of standard error: {error}"));
    }
}

/// Standard input.
pub struct Source(Reading);

enum Reading {
    Polled(polled::Reader),
    Thread(thread::Reader),
}

impl Source {
    /// Takes standard input.
    ///
    /// # Errors
    /// When it is closed or cannot be read.
    pub fn stdin() -> io::Result<Self> {
        Self::of(io::stdin().as_fd().try_clone_to_owned()?)
    }

    /// Takes any descriptor.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(match kind(&fd)? {
            Kind::Stream => Reading::Polled(polled::Reader::new(fd)?),
            Kind::Terminal => match own_terminal(&fd, OFlags::RDONLY) {
                Some(terminal) => Reading::Polled(polled::Reader::new(terminal)?),
                None => Reading::Thread(thread::Reader::start(File::from(fd))?),
            },
            Kind::File | Kind::Device => Reading::Thread(thread::Reader::start(File::from(fd))?),
        }))
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// Of the descriptor.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &mut self.0 {
            Reading::Polled(reader) => reader.next().await,
            Reading::Thread(reader) => reader.next().await,
        }
    }
}

/// Standard output or error.
pub struct Sink(Writing);

enum Writing {
    Polled(polled::Writer),
    Thread(thread::Writer),
    /// `/dev/null` and its like never make a writer wait.
    Direct(File),
}

impl Sink {
    /// Takes one of the two outputs.
    ///
    /// # Errors
    /// When it is closed or cannot be written.
    pub fn open(which: Which) -> io::Result<Self> {
        Self::of(match which {
            Which::Out => io::stdout().as_fd().try_clone_to_owned()?,
            Which::Err => io::stderr().as_fd().try_clone_to_owned()?,
        })
    }

    /// Takes any descriptor.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(match kind(&fd)? {
            Kind::Stream => Writing::Polled(polled::Writer::new(fd)?),
            Kind::Terminal => match own_terminal(&fd, OFlags::WRONLY) {
                Some(terminal) => Writing::Polled(polled::Writer::new(terminal)?),
                None => Writing::Thread(thread::Writer::start(File::from(fd))?),
            },
            Kind::File => Writing::Thread(thread::Writer::start(File::from(fd))?),
            Kind::Device => Writing::Direct(File::from(fd)),
        }))
    }

    /// Takes bytes; waits only while far too many are held back. Needs [`Sink::drive`].
    ///
    /// # Errors
    /// Of the descriptor.
    pub async fn push(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.0 {
            Writing::Polled(writer) => writer.push(bytes).await,
            Writing::Thread(writer) => writer.write(Bytes::copy_from_slice(bytes)).await,
            Writing::Direct(file) => (&*file).write_all(bytes),
        }
    }

    /// Writes pieces in order and waits for each. Not to be mixed with [`Sink::push`].
    ///
    /// # Errors
    /// Of the descriptor.
    pub async fn write_pieces(&self, pieces: &mut [Bytes]) -> io::Result<()> {
        match &self.0 {
            Writing::Polled(writer) => writer.write_pieces(pieces).await,
            Writing::Thread(writer) => {
                for piece in pieces {
                    writer.write(std::mem::take(piece)).await?;
                }
                Ok(())
            }
            Writing::Direct(file) => pieces.iter().try_for_each(|piece| (&*file).write_all(piece)),
        }
    }

    /// Writes what is held back, while it is polled. Ends only with an error.
    pub async fn drive(&self) -> io::Error {
        match &self.0 {
            Writing::Polled(writer) => writer.drive().await,
            Writing::Thread(_) | Writing::Direct(_) => std::future::pending().await,
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Of the descriptor.
    pub async fn finish(&self) -> io::Result<()> {
        match &self.0 {
            Writing::Polled(writer) => writer.flush().await,
            Writing::Thread(writer) => writer.finish().await,
            Writing::Direct(_) => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Stream,
    Terminal,
    File,
    Device,
}

fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
    if rustix::termios::isatty(fd) {
        return Ok(Kind::Terminal);
    }
    Ok(match kind {
        FileType::Fifo | FileType::Socket => Kind::Stream,
        FileType::CharacterDevice => Kind::Device,
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::BlockDevice
        | FileType::Unknown => Kind::File,
    })
}

/// The same terminal opened once more: its flags are ours alone, and the shell that started us
/// finds its own as they were, however we end.
fn own_terminal(fd: &OwnedFd, access: OFlags) -> Option<OwnedFd> {
    let path = ttyname(fd, Vec::new()).ok()?;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).ok()
}
