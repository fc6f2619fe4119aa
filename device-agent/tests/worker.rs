//! The session worker as other programs see it: OpenSSH's client against a
//! worker on standard input and output, and the supervisor's side of one.
//!
//! Every test says loudly where it cannot run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "worker/neighbours.rs"]
mod neighbours;
#[path = "worker/openssh.rs"]
mod openssh;
#[path = "worker/refusals.rs"]
mod refusals;
#[path = "worker/rig.rs"]
mod rig;
#[path = "worker/supervised.rs"]
mod supervised;
#[path = "worker/wire.rs"]
mod wire;
