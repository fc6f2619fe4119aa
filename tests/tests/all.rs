//! Tests of the whole: real binaries, real kernels, other people's clients.
//!
//! One binary, so that it links once; a folder `all/` with a module a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "all/algorithms.rs"]
mod algorithms;
#[path = "all/architecture.rs"]
mod architecture;
#[path = "all/asciicast.rs"]
mod asciicast;
#[path = "all/attach.rs"]
mod attach;
#[path = "all/audit.rs"]
mod audit;
#[path = "all/audit_formats.rs"]
mod audit_formats;
#[path = "all/break_glass.rs"]
mod break_glass;
#[path = "all/chaos.rs"]
mod chaos;
#[path = "all/clones.rs"]
mod clones;
#[path = "all/compat.rs"]
mod compat;
#[path = "all/every_way.rs"]
mod every_way;
#[path = "all/evidence.rs"]
mod evidence;
#[path = "all/fallback.rs"]
mod fallback;
#[path = "all/herds.rs"]
mod herds;
#[path = "all/hostile.rs"]
mod hostile;
#[path = "all/join.rs"]
mod join;
#[path = "all/journald.rs"]
mod journald;
#[path = "all/keep.rs"]
mod keep;
#[path = "all/lab.rs"]
mod lab;
#[path = "all/live.rs"]
mod live;
#[path = "all/no_room.rs"]
mod no_room;
#[path = "all/quickstart.rs"]
mod quickstart;
#[path = "all/recording.rs"]
mod recording;
#[path = "all/recording_input.rs"]
mod recording_input;
#[path = "all/recording_sealed.rs"]
mod recording_sealed;
#[path = "all/refusals.rs"]
mod refusals;
#[path = "all/resume.rs"]
mod resume;
#[path = "all/searching.rs"]
mod searching;
#[path = "all/session.rs"]
mod session;
