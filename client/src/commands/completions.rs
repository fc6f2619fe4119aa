//! `belay completions SHELL`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  belay completions bash > ~/.local/share/bash-completion/completions/belay"
)]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When standard output takes no more.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "belay", &mut script);
    output::raw(&script)
}
