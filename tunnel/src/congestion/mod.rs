//! Our congestion controller: how much may be in flight on a carrier.
//!
//! It is for links that lose packets for reasons of their own: radio, long satellite paths, bad
//! cables. It keeps a model of the path and sets the window from it: `bandwidth` is what the path
//! delivers, measured by `round`; `base` how long it takes when nothing waits; `luck` what it
//! usually loses; `headroom` how far beyond all that the window may go. Law: loss alone never
//! lowers the estimates; a delivery rate measured while the path was full does. Constant work per
//! acknowledgement, no allocation, no state per packet.
//!
//! It is not a pacer: quinn spreads a window over a smoothed round trip by itself.

mod bandwidth;
mod base;
mod controller;
mod headroom;
mod luck;
mod round;

use std::sync::Arc;
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory};

/// Makes a controller for each path of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct BelayConfig;

impl ControllerFactory for BelayConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(controller::Belay::new(now, current_mtu))
    }
}
