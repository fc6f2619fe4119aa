//! Typing while a transfer fills the line.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Way;
use super::echo::Session;
use super::flow::Flow;
use super::stats::Samples;
use super::transfer::Towards;
use super::way::Terminal;
use crate::lab::Netns;

/// What was found of one way.
#[derive(Debug, Clone)]
pub struct Found {
    /// Echoes on the idle line.
    pub idle: Samples,
    /// Echoes beside the transfer.
    pub busy: Samples,
    /// Megabytes a second of the transfer meanwhile.
    pub speed: f64,
}

/// Opens a terminal, measures it idle, then beside a transfer to the same device, each with a client
/// of its own.
///
/// # Errors
/// When a session or the transfer does not run.
pub fn measure(
    laptop: &Netns,
    way: &Way,
    towards: Towards,
    settle: Duration,
    bytes: usize,
) -> Result<Found> {
    let mut session = Session::open(laptop, way, Terminal::There).with_context(|| way.name)?;
    let idle = session.samples(bytes)?;
    let flow = Flow::start(laptop, way, towards)?;
    // The transfer's start is no steady state.
    std::thread::sleep(settle);
    let (began, before) = (Instant::now(), flow.arrived());
    let busy = session.samples(bytes).with_context(|| way.name)?;
    let speed = (flow.arrived() - before) as f64 / 1e6 / began.elapsed().as_secs_f64();
    drop(session);
    flow.stop().with_context(|| way.name)?;
    Ok(Found { idle, busy, speed })
}
