//! Packets of SFTP: cutting them out of the stream, reading and writing their
//! fields. Everything is bounded by [`PACKET_MAX`] before it is looked at.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

/// Longest packet, without its length: OpenSSH's own bound.
pub(super) const PACKET_MAX: usize = 256 * 1024;

/// Longest piece of a file in one packet; the rest of the packet is header.
pub(super) const DATA_MAX: usize = PACKET_MAX - 1024;

/// Names and versions of extensions, announced in `SSH_FXP_VERSION`.
pub(super) const ANNOUNCED: [(&str, &str); 11] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

/// Bytes on their way in: two packets, so that one can be completed while the
/// next begins.
const INPUT: usize = 2 * (PACKET_MAX + 4);

/// A buffer packets are cut from.
pub(super) struct Incoming {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { bytes: vec![0; INPUT].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Incoming {
    /// The next whole packet, if it has arrived.
    pub(super) fn packet(&mut self) -> io::Result<Option<&[u8]>> {
        let have = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((prefix, rest)) = have.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 || length > PACKET_MAX {
            // There is no way to find the next packet after this one.
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a packet of {length} bytes, allowed are 1 to {PACKET_MAX}"),
            ));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start + 4;
        self.start = from + length;
        Ok(self.bytes.get(from..from + length))
    }

    /// Reads more; `false` at the end of the stream.
    pub(super) fn fill(&mut self, input: &mut impl Read) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > INPUT / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let free = self.bytes.get_mut(self.end..).unwrap_or_default();
        loop {
            match input.read(free) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A field was missing or made no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of a packet, front to back.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        let (string, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(string)
    }

    /// A path: any bytes but NUL; the empty one is the directory we are in.
    pub(super) fn path(&mut self) -> Result<&'a Path, Malformed> {
        let bytes = self.string()?;
        if bytes.contains(&0) {
            return Err(Malformed);
        }
        let bytes = if bytes.is_empty() { b"." } else { bytes };
        Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
    }
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing we write comes near four gigabytes.
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}

/// Writes one packet: its kind, its request's id and what `body` adds.
pub(super) fn put_packet(out: &mut Vec<u8>, kind: u8, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    put_u32(out, 0);
    out.push(kind);
    put_u32(out, id);
    body(out);
    close_packet(out, at);
}

/// Sets the length of the packet that began at `at`.
pub(super) fn close_packet(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(prefix) = out.get_mut(at..at + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

/// draft-ietf-secsh-filexfer-02, section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    System(io::Error),
    Because(Code, &'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Because(Code::BadMessage, "the request is malformed")
    }
}

impl Fault {
    /// The code as OpenSSH's server maps it, and the system's own words.
    pub(super) fn status(&self) -> (Code, String) {
        match self {
            Self::Because(code, why) => (*code, (*why).to_owned()),
            Self::System(error) => {
                let code = match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR | libc::EBADF | libc::ELOOP) => {
                        Code::NoSuchFile
                    }
                    Some(libc::EPERM | libc::EACCES | libc::EFAULT) => Code::PermissionDenied,
                    Some(libc::ENAMETOOLONG | libc::EINVAL) => Code::BadMessage,
                    Some(libc::ENOSYS | libc::EOPNOTSUPP) => Code::Unsupported,
                    Some(_) | None => Code::Failure,
                };
                (code, error.to_string())
            }
        }
    }
}

pub(super) const STATUS: u8 = 101;

pub(super) fn put_status(out: &mut Vec<u8>, id: u32, code: Code, message: &str) {
    put_packet(out, STATUS, id, |out| {
        put_u32(out, code as u32);
        put_string(out, message.as_bytes());
        put_string(out, b"en");
    });
}
