//! A recording as one file: what a relay keeps and an auditor is given.
//!
//! Records one after another, the first a [`Head`], each other a [`super::SignedSegment`]. A record
//! has its length before it and after it (4 bytes, network order), so that the last one is found
//! from the file's end. A file that ends in anything else was being written when the power went.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::segment::VERSION;
use crate::ids::SessionId;
use crate::limits::MAX_FRAME;
use crate::wire::frame::{FrameError, decode_payload};

/// Bytes of a length.
pub const LENGTH: usize = 4;

/// The file's first record. What it says is to be checked: the deployment's CA must have issued the
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// [`super::VERSION`].
    #[n(0)]
    pub version: u16,
    /// The session recorded.
    #[n(1)]
    pub session: SessionId,
    /// The device's certificate when the recording began: X.509, DER.
    #[n(2)]
    pub certificate: ByteVec,
}

/// A file does not begin as a recording.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not a head at all.
    #[error("the head of the recording's file cannot be read")]
    Unreadable(#[from] FrameError),
    /// A layout this build does not know.
    #[error("the head of the recording's file has version {0}; this build knows {VERSION}")]
    Version(u16),
}

impl Head {
    /// Reads the first record. No signature is over it, so it may say nothing that is not checked:
    /// its session and its certificate are by whoever reads it.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn read(record: &[u8]) -> Result<Self, HeadError> {
        let head: Self = decode_payload(record)?;
        if head.version == VERSION { Ok(head) } else { Err(HeadError::Version(head.version)) }
    }
}

/// Appends a record.
pub fn append(record: &[u8], out: &mut Vec<u8>) {
    // No record is longer than a frame.
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(record);
    out.extend_from_slice(&length);
}

/// A length as it stands in the file, when a record may have it.
pub fn length(bytes: [u8; LENGTH]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(bytes)).ok().filter(|length| *length <= MAX_FRAME)
}

/// The first record and what follows it; `None` where no whole one begins.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (record, rest) = rest.split_at_checked(length(*before)?)?;
    let (after, rest) = rest.split_first_chunk::<LENGTH>()?;
    (before == after).then_some((record, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_head_of_another_version_is_refused() {
        let certificate = b"certificate".to_vec().into();
        let session = SessionId::from_uuid(uuid::Uuid::from_u128(1));
        for version in [0, VERSION, VERSION + 1] {
            let head = Head { version, session, certificate: ByteVec::clone(&certificate) };
            let read = Head::read(&minicbor::to_vec(&head).unwrap());
            assert_eq!(read.is_ok(), version == VERSION, "{read:?}");
        }
        assert!(matches!(Head::read(b"no head"), Err(HeadError::Unreadable(_))));
    }

    #[test]
    fn records_are_found_from_either_end_and_half_a_one_is_none() {
        let mut file = Vec::new();
        append(b"one", &mut file);
        append(b"second", &mut file);
        assert_eq!(split(&file), Some((&b"one"[..], &file[11..])));
        assert_eq!(split(&file[11..]), Some((&b"second"[..], &b""[..])));
        let last = file.last_chunk().copied().and_then(length);
        assert_eq!(last, Some(6));
        for cut in 12..file.len() {
            assert_eq!(split(&file[11..cut]), None);
        }
        assert_eq!(length([0xff; 4]), None);
    }
}
