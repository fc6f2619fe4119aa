//! Whether the other end can be reached: noticing that it cannot, and trying until it can.
//!
//! Its law: nothing here sends a byte on an idle line. Silence is judged only while something is
//! under way, a route is asked of the kernel and not of the network, and whoever insists does so
//! because somebody waits.

mod backoff;
mod insist;
mod route;
mod silence;

pub use backoff::{Backoff, NoRandomness};
pub use insist::insist;
pub use route::{Route, WatchedRoute};
pub use silence::Silence;
