//! What a supervisor, or a visitor, says to a running worker.
//!
//! The order came once, before anything else; these come later, on any control
//! connection. A map with optional fields, as the two may be of different
//! versions.

use minicbor::{Decode, Encode};

/// One frame to a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Word {
    /// Every event up to this number was dealt with.
    #[n(0)]
    pub heard: Option<u64>,
    /// End the session, and why. One line, fit to be shown to the engineer.
    #[n(1)]
    pub end: Option<String>,
}
