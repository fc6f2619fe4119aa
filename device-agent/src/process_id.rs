//! A process by its number and the moment it started, so that a number the kernel gave to somebody
//! else since is never taken for it.

use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: u32,
    /// Clock ticks from boot to its start (`proc_pid_stat(5)`, field 22).
    start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (_, start) = state_and_start(pid)?;
        Some(Self { pid, start })
    }

    /// The number.
    pub(crate) const fn pid(self) -> u32 {
        self.pid
    }

    /// Whether it still runs. One that has ended and was not waited for does not.
    pub(crate) fn is_running(self) -> bool {
        state_and_start(self.pid)
            .is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// Kills it, if it still runs.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn kill(self) -> io::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }
}

fn state_and_start(pid: u32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also parentheses; field 3 follows the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_process_is_told_from_one_that_has_its_number() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert!(process.is_running());
        let another = ProcessId { start: process.start + 1, ..process };
        assert!(!another.is_running());
        another.kill().unwrap();
        assert!(process.is_running(), "the wrong one was killed");
        process.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_running() && ProcessId::of(child.id()).is_none());
    }
}
