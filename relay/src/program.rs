//! The program `belay-relay`: flags in, one line out, and the rest of the library does the work.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::init::{self, Wanted, WayIn};
use anyhow::Context as _;
use belay_proto::names::UserName;
use belay_tunnel::address::RelayAddress;
use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Belay's relay: devices and engineers meet here.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  belay-relay init --data /var/lib/belay-relay --name relay.example.com\n  belay-relay run --data /var/lib/belay-relay"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a deployment: keys, store, configuration, first administrator.
    #[command(
        after_help = "Example:\n  belay-relay init --data /var/lib/belay-relay --name relay.example.com --admin anna"
    )]
    Init {
        /// The data directory; made when missing, never overwritten.
        #[arg(long, env = "BELAY_RELAY_DATA")]
        data: PathBuf,
        /// Where devices and people will reach the relay: HOST or HOST:PORT. Without a port, the
        /// one it listens on.
        #[arg(long)]
        name: String,
        /// Where to listen, UDP and TCP.
        #[arg(long, default_value = "[::]:443")]
        listen: SocketAddr,
        /// Name of the first administrator.
        #[arg(long, default_value = "admin")]
        admin: UserName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the relay until SIGTERM or SIGINT.
    #[command(
        after_help = "Example:\n  belay-relay run --data /var/lib/belay-relay\n\nThe log goes to standard error; RUST_LOG chooses its level."
    )]
    Run {
        /// The data directory of `init`.
        #[arg(long, env = "BELAY_RELAY_DATA")]
        data: PathBuf,
        /// Form of the log.
        #[arg(long, value_enum, default_value_t = Log::Text)]
        log: Log,
    },
    /// Make a new one-time login code for somebody who is locked out.
    #[command(after_help = "Example:\n  belay-relay code --data /var/lib/belay-relay anna")]
    Code {
        /// The data directory of `init`. Reading it is the authority.
        #[arg(long, env = "BELAY_RELAY_DATA")]
        data: PathBuf,
        /// Whose.
        user: UserName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs it.
pub fn main() -> ExitCode {
    belay_tunnel::tls::install_provider();
    let args = Args::parse();
    match start(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = belay_proto::error_line::one_line(error.as_ref());
            // Nowhere left to say it when this fails.
            writeln!(io::stderr(), "belay-relay: {line}").ok();
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    let log = if let Command::Run { log, .. } = &command { *log } else { Log::Text };
    start_log(log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Init { data, name, listen, admin, json } => {
                let address = public_address(&name, listen)?;
                let wanted = Wanted { data: data.clone(), address, listen, admin };
                let way_in = init::init(&wanted).await?;
                let next = format!("belay-relay run --data {}", data.display());
                show(&way_in, json, Some(&next))
            }
            Command::Code { data, user, json } => {
                let way_in = init::code(&data, user).await?;
                show(&way_in, json, None)
            }
            Command::Run { data, .. } => {
                let config = Config::load(&data)?;
                let stop = CancellationToken::new();
                let signals = stop_on_signal(stop.clone())?;
                let run = crate::run::run(config, stop, |_| {});
                tokio::select! {
                    ended = run => ended,
                    () = signals => anyhow::bail!("stopped by a second signal"),
                }
            }
        }
    })
}

/// `HOST`, with the port it listens on, or `HOST:PORT`.
fn public_address(name: &str, listen: SocketAddr) -> anyhow::Result<RelayAddress> {
    let with_port = name.parse::<std::net::Ipv6Addr>().is_err()
        && name.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let text = match name.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{}", listen.port()),
        Err(_) if with_port => name.to_owned(),
        Err(_) => format!("{name}:{}", listen.port()),
    };
    Ok(text.parse::<RelayAddress>()?)
}

/// The first SIGTERM or SIGINT begins the drain; the future ends at the second.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    Ok(async move {
        let mut heard = 0;
        while heard < 2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                // What rotates logs sends it, and it would end the process.
                Some(()) = hup.recv() => {
                    tracing::info!("SIGHUP: exports' files are opened anew by themselves");
                    continue;
                }
            }
            heard += 1;
            stop.cancel();
        }
    })
}

fn start_log(form: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match form {
        Log::Text => log.init(),
        Log::Json => log.json().init(),
    }
}

fn show(way_in: &WayIn, json: bool, run: Option<&str>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let login = format!("belay login --code {}", way_in.code);
    if json {
        let value = serde_json::json!({
            "user": way_in.user,
            "login_code": way_in.code,
            "expires": way_in.expires,
            "relay": way_in.address.to_string(),
            "run": run,
            "login": login,
        });
        return writeln!(out, "{value}").context("cannot write to standard output");
    }
    let mut text = String::new();
    if let Some(run) = run {
        text.push_str(&format!("The relay is set up. Start it with\n\n  {run}\n\nand "));
    }
    text.push_str(&format!(
        "{} can log in within 24 hours, once, with\n\n  {login}\n\n\
         This code is shown once. Anybody who has it becomes {}.\n",
        way_in.user, way_in.user
    ));
    out.write_all(text.as_bytes()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn a_name_without_a_port_gets_the_listening_one() {
        let listen = "[::]:8443".parse().unwrap();
        let shown = |name: &str| public_address(name, listen).unwrap().to_string();
        assert_eq!(shown("relay.test"), "relay.test:8443");
        assert_eq!(shown("relay.test:443"), "relay.test:443");
        assert_eq!(shown("192.0.2.7"), "192.0.2.7:8443");
        assert_eq!(shown("2001:db8::7"), "[2001:db8::7]:8443");
        assert_eq!(shown("[2001:db8::7]:443"), "[2001:db8::7]:443");
        assert!(public_address("a b", listen).is_err());
    }
}
