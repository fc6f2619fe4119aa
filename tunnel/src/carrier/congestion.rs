//! The congestion controller, chosen in this one place.

use std::sync::Arc;

use quinn::congestion::ControllerFactory;

use crate::congestion::BelayConfig;

/// Our own: quinn's Cubic moves a thirtieth of a line that loses one packet in a hundred.
pub(super) fn controller() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(BelayConfig)
}
