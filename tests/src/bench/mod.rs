//! The benchmark: Belay beside OpenSSH's reverse tunnel, on one machine, in one run.
//!
//! Its law: ours and the peer's are measured in turns (A, B, A, B), so that whatever else the
//! machine does meets both; a figure is a median of turns or a quantile of samples; what is
//! transferred is compared by digest once, outside the timed part. A figure never fails a run, only
//! one that could not be measured does.
//!
//! `ours` and `peer` bring both up in the same lab, `mosh` another peer for one figure; a [`Way`] is
//! one of the ways in that are compared. `transfer`, `prompt` and `echo` are what is done through
//! each; `herd` is about very many devices, `footprint` and `idle` about one. `bulk`, `busy` and
//! `recover` are about lines that lose, are full, or go away, and `bad_links` brings such lines up;
//! `overhead` is about the resume layer alone, `record` about recording. `plan` puts them together into the table.

pub mod bad_links;
pub mod bulk;
pub mod busy;
pub mod echo;
pub mod flow;
pub mod footprint;
pub mod herd;
pub mod idle;
pub mod machine;
pub mod mosh;
pub mod ours;
pub mod overhead;
pub mod peer;
pub mod plan;
pub mod prompt;
pub mod record;
pub mod recover;
pub mod stats;
pub mod stop;
pub mod table;
pub mod transfer;
pub mod way;

pub use way::Way;
