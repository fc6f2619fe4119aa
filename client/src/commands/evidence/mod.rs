//! `belay evidence SESSION` and `belay evidence verify FILE`: all there is of a session, in one file that
//! needs no relay to be believed.
//!
//! Its law: what is written was examined as any reader will examine it. `make` asks the relay, `file`
//! is the file, `keys` the cryptography, `verify` the reader's side, `show` what is printed.

mod file;
mod keys;
mod make;
mod show;
mod verify;

use std::path::PathBuf;

use belay_proto::audit::{Digest, VerifierKey};
use belay_proto::evidence::from_hex;
use belay_proto::ids::SessionId;
use clap::Subcommand;

use crate::failure::{EXIT_USAGE, Failure};
use crate::run::Context;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "The file has the session's entries of the audit log with their proofs, its grants, its recording, the certificates, and what the relay signed of all of it. Needs the role auditor or administrator; reading is recorded.\n\nExample:\n  belay evidence 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e -o case-17.belay-evidence\n  belay evidence verify case-17.belay-evidence"
)]
pub struct Args {
    /// The session; belay play lists those that were recorded
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// Where to write it [default: evidence-SESSION.ndjson]; never written over
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A file of checkpoints from elsewhere (a witness, another auditor): the log must go on from them,
    /// and the proof that it does is put in
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check such a file, without a relay, and say what is wrong with it
    #[command(
        after_help = "Exits with 1 when something is wrong. Which key and CA are the right ones is known from earlier commands here, or given: without either the file vouches for its own.\n\nExample:\n  belay evidence verify case-17.belay-evidence\n  belay evidence verify case-17.belay-evidence --key relay.example.com/belay-audit+0a1b2c3d+AW…\n  belay evidence verify case-17.belay-evidence --log log.ndjson"
    )]
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The file
    file: PathBuf,
    /// The log's key, when it is not the one seen before
    #[arg(long, value_name = "NAME+NUMBER+KEY")]
    key: Option<VerifierKey>,
    /// The deployment CA: SHA-256 of its certificate, in hexadecimal
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    ca: Option<Digest>,
    /// A file of checkpoints from elsewhere that must fit
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A file of `belay audit export`: the log must have all of the session's entries, and no others
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write the recording that is in it to a file, for belay play
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
}

/// Writes or checks a bundle.
///
/// # Errors
/// When it cannot be made or read. What is wrong with it is not an error of this command but its result.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    match (args.what, args.session) {
        (Some(What::Verify(args)), _) => verify::run(context, &args),
        (None, Some(session)) => {
            let id: SessionId = session.parse().map_err(|e| {
                Failure::new("usage", format!("\"{session}\" names no session: {e}"))
                    .remedy("belay play lists those that were recorded")
                    .exit(EXIT_USAGE)
            })?;
            make::run(context, id, args.output.as_deref(), &args.checkpoint).await
        }
        (None, None) => Err(Failure::new("usage", "no session is named")
            .remedy("write: belay evidence SESSION, or: belay evidence verify FILE")
            .exit(EXIT_USAGE)),
    }
}

/// SHA-256 in hexadecimal, as fingerprints are written.
fn fingerprint(text: &str) -> Result<Digest, String> {
    from_hex(&text.to_ascii_lowercase())
        .map(Digest)
        .ok_or_else(|| "a fingerprint is 64 hexadecimal digits".to_owned())
}
