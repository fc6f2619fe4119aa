//! `belay-agent status`: what the running agent last said of its line.

use anyhow::Context as _;
use belay_proto::error_line::printable;
use belay_tunnel::clock;

use crate::state::State;
use crate::supervisor::StatusFile;

/// The agent's word, and whether it still runs.
#[derive(Debug)]
pub struct Report {
    /// What it said.
    pub file: StatusFile,
    /// Whether the process that said it is alive and holds the state.
    pub running: bool,
}

/// Reads it.
///
/// # Errors
/// When this machine is not enrolled or no agent ever ran.
pub fn report(state: &State) -> anyhow::Result<Report> {
    state.enrolment()?;
    let text = state.status().context("no agent has run yet; start one with: belay-agent run")?;
    let file = serde_json::from_str(&text).context("the status file is damaged")?;
    // The running agent holds the lock; whoever gets it knows that none runs.
    let running = state.lock().is_err();
    Ok(Report { file, running })
}

impl Report {
    /// Whether the device can be reached.
    pub const fn is_online(&self) -> bool {
        self.running && self.file.online
    }

    /// For programs: what the agent said, corrected by whether it still runs.
    ///
    /// # Errors
    /// When it does not encode.
    pub fn json(&self) -> anyhow::Result<String> {
        #[derive(serde::Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            file: &'a StatusFile,
            running: bool,
            reachable: bool,
        }
        let (running, reachable) = (self.running, self.is_online());
        Ok(serde_json::to_string(&Whole { file: &self.file, running, reachable })?)
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let file = &self.file;
        let ago = clock::now().0.saturating_sub(file.since.0);
        let state = match (self.running, file.online) {
            (false, _) => "no agent runs; start one with: belay-agent run".to_owned(),
            (true, true) => format!("line up for {ago} s"),
            (true, false) => format!(
                "no line for {ago} s: {}",
                printable(file.reason.as_deref().unwrap_or("not connected yet"))
            ),
        };
        let clock = match file.clock_behind_s {
            Some(behind) if behind.abs() > 60 => {
                format!("; this device's clock is {behind} s behind the relay's: set it")
            }
            _ => String::new(),
        };
        format!("{} ({}) at {}: {state}{clock}", file.name, file.device, file.relay)
    }
}
