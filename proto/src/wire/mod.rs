//! Messages between two ends of a carrier: length-prefixed CBOR maps.
//!
//! A frame is a four-byte big-endian length and that many bytes of CBOR (RFC 8949), at most
//! [`crate::limits::MAX_FRAME`]. Every message is a map with small integer keys; unknown keys are
//! skipped, absent ones take their default, and a key is never reused. So a device ten years in
//! the field is still understood.

pub mod control;
pub mod frame;
pub mod open;

pub use frame::{FrameError, decode_payload, encode_frame};
