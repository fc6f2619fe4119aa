//! The relay's QUIC side: from the first packet to the last byte of a session.
//!
//! `listen` takes handshakes in, bounded; `admit` judges who it is; `device` and `client` hold an
//! admitted connection; `renewal` and `held` answer what a device asks for and says of its
//! sessions; `registry` knows all that is live, `left` tells those that a killed relay left behind; `session` opens, gives back and splices; `revoke`
//! ends what a change no longer allows; `twin` and `flapping` look at a device that comes too often or
//! twice. Every task lives in the listener's tracker, and nothing
//! here ever sees plaintext.

mod admit;
mod client;
mod device;
mod flapping;
mod held;
mod left;
mod listen;
mod registry;
mod renewal;
mod revoke;
mod session;
mod twin;

pub use flapping::Flapping;
pub(crate) use left::tell_left_lines;
pub(crate) use listen::Entered;
pub use listen::{Door, Limits, Listener};
pub use registry::Registry;
pub use revoke::watch as watch_changes;

use std::sync::Arc;

use belay_tunnel::carrier::{Carrier, ResetCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Strangers;
use crate::ca::Authority;
use crate::recordings::Recordings;
use crate::store::Store;

/// What every task of the QUIC side shares.
pub struct Shared {
    /// The relay's memory.
    pub store: Store,
    /// Its keys.
    pub authority: Arc<Authority>,
    /// Recordings of sessions.
    pub recordings: Arc<Recordings>,
    /// Live connections and sessions.
    pub registry: Arc<Registry>,
    /// Bounds what strangers can make it record.
    pub strangers: Arc<Strangers>,
    /// Slows down who connects again and again.
    pub flapping: Flapping,
    /// Bounds.
    pub limits: Limits,
    /// No new sessions from now on.
    pub draining: CancellationToken,
    /// Everything ends from now on.
    pub stop: CancellationToken,
    /// Every task.
    pub tasks: TaskTracker,
}

/// Ends a carrier without a word. One that has ended keeps its own reason, which its sessions are
/// about to look at.
fn hang_up(carrier: &Carrier) {
    if carrier.end().is_none() {
        carrier.close(ResetCode::GONE, "");
    }
}
