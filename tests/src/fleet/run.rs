//! What the program `fleet` does, on a runtime of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use super::{Credentials, console};

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

/// Enrols devices in a relay's data directory.
///
/// # Errors
/// As [`Credentials::enrol`].
pub fn enrol(data: &Path, prefix: &str, count: u32) -> Result<Credentials> {
    runtime()?.block_on(Credentials::enrol(data, prefix, count))
}

/// Holds lines as standard input says, until it ends.
///
/// # Errors
/// As [`console::serve`].
pub fn hold(fleet: Credentials, relay: SocketAddr, patience: Duration) -> Result<()> {
    let runtime = runtime()?;
    let served = runtime.block_on(console::serve(fleet, relay, patience));
    // Standard input is read on a thread that only its end would free.
    runtime.shutdown_background();
    served
}
