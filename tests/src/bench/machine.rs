//! What the figures were taken on.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;

use super::ours::run;
use crate::program;

/// Facts that figures hang on.
#[derive(Debug, Clone)]
pub struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// Looks.
    ///
    /// # Errors
    /// When a program of ours is not built.
    pub fn look() -> Result<Self> {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let model = after(&file("/proc/cpuinfo"), "model name");
        let memory = after(&file("/proc/meminfo"), "MemTotal");
        // ssh -V writes to standard error.
        let ssh = Command::new("ssh").arg("-V").output();
        let ssh = ssh.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stderr).into());
        let ours = run(Command::new(program("belay")?).arg("--version"))?;
        Ok(Self(vec![
            ("processors", format!("{cores} x {model}")),
            ("memory", memory),
            ("kernel", file("/proc/sys/kernel/osrelease")),
            ("TCP congestion control", file("/proc/sys/net/ipv4/tcp_congestion_control")),
            ("peer", ssh),
            ("ours", ours),
            ("load before", load()),
        ]))
    }

    /// Adds a fact.
    pub fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }
}

/// The load average of the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn after(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, value)| value).trim().into()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {}", value.trim()))
    }
}
