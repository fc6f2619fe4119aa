//! The device agent: holds the line, starts a worker for every session.
//!
//! `enrol` makes this machine a device, `supervisor` holds its line, `worker` serves one session
//! in a process of its own. `state` is what is kept between runs.

pub mod enrol;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod worker;
