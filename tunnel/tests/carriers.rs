//! Both carriers under one suite, and the ways to them: proxies, the race, a blocked UDP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "carriers/hostile.rs"]
mod hostile;
#[path = "carriers/quiet.rs"]
mod quiet;
#[path = "carriers/rig.rs"]
mod rig;
#[path = "carriers/same.rs"]
mod same;
#[path = "carriers/ways.rs"]
mod ways;
