//! `belay exec DEVICE -- COMMAND…`

use super::session::{self, Pty, Target};
use crate::failure::Failure;
use crate::run::Context;
use crate::ssh::Work;
use crate::ssh_config::shell_word;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With several words, the program over there gets exactly these words. A single word is a \
                  command line for the account's shell, so pipes and variables work in it.\n\n\
                  Examples:\n  belay exec pump-17 -- uname -a\n  \
                  belay exec pump-17 -- 'dmesg | tail -20'\n  \
                  belay exec pump-17 -- cat /var/log/app.log > app.log\n  \
                  belay exec -t pump-17 -- top"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Ask for a terminal
    #[arg(short = 't', conflicts_with = "no_terminal")]
    terminal: bool,
    /// Ask for no terminal (the default)
    #[arg(short = 'T')]
    no_terminal: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; the exit status is its own.
///
/// # Errors
/// When the line fails or is refused.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let pty = if args.terminal && !args.no_terminal { Pty::Always } else { Pty::Never };
    session::run(context, args.target, Work::Exec(command_line(&args.command)), pty).await
}

/// SSH carries one string, which the account's shell reads (RFC 4254 §6.5): several words are
/// quoted so that it reads back these words, one word is passed as it is.
fn command_line(words: &[String]) -> String {
    match words {
        [only] => only.clone(),
        several => several.iter().map(|w| shell_word(w)).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_the_shells_and_several_are_the_programs() {
        let line = |words: &[&str]| {
            command_line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(line(&["dmesg | tail"]), "dmesg | tail");
        assert_eq!(line(&["sh", "-c", "id; exit 7"]), "sh -c 'id; exit 7'");
        assert_eq!(line(&["echo", "", "it's", "$HOME"]), r"echo '' 'it'\''s' '$HOME'");
    }
}
