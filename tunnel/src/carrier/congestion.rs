//! The congestion controller, chosen in this one place.

use std::sync::Arc;

use quinn::congestion::{ControllerFactory, CubicConfig};

/// CUBIC (RFC 9438): what TCP peers on the same path run.
pub(super) fn controller() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(CubicConfig::default())
}
