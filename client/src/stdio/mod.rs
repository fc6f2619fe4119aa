//! Standard input and output as the session's two ends: fast, bounded, never blocking the runtime.
//!
//! A pipe, socket or terminal is polled; a file, which no poll covers, has a thread of its own.
//! Nothing is left changed for the programs that share the descriptors.

#[cfg(unix)]
mod polled;
mod thread;

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub use elsewhere::{Sink, Source, let_go_of_stderr};
#[cfg(unix)]
pub use unix::{Sink, Source, let_go_of_stderr};

/// Bytes read at once. Large enough that the cost of a wake-up is spread thin, small enough that
/// one read does not hold a whole window.
const READ: usize = 256 * 1024;

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}
