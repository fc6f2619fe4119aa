//! How much of a line a transfer gets: lines that lose, lines that are long.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Way;
use super::flow::Flow;
use super::transfer::Towards;
use crate::lab::Netns;

/// Megabytes a second through each way in turns; for each way, the middle of its turns. A turn
/// counts what arrives from the first byte on, for `span`: the transport's own start is in it, the
/// connecting is not.
///
/// # Errors
/// When a transfer does not run.
pub fn measure(
    laptop: &Netns,
    ways: &[&Way],
    towards: Towards,
    span: Duration,
    turns: usize,
) -> Result<Vec<f64>> {
    let mut all = vec![Vec::new(); ways.len()];
    for _ in 0..turns {
        for (way, speeds) in ways.iter().zip(&mut all) {
            let flow = Flow::start(laptop, way, towards)?;
            speeds.push(flow.speed(span));
            flow.stop().with_context(|| way.name)?;
        }
    }
    Ok(all.into_iter().map(middle).collect())
}

fn middle(mut speeds: Vec<f64>) -> f64 {
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}
