//! What the tests of the whole share: the network lab, simulated devices, the work that
//! must not notice a fault, what stands in between on people's networks, the benchmark.
//!
//! This crate is never shipped. It may import every other crate; none imports it.

pub mod bench;
pub mod fleet;
pub mod lab;
pub mod load;
pub mod middle;
pub mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// A program of the workspace, built beside the present one: `belay`, `belay-relay`, `belay-agent`
/// and those of this crate.
///
/// # Errors
/// When it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("finding the present program")?;
    // A test binary lives one directory below.
    let dirs = here.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    ensure!(found.is_some(), "{name} is not built: cargo build --release --workspace --bins");
    found.context("not found")
}
