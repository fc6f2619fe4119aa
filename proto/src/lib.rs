//! What both ends of a line must agree on: identifiers, wire messages, grants, policy, presence.
//!
//! Its law: this crate does no I/O, reads no clock and no random numbers, and depends on nothing
//! that does. Time and randomness are arguments. Signatures are checked through a trait the caller
//! brings, so no cryptography is linked here either (SHA-256 as a checksum aside).

pub mod api;
pub mod audit;
pub mod error_line;
pub mod evidence;
pub mod grant;
pub mod ids;
pub mod keeping;
pub mod limits;
pub mod names;
pub mod policy;
pub mod presence;
pub mod reconnect;
pub mod recording;
pub mod refusal;
pub mod resume;
pub mod time;
pub mod token;
pub mod version;
pub mod wire;
