//! The program `belay-agent`: flags, and the functions they call.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::path::PathBuf;
use std::process::ExitCode;

use crate::journal::Journal;
use crate::state::{State, default_dir};
use crate::worker::{self, ExecHelperArgs, WorkerArgs};
use crate::{doctor, end, enrol, status, supervisor};
use anyhow::Context as _;
use belay_proto::ids::SessionId;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(version, about = "Belay's device agent: holds the line that support comes in over")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine a device, with a token from `belay token create`
    ///
    /// Example: belay-agent enroll belay-token-owFy...
    #[command(visible_alias = "enrol")]
    Enroll {
        /// The token, or - to read it from standard input (a command line is seen by others)
        token: String,
        /// The name it should have; its host name otherwise
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Hold the line until told to stop. Sessions go on without it: the next agent takes them over
    ///
    /// Example: belay-agent run
    Run {
        #[command(flatten)]
        state: StateArgs,
    },
    /// Say whether the line is up, and why not; and who has sessions here
    ///
    /// Exit status: 0 line up, 1 no line.
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Say what stands between this device and its relay, and what to change; disturbs nothing
    ///
    /// Exit status: 0 all well, 1 something is wrong.
    ///
    /// Example: belay-agent doctor
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArgs,
    },
    /// End sessions, with or without a client, whether an agent runs or not
    ///
    /// Example: belay-agent end --all
    End {
        /// The session's id, from `belay-agent status`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        session: Option<SessionId>,
        /// All of them
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Serve one session (started by the agent itself)
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Become a session's program (started by a worker)
    #[command(hide = true)]
    ExecHelper(ExecHelperArgs),
    /// Join a terminal of another session (started by a worker)
    #[command(hide = true)]
    JoinHelper,
}

#[derive(Args)]
struct StateArgs {
    /// Where keys and certificates live [default: /var/lib/belay-agent, or
    /// ~/.local/state/belay-agent for an agent of one user alone]
    #[arg(long, env = "BELAY_AGENT_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

impl StateArgs {
    fn open(self) -> State {
        State::at(self.state.unwrap_or_else(default_dir))
    }
}

/// Runs it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Worker(args) => {
            worker::init_log(None);
            return worker::main(&args);
        }
        Command::ExecHelper(args) => return worker::exec_helper(args),
        Command::JoinHelper => return worker::join_helper(),
        Command::Enroll { token, name, state } => enroll(token, name, &state.open()),
        Command::Run { state } => run(state.open()),
        Command::Status { json, state } => show(&state.open(), json),
        Command::Doctor { json, state } => examine(&state.open(), json),
        // Without an id it is all of them: clap asks for one or the other.
        Command::End { session, all: _, state } => end_sessions(&state.open(), session),
    };
    done.unwrap_or_else(|error| {
        eprintln!("belay-agent: {}", belay_proto::error_line::one_line(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn enroll(token: String, name: Option<String>, state: &State) -> anyhow::Result<ExitCode> {
    belay_tunnel::tls::install_provider();
    let token = if token == "-" {
        std::io::read_to_string(std::io::stdin()).context("cannot read the token")?
    } else {
        token
    };
    let enrolment = runtime()?.block_on(enrol::enrol(state, &token, name))?;
    println!(
        "enrolled as {} ({}) at {}; now run: belay-agent run",
        enrolment.name, enrolment.device, enrolment.relay
    );
    Ok(ExitCode::SUCCESS)
}

fn run(state: State) -> anyhow::Result<ExitCode> {
    let journal = Journal::behind_stderr().map(|journal| match state.enrolment() {
        Ok(enrolment) => journal.of_device(enrolment.device),
        // Why not is said below.
        Err(_) => journal,
    });
    worker::init_log(journal);
    belay_tunnel::tls::install_provider();
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let supervise = supervisor::run(state, stop.clone());
        tokio::pin!(supervise);
        tokio::select! {
            done = &mut supervise => return done,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        supervise.await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn show(state: &State, json: bool) -> anyhow::Result<ExitCode> {
    let report = runtime()?.block_on(status::report(state))?;
    if json {
        println!("{}", report.json()?);
    } else {
        for line in report.lines() {
            println!("{line}");
        }
    }
    Ok(if report.is_online() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(state: &State, json: bool) -> anyhow::Result<ExitCode> {
    belay_tunnel::tls::install_provider();
    let found = runtime()?.block_on(doctor::examine(state));
    if json {
        println!("{}", found.json()?);
    } else {
        for line in found.lines() {
            println!("{line}");
        }
    }
    Ok(if found.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn end_sessions(state: &State, session: Option<SessionId>) -> anyhow::Result<ExitCode> {
    let which = session.map_or(end::Which::All, end::Which::One);
    for line in runtime()?.block_on(end::end(state, which))? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread: the agent passes bytes on and waits; a second would cost memory, not time.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
