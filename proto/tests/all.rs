//! The codec's proof: frozen bytes, properties, and every file the fuzzers ever found interesting.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]

#[path = "all/audit.rs"]
mod audit;
#[path = "all/corpus.rs"]
mod corpus;
#[path = "all/golden.rs"]
mod golden;
#[path = "all/heap.rs"]
mod heap;
#[path = "all/hex.rs"]
mod hex;
#[path = "all/json.rs"]
mod json;
#[path = "all/properties.rs"]
mod properties;
#[path = "all/resume_model.rs"]
mod resume_model;
#[path = "all/resume_rules.rs"]
mod resume_rules;
#[path = "all/samples.rs"]
mod samples;
#[path = "all/strategies.rs"]
mod strategies;
#[path = "all/targets.rs"]
mod targets;
