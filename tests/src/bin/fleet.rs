//! `fleet`: simulated devices for tests, benchmarks and trying things by hand.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use belay_tests::fleet::{self, Credentials};
use clap::{Parser, Subcommand};

/// Simulated devices that hold real lines.
#[derive(Parser)]
#[command(
    after_help = "Example:\n  fleet enrol --data /var/lib/belay-relay --count 5000 fleet.bin   (with the relay stopped)\n  echo '{\"connect\":{\"devices\":5000,\"in_flight\":64,\"per_second\":null}}' | cat - /dev/tty | fleet run --relay 127.0.0.1:443 fleet.bin"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enrol devices straight into a relay's data directory, while it does not run.
    Enrol {
        /// The relay's data directory.
        #[arg(long)]
        data: PathBuf,
        /// How many.
        #[arg(long)]
        count: u32,
        /// Their names are PREFIX-1 and so on.
        #[arg(long, default_value = "sim")]
        prefix: String,
        /// Where keys and certificates go.
        file: PathBuf,
    },
    /// Hold lines, as told by lines of JSON on standard input, until it ends.
    Run {
        /// The relay's address.
        #[arg(long)]
        relay: SocketAddr,
        /// Seconds for one device's handshake and greeting.
        #[arg(long, default_value_t = 30)]
        patience: u64,
        /// What `enrol` wrote.
        file: PathBuf,
    },
}

fn main() -> Result<()> {
    belay_tunnel::tls::install_provider();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    match Args::parse().command {
        Command::Enrol { data, count, prefix, file } => {
            fleet::run::enrol(&data, &prefix, count)?.save(&file)
        }
        Command::Run { relay, patience, file } => {
            fleet::run::hold(Credentials::load(&file)?, relay, Duration::from_secs(patience))
        }
    }
}
