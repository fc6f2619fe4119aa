//! How long until a command has run on the device: connect, authenticate, run `true`, come back.

use std::process::Stdio;
use std::time::Instant;

use anyhow::Result;

use super::Way;
use super::stats::Samples;
use super::way::Terminal;
use crate::lab::Netns;

/// Measures every way in turns; one warm-up each.
///
/// # Errors
/// When a command fails.
pub fn measure(laptop: &Netns, ways: &[&Way], turns: usize) -> Result<Vec<Samples>> {
    let mut all = vec![Samples::default(); ways.len()];
    for turn in 0..=turns {
        for (way, samples) in ways.iter().zip(&mut all) {
            let mut command = way.command(Terminal::None, "true");
            command.stdin(Stdio::null());
            let (output, took) = laptop.run(|| {
                let began = Instant::now();
                (command.output(), began.elapsed())
            })?;
            way.checked(output)?;
            if turn > 0 {
                samples.push(took);
            }
        }
    }
    Ok(all)
}
