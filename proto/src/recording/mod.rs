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

/// Longest text of one segment in bytes, before compression: eight times the longest payload, which
/// ordinary output reaches and a bomb does not exceed.
pub const TEXT_MAX: usize = 512 * 1024;

/// Longest text of one frame in a payload. Text that does not compress grows by 300 bytes at most
/// (zstd's own bound), so that a frame always fits a payload.
pub const FRAME_TEXT_MAX: usize = 60 * 1024;

/// Longest payload of a segment, as stored. What is around it takes 200 bytes, and a
/// [`Segment::key`] its own: a segment fits a frame ([`crate::limits::MAX_FRAME`]).
pub const PAYLOAD_MAX: usize = 63 * 1024;

/// A zstd dictionary (RFC 8878 §5), for segments of a few keys: their lines have much in common with
/// what people type everywhere, and little with each other. Frozen; another one gets another id.
pub const DICTIONARY: &[u8] = include_bytes!("dictionary-1.bin");

/// Its id, which a frame that needs it names.
pub const DICTIONARY_ID: u32 = 1;

/// Auditors a recording is sealed to, at most.
pub const RECIPIENTS_MAX: usize = 16;

/// Longest [`Segment::key`]: that many stanzas of age's take half of it.
pub const KEY_MAX: usize = 4 * 1024;

/// A sealed recording repeats its key so often, in segments, and in its first: one of them that is
/// lost takes none of the others with it.
pub const KEY_EVERY: u64 = 64;

/// What is bound to a sealed payload begins with this; session, number and track follow.
pub const SEALED_DOMAIN: &[u8] = b"belay sealed segment v1\0";

/// What a device may hold back before it closes a segment.
pub const SEGMENT_TIME: Duration = Duration::from_secs(3);

/// Longest recording in segments. At one segment in 3 s this is 145 days; a flood closes one each
/// 60 KiB of payload, and this is then 240 GiB.
pub const SEGMENTS_MAX: u64 = 1 << 22;

/// What a grant may oblige a device to ([`crate::grant::Grant::obligations`]).
pub mod obligation {
    /// Record the session as well as it can be done.
    pub const RECORD: &str = "record";
    /// Record it whole, or end it.
    pub const RECORD_REQUIRED: &str = "record-required";
    /// What is recorded is sealed to [`crate::grant::Grant::recipients`], or it is not recorded.
    pub const SEAL: &str = "seal";
    /// With one of the two that record: what is typed at terminals is recorded too, as far as they
    /// echo it.
    pub const RECORD_INPUT: &str = "record-input";
    /// Those this build knows.
    pub const KNOWN: [&str; 4] = [RECORD, RECORD_REQUIRED, SEAL, RECORD_INPUT];
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
