//! Carriers: what holds a line between a dialler and the relay.
//!
//! A [`Carrier`] opens and accepts two-way byte streams. Each half keeps its own end: finishing a
//! [`SendHalf`] leaves the other direction open, a reset is told apart from an end, and both carry
//! a code. Dropping an unfinished half resets it, so a crash is never taken for a clean end.

mod congestion;
mod copy;
mod end;
mod mux;
pub mod picker;
pub mod quic;
mod quic_reset;
mod quic_runtime;
mod quic_socket;
mod quic_udp;
mod stream;
pub mod websocket;

pub use copy::{CopyError, from_socket, pass_on, splice, to_socket};
pub use end::CarrierError;
pub use stream::{Carrier, RecvHalf, ResetCode, SendHalf, Side, StreamError};
