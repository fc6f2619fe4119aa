//! The relay's QUIC side: from the first packet to the last byte of a session.
//!
//! `listen` takes handshakes in, bounded; `admit` judges who it is; `device` and `client` hold an
//! admitted connection; `registry` knows all live ones; `session` opens and splices; `revoke` cuts
//! what a change no longer allows. Every task lives in the listener's tracker, and nothing here
//! ever sees plaintext.

mod admit;
mod client;
mod device;
mod listen;
mod outcome;
mod registry;
mod revoke;
mod session;

pub use listen::{Limits, Listener};
pub use registry::Registry;
pub use revoke::watch as watch_changes;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Strangers;
use crate::ca::Authority;
use crate::store::Store;

/// What every task of the QUIC side shares.
pub struct Shared {
    /// The relay's memory.
    pub store: Store,
    /// Its keys.
    pub authority: Arc<Authority>,
    /// Live connections and sessions.
    pub registry: Arc<Registry>,
    /// Bounds what strangers can make it record.
    pub strangers: Arc<Strangers>,
    /// Bounds.
    pub limits: Limits,
    /// No new sessions from now on.
    pub draining: CancellationToken,
    /// Everything ends from now on.
    pub stop: CancellationToken,
    /// Every task.
    pub tasks: TaskTracker,
}
