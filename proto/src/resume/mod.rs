//! The resume layer: one stream in both directions that outlives what carries it.
//!
//! Between a client process and a session worker there is at any time at most one *attachment*: a
//! reliable, ordered pipe of bytes that may break anywhere. [`Resume`] is one end of the stream
//! above it. The bytes out are the bytes in, once and in order, however many attachments that
//! takes: each end keeps what it sent until the other has it, and sends it again on the next.
//!
//! # The wire
//! Frames: a type byte, then integers as in RFC 9000 §16, then payload.
//!
//! | frame | type | fields | meaning |
//! |---|---|---|---|
//! | START | 1 | length, version, received, limit, replay, … | first on each attachment, both ways; later versions add fields |
//! | DATA | 2 | offset, length, bytes | at most 64 KiB |
//! | ACK | 3 | received, limit | everything before `received` is kept; data is taken up to `limit` |
//! | FIN | 4 | offset | the stream ends here; takes one offset, so it is acknowledged like a byte |
//! | RESET | 5 | code | both directions end at once; sent on each attachment until confirmed |
//! | CONFIRM | 6 | | your RESET is known |
//! | PING, PONG | 7, 8 | number | is anyone there |
//!
//! An end on its very first attachment sends data right behind its START, up to 64 KiB, so opening
//! costs no round trip. On every later one it waits for the other's START, so that nothing travels
//! twice. `received` is a promise of memory, not of consumption; `limit` is what flow control
//! there is, and it never goes back.
//!
//! # What it is not
//! It reads no clock and does no I/O: its driver is `belay_tunnel::stream`. It proves nothing about
//! who the other end is: whoever makes an attachment has done that before. It hides nothing: what
//! it carries is encrypted end to end already.

mod ahead;
mod frame;
mod hear;
mod inbox;
mod pieces;
mod replay;
mod silence;
mod state;
mod varint;
mod violation;

pub use self::state::{Config, Output, Received, Resume};
pub use self::violation::Violation;

/// The version this build speaks. A later one must still understand this one.
pub const VERSION: u64 = 1;

/// Longest payload of a DATA frame, in bytes. Long enough that headers cost nothing, short enough
/// that an acknowledgement does not wait long behind one.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Least size of a replay buffer and of a window, in bytes: what an end may send before it has
/// heard the other's START.
pub const LEAST_BUFFER: usize = 64 * 1024;

/// [`LEAST_BUFFER`] as the limit before any was told.
const FIRST_LIMIT: u64 = LEAST_BUFFER as u64;

/// Why a stream was given up, as a number both ends know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetCode(pub u32);

impl ResetCode {
    /// An end went away without ending its stream.
    pub const GONE: Self = Self(1);
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self(2);
}
