//! The binary as a person and a script meet it, without a relay: help, refusals, exit statuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "all/offline.rs"]
mod offline;
#[path = "all/ssh_config.rs"]
mod ssh_config;
#[path = "all/support.rs"]
mod support;
