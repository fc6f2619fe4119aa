//! Resumable streams: a session's bytes outlive what carries them.
//!
//! [`session`] makes one end: what the application sends on and receives from, and an [`Attacher`].
//! Whoever owns the attacher brings it one attachment after another, any [`Source`] and [`Sink`]
//! that lead to the same session's other end, and runs each with [`Attacher::carry`]. The
//! application notices nothing of them but time. The rules are `belay_proto::resume`'s; here is
//! only what waits, wakes and copies.
//!
//! Its law: no task of its own. [`Attacher::carry`] is the only loop that does I/O, and it belongs
//! to whoever awaits it. Dropping any future here loses no byte: what an application gave stays
//! until the other end has it, what came stays until the application takes it.
//!
//! What it is not: it dials nothing, knows no session id, and proves nothing about the other end.

mod attacher;
mod carry;
mod ends;
mod halves;
mod pipe;
mod shared;

pub use belay_proto::resume::{Config, ResetCode, Violation};

pub use self::attacher::{Attacher, Carried, Lost, Traffic};
pub use self::ends::{Ended, Joined, RecvEnd, SendEnd, join};
pub use self::pipe::{Reader, Sink, Source, Writer};
pub use self::shared::Link;

/// One end of a resumable stream, attached to nothing yet.
pub fn session(config: Config) -> (SendEnd, RecvEnd, Attacher) {
    let shared = shared::Shared::new(config);
    (SendEnd::new(shared.clone()), RecvEnd::new(shared.clone()), Attacher::new(shared))
}
