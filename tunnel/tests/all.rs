//! The carriers and what runs over them, in memory, on loopback and on a virtual clock.
//!
//! One binary, so that it links once; a folder `all/` with a module a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "all/carriers/mod.rs"]
mod carriers;
#[path = "all/chance.rs"]
mod chance;
#[path = "all/congestion/mod.rs"]
mod congestion;
#[path = "all/frozen.rs"]
mod frozen;
#[path = "all/https.rs"]
mod https;
#[path = "all/resume.rs"]
mod resume;
#[path = "all/simulation/mod.rs"]
mod simulation;
