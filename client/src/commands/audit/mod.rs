//! `belay audit tail|export|verify|prove|checkpoint`
//!
//! Its law: nothing the relay says of the log is believed for being said. Its key is remembered the
//! first time it is seen, and what was verified once must be the beginning of what is verified later.

mod export;
mod file;
mod known;
mod prove;
mod relay;
mod show;
mod tail;
mod verify;
mod witnesses;

use std::path::PathBuf;

use belay_proto::audit::{VerifierKey, WitnessKey};
use clap::Subcommand;

use crate::failure::{EXIT_OK, Failure};
use crate::run::Context;

pub(super) use export::read as read_export;
pub(super) use known::Known;
pub(super) use relay::Log;
pub(super) use show::first_sight;
pub(super) use verify::read_notes;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the newest entries of the audit log
    #[command(
        after_help = "Needs the role auditor or administrator; reading is recorded.\n\nExample:\n  belay audit tail -n 50\n  belay audit tail --follow\n  belay audit tail -n 1000 --json | jq -r 'select(.kind == \"session-opened\") | .user_name'"
    )]
    Tail {
        /// How many
        #[arg(short = 'n', value_name = "COUNT", default_value_t = 20)]
        count: u64,
        /// Go on with new ones as they come
        #[arg(long, short)]
        follow: bool,
    },
    /// Write the whole log to a file that verifies without the relay; again, to add what is new
    #[command(
        after_help = "The file has one JSON value a line: entries, their hashes, signed checkpoints.\n\nExample:\n  belay audit export log.ndjson"
    )]
    Export {
        /// The file; made, or added to
        file: PathBuf,
    },
    /// Prove that nothing was changed, removed, moved or put in, or say which and where
    #[command(
        after_help = "Without a file it reads the relay's log, and compares it with what was verified before. Exits with 1 when something is wrong.\n\nExample:\n  belay audit verify\n  belay audit verify log.ndjson --key relay.example.com/belay-audit+0a1b2c3d+AW…\n  belay audit verify --checkpoint from-the-witness\n  belay audit verify --witness-key witness.example.com+0a1b2c3d+BA…"
    )]
    Verify {
        /// A file of `belay audit export`: no relay is asked
        file: Option<PathBuf>,
        /// A file of checkpoints from elsewhere (a witness, another auditor) that must fit
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// The log's key, when it is not the one seen before
        #[arg(long, value_name = "NAME+NUMBER+KEY")]
        key: Option<VerifierKey>,
        /// A witness that must have cosigned the log; may be repeated
        #[arg(long, value_name = "NAME+NUMBER+KEY")]
        witness_key: Vec<WitnessKey>,
        /// Read no entries; only check that the log goes on from what was verified before
        #[arg(long, conflicts_with = "file")]
        quick: bool,
    },
    /// Prove that the log has one entry, and print the proof
    #[command(
        after_help = "The proof leads from the entry to the newest signed checkpoint, which itself must go on from what was verified before. With --json it can be checked by other programs.\n\nExample:\n  belay audit prove 1041\n  belay audit prove 1041 --json > proof.json"
    )]
    Prove {
        /// The entry's number, as `belay audit tail` shows it behind #
        seq: u64,
    },
    /// Print the log's newest signed checkpoint, for another auditor to compare with
    #[command(
        after_help = "Example:\n  belay audit checkpoint > mine\n  belay audit checkpoint --cosigned"
    )]
    Checkpoint {
        /// The newest that witnesses have cosigned, with their signatures
        #[arg(long)]
        cosigned: bool,
    },
}

/// Reads or judges the audit log.
///
/// # Errors
/// When it cannot be read. What is wrong with the log is not an error of this command but its result.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    match args.what {
        What::Tail { count, follow } => tail::run(context, count, follow).await.map(|()| EXIT_OK),
        What::Export { file } => export::run(context, &file).await,
        What::Verify { file: Some(file), checkpoint, key, witness_key, .. } => {
            verify::file(context, &file, &checkpoint, key, &witness_key)
        }
        What::Verify { file: None, checkpoint, key, witness_key, quick } => {
            verify::relay(context, &checkpoint, key, &witness_key, quick).await
        }
        What::Prove { seq } => prove::run(context, seq).await,
        What::Checkpoint { cosigned } => {
            let mut newest = relay::Log::of(context, None)?.newest().await?;
            if cosigned {
                newest = newest.cosigned()?;
            }
            show::checkpoint(context, &newest).map(|()| EXIT_OK)
        }
    }
}
