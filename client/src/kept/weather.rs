//! Whether the session has a line.

use tokio::time::Instant;

/// What a person at a terminal would want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weather {
    /// Bytes pass, as far as anybody can tell.
    Fair,
    /// They do not.
    Foul {
        /// Since when.
        since: Instant,
        /// Why, in a few words.
        why: String,
    },
}
