//! What one device pays: the agent's memory idle and by session, and the program's size.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::Way;
use super::ours::{Ours, run};
use super::way::{Running, Terminal};
use crate::lab::Netns;

/// Until an agent that has just served stands still.
const SETTLE: Duration = Duration::from_secs(2);

/// The relay notices within a minute that a client was killed (its `IDLE_TIMEOUT`); its session's
/// worker ends then.
const GONE_WITHIN: Duration = Duration::from_secs(75);

/// The most a process ever had resident, in KiB.
///
/// # Errors
/// When it has ended.
pub fn peak(pid: Pid) -> Result<f64> {
    status(pid, "VmHWM:")
}

/// What a process has of its own at the moment, in KiB: its memory without the program's pages, which all
/// processes of a program share.
///
/// # Errors
/// When it has ended.
pub fn own(pid: Pid) -> Result<f64> {
    status(pid, "RssAnon:")
}

fn status(pid: Pid, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let value = value.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    value.with_context(|| format!("no {field} in {path}"))
}

/// A process's memory, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    /// Resident: what is shared counts whole for each process.
    pub resident: f64,
    /// Proportional: what is shared is divided among those who share it.
    pub proportional: f64,
}

impl Memory {
    /// Of one process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
                .with_context(|| format!("no {name} in {path}"))
        };
        Ok(Self { resident: field("Rss:")?, proportional: field("Pss:")? })
    }

    fn of_all(pids: &[Pid]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of(*pid)?;
            sum.resident += one.resident;
            sum.proportional += one.proportional;
        }
        Ok(sum)
    }
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    /// Without a session.
    pub idle: Memory,
    /// What each further session adds, its worker and the supervisor's growth together.
    pub session: Memory,
}

/// Looks at the agent as it is, then with sessions open.
///
/// # Errors
/// When a session does not open.
pub fn measure(laptop: &Netns, ours: &Ours, way: &Way, sessions: u32) -> Result<Agent> {
    let before = idle(ours)?;
    let idle = Memory::of_all(&before)?;
    let open = (0..sessions).map(|_| held(laptop, way)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(SETTLE);
    let during = ours.agent_processes()?;
    ensure!(during.len() == 1 + open.len(), "{} processes of the agent", during.len());
    let busy = Memory::of_all(&during)?;
    let each = |with: f64, without: f64| (with - without) / f64::from(sessions);
    let session = Memory {
        resident: each(busy.resident, idle.resident),
        // The supervisor alone shared its program with nobody; with workers it does, so the first
        // term falls. The sum is what the device pays.
        proportional: each(busy.proportional, idle.proportional),
    };
    Ok(Agent { idle, session })
}

/// The agent's one process, once the sessions before are gone.
fn idle(ours: &Ours) -> Result<Vec<Pid>> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        std::thread::sleep(SETTLE);
        let processes = ours.agent_processes()?;
        if processes.len() == 1 {
            return Ok(processes);
        }
        ensure!(Instant::now() < deadline, "{} processes of the agent while idle", processes.len());
    }
}

/// A session with a terminal, as a person has it, that says it is open and then waits.
fn held(laptop: &Netns, way: &Way) -> Result<Running> {
    let mut command = way.command(Terminal::There, "printf R; exec cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = laptop.run(|| command.spawn())?.context("starting a session")?;
    let mut byte = [0];
    let out = child.stdout.as_mut().context("no standard output")?;
    out.read_exact(&mut byte).context("a session did not open")?;
    Ok(Running(child))
}

/// The size in bytes of a program without its symbols.
///
/// # Errors
/// When it cannot be stripped.
pub fn stripped_size(program: &Path) -> Result<u64> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let copy = dir.path().join("stripped");
    run(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(fs::metadata(&copy).context("the stripped program")?.len())
}
