//! The `belay` command line: log in, find devices, open shells on them, carry `ssh` to them.
//!
//! `commands` has one file a command. `home` keeps the login, `api` asks the relay over HTTPS,
//! `line` dials it and opens sessions, `kept` keeps one over lines that come and go, `ssh` speaks to the device inside one, `terminal`
//! and `stdio` are this side's ends, `ssh_config` makes plain `ssh` do the same. What it is not:
//! it decides nothing about who may do what.

pub mod api;
mod cli;
pub mod commands;
pub mod device_ref;
pub mod failure;
pub mod home;
pub mod kept;
pub mod line;
pub mod output;
mod run;
pub mod span;
pub mod ssh;
pub mod ssh_config;
pub mod stdio;
mod table;
pub mod terminal;

pub use cli::Cli;
pub use run::main;
