//! What a device keeps of a session for auditors: asciicast v3, cut into segments that hang together.
//!
//! A session has one recording. It has *tracks*: 0 is the session's own (channels, forwards, what was
//! refused), and every terminal and every command gets the next number. A track is an asciicast v3
//! file ([`cast`]); a [`Segment`] is a few seconds of one track. The segments of all tracks are one
//! chain: each names the digest of the one before it and is signed by the device's key, so that a
//! segment that was changed, moved, taken out, or brought from another session is seen by whoever has
//! the device's certificate ([`Chain`]). A recording without its last segment is cut.
//!
//! What it is not: nothing here compresses, encrypts, or keeps a file.

pub mod cast;
mod chain;
pub mod file;
mod segment;
mod text;
mod upload;

pub use chain::{Chain, ChainError, Gap};
pub use segment::{DOMAIN, End, Segment, SignedSegment, VERSION, digest, signed_bytes};
pub use text::Utf8;
pub use upload::{Opening, UNANSWERED, Upload, Uploaded, stream};

use std::time::Duration;

/// The session's own track.
pub const SESSION_TRACK: u32 = 0;

/// Longest text of one segment in bytes, before compression. Text that does not compress grows by
/// 300 bytes at most (zstd's own bound), and what is around it takes 200: a segment fits a frame
/// ([`crate::limits::MAX_FRAME`]).
pub const TEXT_MAX: usize = 60 * 1024;

/// Longest payload of a segment, as stored.
pub const PAYLOAD_MAX: usize = 63 * 1024;

/// What a device may hold back before it closes a segment.
pub const SEGMENT_TIME: Duration = Duration::from_secs(3);

/// Longest recording in segments. At one segment in 3 s this is 145 days; a flood closes one each
/// 60 KiB, and this is then 240 GiB of text.
pub const SEGMENTS_MAX: u64 = 1 << 22;

/// What a grant may oblige a device to ([`crate::grant::Grant::obligations`]).
pub mod obligation {
    /// Record the session as well as it can be done.
    pub const RECORD: &str = "record";
    /// Record it whole, or end it.
    pub const RECORD_REQUIRED: &str = "record-required";
    /// Those this build knows.
    pub const KNOWN: [&str; 2] = [RECORD, RECORD_REQUIRED];
}

/// How much hangs on a session's recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// There is none.
    #[default]
    Off,
    /// What cannot be kept is marked as missing, and the session goes on.
    BestEffort,
    /// What cannot be kept does not happen.
    Required,
}

impl Policy {
    /// Of a grant's obligations; the strictest counts.
    pub fn of<T: AsRef<str>>(obligations: &[T]) -> Self {
        let has = |wanted| obligations.iter().any(|named| named.as_ref() == wanted);
        if has(obligation::RECORD_REQUIRED) {
            Self::Required
        } else if has(obligation::RECORD) {
            Self::BestEffort
        } else {
            Self::Off
        }
    }

    /// As a grant names it.
    pub const fn obligation(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::BestEffort => Some(obligation::RECORD),
            Self::Required => Some(obligation::RECORD_REQUIRED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_obligation_counts_and_an_unknown_one_is_nobodys() {
        assert_eq!(Policy::of::<&str>(&[]), Policy::Off);
        assert_eq!(Policy::of(&["sing"]), Policy::Off);
        assert_eq!(Policy::of(&["record"]), Policy::BestEffort);
        assert_eq!(Policy::of(&["record-required", "record"]), Policy::Required);
        for policy in [Policy::BestEffort, Policy::Required] {
            assert_eq!(Policy::of(&[policy.obligation().unwrap_or_default()]), policy);
        }
    }
}
