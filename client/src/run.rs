//! From the command line to the exit status.

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::commands;
use crate::failure::{EXIT_LINE, EXIT_OK, Failure};
use crate::home::Home;
use crate::output::{self, Format};

/// What every command is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The client's own directory.
    pub home: Home,
    /// How to show results.
    pub format: Format,
}

/// Runs the program.
pub fn main() -> ExitCode {
    belay_tunnel::tls::install_provider();
    let cli = Cli::parse();
    let format = if cli.json { Format::Json } else { Format::Text };
    let is_session = cli.command.is_session();
    match start(cli, format) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output::complain(&failure, format);
            ExitCode::from(if is_session { EXIT_LINE } else { failure.status() })
        }
    }
}

fn start(cli: Cli, format: Format) -> Result<u8, Failure> {
    let home = Home::locate(cli.home.as_deref())?;
    let context = Context { home, format };
    // One thread: a session is one stream, and its data crosses no core on the way.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("internal", format!("cannot start: {e}")))?;
    let result = runtime.block_on(dispatch(&context, cli.command));
    // A name still being looked up is not waited for.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &Context, command: Command) -> Result<u8, Failure> {
    let done = |(): ()| EXIT_OK;
    match command {
        Command::Login(args) => commands::login::run(context, args).await.map(done),
        Command::Whoami => commands::whoami::run(context).await.map(done),
        Command::Devices(args) => commands::devices::run(context, args).await.map(done),
        Command::Shell(args) => commands::shell::run(context, args).await,
        Command::Exec(args) => commands::exec::run(context, args).await,
        Command::Attach(args) => commands::attach::run(context, args).await,
        Command::Join(args) => commands::join::run(context, args).await,
        Command::Proxy(args) => commands::proxy::run(context, args).await.map(done),
        Command::Sessions(args) => commands::sessions::run(context, args).await.map(done),
        Command::Watch(args) => commands::watch::run(context, args).await.map(done),
        Command::Kill(args) => commands::kill::run(context, args).await.map(done),
        Command::Play(args) => commands::play::run(context, args).await.map(done),
        Command::Recording(args) => commands::recording::run(context, args).await.map(done),
        Command::Hold(args) => commands::hold::run(context, args).await.map(done),
        Command::SshConfig(args) => commands::ssh_config::run(context, &args).map(done),
        Command::Token(args) => commands::token::run(context, args).await.map(done),
        Command::Device(args) => commands::device::run(context, args).await.map(done),
        Command::User(args) => commands::user::run(context, args).await.map(done),
        Command::Audit(args) => commands::audit::run(context, args).await,
        Command::Search(args) => commands::search::run(context, args).await,
        Command::Evidence(args) => commands::evidence::run(context, args).await,
        Command::Doctor => commands::doctor::run(context).await,
        Command::Completions(args) => commands::completions::run(&args).map(done),
    }
}
