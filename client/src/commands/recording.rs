//! `belay recording delete`

use belay_proto::api::{Reason, RecordingDeleted, path};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use clap::Subcommand;
use hyper::Method;

use crate::api::{Api, path_of};
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Delete a recording before its time, for good; the audit log keeps what it was
    #[command(
        after_help = "Administrators may, unless it is held (belay hold list). The audit log has who did it, why, and the recording's length and SHA-256.\n\nExample:\n  belay recording delete 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --reason 'shows personal data, request 88'"
    )]
    Delete {
        /// The session
        session: SessionId,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
}

/// Deletes a recording.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let What::Delete { session, reason } = args.what;
    let api = Api::of_home(&context.home)?;
    let path = path_of(path::RECORDING_DELETE, &session.to_string());
    let deleted: RecordingDeleted = api.send(Method::POST, &path, &Reason { reason }).await?;
    output::show(context.format, &deleted, |deleted| {
        printable(&format!(
            "the recording of session {} is deleted: {} bytes, {}",
            deleted.session, deleted.bytes, deleted.why
        ))
    })
}
