//! `belay shell DEVICE`

use super::session::{self, Pty, Target};
use crate::failure::Failure;
use crate::run::Context;
use crate::ssh::Work;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "At the start of a line, ~. disconnects and ~? shows the other escapes.\n\nExamples:\n  belay shell pump-17\n  belay shell pump-17 --login support\n  belay shell pump-17 < script.sh"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Ask for a terminal even when standard input is none
    #[arg(short = 't', conflicts_with = "no_terminal")]
    terminal: bool,
    /// Ask for no terminal even when standard input is one
    #[arg(short = 'T')]
    no_terminal: bool,
}

/// Opens the account's login shell; the exit status is the shell's.
///
/// # Errors
/// When the line fails or is refused.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let pty = match (args.terminal, args.no_terminal) {
        (true, _) => Pty::Always,
        (_, true) => Pty::Never,
        (false, false) => Pty::WhenInteractive,
    };
    session::run(context, args.target, Work::Shell, pty).await
}
