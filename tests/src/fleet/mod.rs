//! Simulated devices: thousands of lines to a real relay from one process.
//!
//! A simulated device speaks the real protocol through the real carrier: mutual TLS with a key and
//! certificate of its own, `Hello`, answers to probes, and streams that are accepted and echoed.
//! What it leaves out is what a relay never sees: workers, grants' verification, state on disk.
//!
//! `credentials` makes identities in bulk, straight into the data directory of a relay that is not
//! running, so that enrolment is no part of what is measured. `device` is one line. `herd` connects
//! and holds them. `console` drives a herd by lines of text, and [`Remote`] is its other end: the
//! herd then lives in a process of its own, in whatever network namespace it was started in.

pub mod console;
pub mod credentials;
mod device;
mod herd;
mod remote;
pub mod run;

pub use credentials::{Credentials, Member};
pub use herd::{Herd, Ramp, RampReport, Standing};
pub use remote::{Remote, program};
