//! The command line as a whole. Each command's own arguments stand in its file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

/// Reach devices behind NAT through a Belay relay.
///
/// Exit status: the remote command's for `shell`, `exec`, `attach` and `join`; 255 when the line itself failed; 2
/// for a wrong command line; 1 for anything else.
#[derive(Debug, Parser)]
#[command(
    name = "belay",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  belay login --code belay-code-…\n  belay devices\n  belay shell pump-17\n  belay ssh-config --install && ssh root@pump-17.belay"
)]
pub struct Cli {
    /// Where the login is kept [default: ~/.local/state/belay, or $XDG_STATE_HOME/belay]
    #[arg(long, global = true, value_name = "DIR", env = "BELAY_HOME", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,

    /// Print the result as JSON on standard output, and an error as JSON on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get today's certificates
    Login(commands::login::Args),
    /// Show who you are and what you may do
    #[command(after_help = "Example:\n  belay whoami")]
    Whoami,
    /// List the devices you may reach
    Devices(commands::devices::Args),
    /// Open a shell on a device
    Shell(commands::shell::Args),
    /// Run a command on a device
    Exec(commands::exec::Args),
    /// Take a terminal up again that another client has left, or still has
    Attach(commands::attach::Args),
    /// Join somebody else's terminal, to work in it together or to look on
    Join(commands::join::Args),
    /// List open sessions
    Sessions(commands::sessions::Args),
    /// Look on at another person's session as it goes on
    Watch(commands::watch::Args),
    /// End a session for good
    Kill(commands::kill::Args),
    /// Show what was recorded of a session, once it is checked
    Play(commands::play::Args),
    /// Delete a recording before its time
    Recording(commands::recording::Args),
    /// Keep recordings from being deleted: legal holds
    Hold(commands::hold::Args),
    /// Carry an ssh connection over standard input and output (for ProxyCommand)
    Proxy(commands::proxy::Args),
    /// Print or install the configuration that lets plain ssh reach devices
    SshConfig(commands::ssh_config::Args),
    /// Invite devices
    Token(commands::token::Args),
    /// Change one device
    Device(commands::device::Args),
    /// Manage people
    User(commands::user::Args),
    /// Read the audit log, and prove that nobody has touched it
    Audit(commands::audit::Args),
    /// Find what any recorded session showed
    Search(commands::search::Args),
    /// Write all evidence of a session to one file, or check such a file
    Evidence(commands::evidence::Args),
    /// Check everything between here and the relay
    #[command(after_help = "Exits with 1 when something is wrong.\n\nExample:\n  belay doctor")]
    Doctor,
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
}

impl Command {
    /// Whether a failure is one of the line, as with `ssh`.
    pub(crate) const fn is_session(&self) -> bool {
        matches!(
            self,
            Self::Shell(_) | Self::Exec(_) | Self::Attach(_) | Self::Join(_) | Self::Proxy(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let leaf = command.get_subcommands().next().is_none();
            let help = command.clone().render_long_help().to_string();
            if leaf {
                assert!(help.contains("Example"), "{path} has no example");
            }
            command
                .get_subcommands()
                .filter(|c| c.get_name() != "help")
                .for_each(|c| walk(c, &path));
        }
        walk(&Cli::command(), "");
    }
}
