//! `belay ssh-config [--install]`

use belay_proto::names::Login;
use etcetera::home_dir;
use serde::Serialize;

use crate::failure::Failure;
use crate::home::File;
use crate::output::{self, Format};
use crate::run::Context;
use crate::ssh_config::{Block, Included, include_first};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  belay ssh-config --install\n  ssh root@pump-17.belay\n  scp root@pump-17.belay:/var/log/app.log .\n  rsync -a root@pump-17.belay:/etc/ etc/"
)]
pub struct Args {
    /// Write the block to a file of its own and include it at the top of ~/.ssh/config
    #[arg(long)]
    install: bool,
    /// The account for an ssh that names none [default: ssh's own, the local user name]
    #[arg(long, value_name = "ACCOUNT")]
    login: Option<Login>,
}

/// Prints or installs the block. Works before the first login, too.
///
/// # Errors
/// When a path cannot stand in ssh_config, or a file cannot be written.
pub fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|e| {
        Failure::new("internal", format!("cannot find out where this program is: {e}"))
    })?;
    let block = Block { home: &context.home, program: &program, login: args.login.as_ref() };
    let text = block.text().map_err(|e| Failure::new("ssh-config", e.to_string()))?;
    if !args.install {
        return match context.format {
            Format::Text => output::raw(text.as_bytes()),
            Format::Json => output::json(&Printed { block: text }),
        };
    }
    let user_home = home_dir().map_err(|_| {
        Failure::new("ssh-config", "this account has no home directory")
            .remedy("run belay ssh-config and put its output where your ssh reads it")
    })?;
    let config = user_home.join(".ssh").join("config");
    context.home.create()?;
    context.home.write(File::SshConfig, text.as_bytes())?;
    let file = context.home.path(File::SshConfig);
    let included = include_first(&config, &file).map_err(|e| {
        Failure::new("ssh-config", belay_proto::error_line::one_line(&e))
            .remedy(format!("add this line yourself at its top: Include \"{}\"", file.display()))
    })?;
    let done = Done {
        file: file.display().to_string(),
        included_in: config.display().to_string(),
        changed: included == Included::Now,
    };
    output::show(context.format, &done, |done| {
        let how = if done.changed { "now includes" } else { "includes" };
        format!("{} {how} {}\ntry: ssh root@DEVICE.belay", done.included_in, done.file)
    })
}

#[derive(Serialize)]
struct Printed {
    block: String,
}

#[derive(Serialize)]
struct Done {
    file: String,
    included_in: String,
    changed: bool,
}
