//! The device agent: holds the line, starts a worker for every session.
//!
//! `enrol` makes this machine a device, `supervisor` holds its line, `worker` serves one session
//! in a process of its own. `state` is what is kept between runs, `session_dir` what is known of
//! sessions that run. `end`, `status` and `doctor` are the owner's; `journal` is where the log goes
//! under systemd.

pub mod doctor;
pub mod end;
pub mod enrol;
pub mod journal;
mod process_id;
pub mod program;
mod session_dir;
pub mod state;
pub mod status;
pub mod supervisor;
pub mod worker;
