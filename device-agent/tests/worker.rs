//! The session worker as other programs see it: OpenSSH's client against a
//! worker on standard input and output, the supervisor's side of one, and
//! clients and supervisors that come and go.
//!
//! Every test says loudly where it cannot run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "worker/adoption.rs"]
mod adoption;
#[path = "worker/attach.rs"]
mod attach;
#[path = "worker/far_end.rs"]
mod far_end;
#[path = "worker/join.rs"]
mod join;
#[path = "worker/neighbours.rs"]
mod neighbours;
#[path = "worker/openssh.rs"]
mod openssh;
#[path = "worker/reattach.rs"]
mod reattach;
#[path = "worker/recording.rs"]
mod recording;
#[path = "worker/refusals.rs"]
mod refusals;
#[path = "worker/rig.rs"]
mod rig;
#[path = "worker/supervised.rs"]
mod supervised;
#[path = "worker/wire.rs"]
mod wire;
