//! `belay audit prove SEQ`

use belay_proto::audit::leaf_hash;
use serde_json::json;

use super::relay::Log;
use super::show;
use crate::failure::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure};
use crate::output::{self, Format};
use crate::run::Context;

/// Fetches one entry and the proof that the log has it, checks it, and prints both.
pub(super) async fn run(context: &Context, seq: u64) -> Result<u8, Failure> {
    let log = Log::of(context, None)?;
    let newest = log.trusted(&context.home).await?;
    let now = &newest.checkpoint;
    if seq == 0 || seq > now.size {
        let cause = format!("the log has no entry {seq}: they are counted from 1 to {}", now.size);
        return Err(Failure::new("usage", cause).exit(EXIT_USAGE));
    }
    let page = log.page(seq - 1, seq).await?;
    let line = page.entries.into_iter().next().unwrap_or_default();
    let proof = log.inclusion(&line, seq, now).await?;
    let proven = proof.is_some();
    if context.format == Format::Json {
        output::json(&json!({
            "proven": proven,
            "seq": seq,
            "entry": line,
            "leaf": leaf_hash(line.as_bytes()),
            "hashes": proof,
            "size": now.size,
            "root": now.root,
            "checkpoint": newest.note,
            "vkey": newest.key.to_string(),
        }))?;
    } else {
        output::line(show::entry(&line))?;
        output::line(match &proof {
            Some(hashes) => format!(
                "proven by {} hashes: it is entry {seq} of the log of {} entries, root {}, by {}",
                hashes.len(),
                now.size,
                now.root,
                newest.key
            ),
            None => format!(
                "NOT PROVEN: what the relay has as entry {seq} is not what was signed; see: belay \
                 audit verify"
            ),
        })?;
    }
    Ok(if proven { EXIT_OK } else { EXIT_FAILED })
}
