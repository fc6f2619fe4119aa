//! `belay audit tail`

use std::time::Duration;

use super::relay::Log;
use super::show;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;

/// Between two looks for new entries. A look costs the relay one short read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Shows the newest `count` entries, and with `follow` goes on with new ones.
pub(super) async fn run(context: &Context, count: u64, follow: bool) -> Result<(), Failure> {
    let log = Log::of(context, None)?;
    let newest = log.newest().await?;
    let mut upto = newest.checkpoint.size;
    let mut after = upto.saturating_sub(count);
    if count == 0 && !follow {
        return Ok(());
    }
    loop {
        let page = log.page(after, upto).await?;
        for (entry, seq) in page.entries.iter().zip(after + 1..) {
            if entry.is_empty() {
                match context.format {
                    Format::Json => output::line(format!("{{\"seq\":{seq},\"pruned\":true}}"))?,
                    Format::Text => output::line(format!("#{seq}  pruned: only its hash is left"))?,
                }
                continue;
            }
            match context.format {
                Format::Json => output::line(output::inert(entry))?,
                Format::Text => output::line(show::entry(entry))?,
            }
        }
        let more = page.upto > after && page.upto < upto;
        after = page.upto;
        if more {
            continue;
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        upto = u64::MAX;
    }
}
