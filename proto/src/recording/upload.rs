//! Segments on their way from a device to the relay: a stream of its own, which the device opens.
//!
//! First [`Opening`], then an [`Upload`] for each segment; the relay answers each with an
//! [`Uploaded`], once it is on its disk. A segment that was sent before is answered and kept once.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::SessionId;
use crate::refusal::Refused;

/// What a stream is for that a device opens ([`Opening::kind`]).
pub mod stream {
    /// Segments of recordings.
    pub const RECORDINGS: &str = "recordings";
}

/// Segments on the way at once, at most, and their bytes: enough for a flood on a satellite link,
/// and little beside a session.
pub const UNANSWERED: usize = 32;

/// The first frame of a stream that a device opens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// [`stream`]. The relay resets a stream of a kind it does not know.
    #[n(0)]
    pub kind: Option<String>,
}

/// One segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Upload {
    /// A [`super::SignedSegment`], encoded.
    #[n(0)]
    pub segment: Option<ByteVec>,
}

/// The answer to one segment, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Uploaded {
    /// Whose.
    #[n(0)]
    pub session: Option<SessionId>,
    /// It and all before it are on the relay's disk.
    #[n(1)]
    pub number: Option<u64>,
    /// They are not. [`crate::refusal::Code::Store`] and [`crate::refusal::Code::Busy`] mean that it
    /// is worth sending again; anything else, that it never will be taken.
    #[n(2)]
    pub refused: Option<Refused>,
}
