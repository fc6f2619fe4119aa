//! A ring in an unlinked file: bytes a queue cannot keep in memory.
//!
//! The file has no name, belongs to the login user (and counts against its
//! quota) and vanishes with the process. It is written through the page cache
//! and never synced, so a spill that is soon read back rarely touches the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::worker::limits::{COPY_CHUNK, SPILL_MAX};

/// On disk before memory: `/tmp` is often a tmpfs.
const DIRECTORIES: [&str; 2] = ["/var/tmp", "/tmp"];

/// A device with less room than this is left alone.
const SPILL_MIN: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    capacity: u64,
    /// Bytes ever read and ever written; their place is the remainder.
    read: u64,
    written: u64,
}

impl Spill {
    pub(super) fn open() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::StorageFull);
        for directory in DIRECTORIES {
            match room(directory)
                .and_then(|capacity| Ok((capacity, tempfile::tempfile_in(directory)?)))
            {
                Ok((capacity, file)) => return Ok(Self { file, capacity, read: 0, written: 0 }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read == self.written
    }

    /// Writes what there is room for; 0 when full.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.capacity - (self.written - self.read);
        let (place, length) = self.span(self.written, room.min(len(bytes)));
        let taken = self.file.write_at(bytes.get(..length).unwrap_or_default(), place)?;
        self.written += taken as u64;
        Ok(taken)
    }

    /// The next bytes in order, at most one chunk.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        let (place, length) = self.span(self.read, self.written - self.read);
        let mut chunk = vec![0; length.min(COPY_CHUNK * 4)];
        self.file.read_exact_at(&mut chunk, place)?;
        self.read += len(&chunk);
        Ok(chunk)
    }

    /// Where position `at` lies, and how much of `wanted` follows it in one piece.
    fn span(&self, at: u64, wanted: u64) -> (u64, usize) {
        let place = at % self.capacity;
        let length = wanted.min(self.capacity - place);
        (place, usize::try_from(length).unwrap_or(usize::MAX))
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn room(directory: &str) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(directory)?;
    let capacity = (fs.f_bavail.saturating_mul(fs.f_frsize) / 10).min(SPILL_MAX);
    if capacity < SPILL_MIN {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(capacity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_full_ring_takes_nothing_and_wraps_once_read() {
        let file = tempfile::tempfile().unwrap();
        let mut spill = Spill { file, capacity: 10, read: 0, written: 0 };
        assert_eq!(spill.write(b"01234567").unwrap(), 8);
        assert_eq!(spill.write(b"89ab").unwrap(), 2);
        assert_eq!(spill.write(b"ab").unwrap(), 0);
        assert_eq!(spill.read().unwrap(), b"0123456789");
        assert_eq!(spill.write(b"abcdef").unwrap(), 6);
        assert_eq!(spill.write(b"ghijkl").unwrap(), 4);
        assert_eq!(spill.read().unwrap(), b"abcdefghij");
        assert!(spill.is_empty());
    }

    #[test]
    fn a_write_across_the_edge_is_split_and_kept_in_order() {
        let file = tempfile::tempfile().unwrap();
        let mut spill = Spill { file, capacity: 10, read: 0, written: 0 };
        spill.write(b"0123456").unwrap();
        spill.read().unwrap();
        assert_eq!(spill.write(b"abcdef").unwrap(), 3);
        assert_eq!(spill.write(b"def").unwrap(), 3);
        let mut out = spill.read().unwrap();
        out.extend(spill.read().unwrap());
        assert_eq!(out, b"abcdef");
    }
}
