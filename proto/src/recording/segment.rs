//! A segment and its signature.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::ids::{DeviceId, SessionId};

/// What is signed begins with this; the trailing zero ends the string.
pub const DOMAIN: &[u8] = b"belay recording v1\0";

/// The segment's layout. A reader refuses any other.
pub const VERSION: u16 = 1;

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum End {
    /// With its session.
    #[n(0)]
    Whole,
    /// Whoever recorded died first: the device says so afterwards.
    #[n(1)]
    Cut,
}

/// A few seconds of one track.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Segment {
    /// [`VERSION`].
    #[n(0)]
    pub version: u16,
    /// The session recorded.
    #[n(1)]
    pub session: SessionId,
    /// The device that signs.
    #[n(2)]
    pub device: DeviceId,
    /// Counts from 0 over all tracks. A number that is left out is a segment the device made and
    /// could not keep.
    #[n(3)]
    pub number: u64,
    /// SHA-256 of the segment before, as encoded; 32 zeros in the first.
    #[n(4)]
    pub before: ByteVec,
    /// Whose lines these are.
    #[n(5)]
    pub track: u32,
    /// When the first of its events happened: milliseconds since 1970 by the relay's clock, as the
    /// device knew it.
    #[n(6)]
    pub first_ms: u64,
    /// The same of the last.
    #[n(7)]
    pub last_ms: u64,
    /// The payload is a zstd frame (RFC 8878) of the text.
    #[n(8)]
    pub compressed: Option<bool>,
    /// The payload is encrypted to auditors, after it was compressed.
    #[n(9)]
    pub sealed: Option<bool>,
    /// Nothing follows.
    #[n(10)]
    pub end: Option<End>,
    /// Lines of asciicast v3.
    #[n(11)]
    pub payload: ByteVec,
    /// The key of a sealed recording, 32 bytes, as an age file (<https://age-encryption.org/v1>) for
    /// its auditors. The same key in all segments that have one.
    #[n(12)]
    pub key: Option<ByteVec>,
}

/// A segment and its signature, as sent and stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedSegment {
    /// The [`Segment`], encoded. Kept as the bytes that were signed.
    #[n(0)]
    pub segment: ByteVec,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5), in ASN.1, over [`DOMAIN`] and those bytes.
    #[n(1)]
    pub signature: ByteVec,
}

/// The bytes to sign for an encoded segment.
pub fn signed_bytes(encoded: &[u8]) -> Vec<u8> {
    [DOMAIN, encoded].concat()
}

/// What the next segment names an encoded one by. Not the signature: that differs each time.
pub fn digest(encoded: &[u8]) -> [u8; 32] {
    Sha256::digest(encoded).into()
}
