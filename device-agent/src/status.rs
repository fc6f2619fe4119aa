//! `belay-agent status`: what the running agent last said of its line, and what sessions there are.

use anyhow::Context as _;
use belay_proto::error_line::printable;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;

use crate::session_dir::{Record, SessionDir};
use crate::state::State;
use crate::supervisor::StatusFile;
use crate::worker::{Standing, Word, door};

/// The agent's word, and whether it still runs.
#[derive(Debug)]
pub struct Report {
    /// What it said.
    pub file: StatusFile,
    /// Whether the process that said it is alive and holds the state.
    pub running: bool,
    /// The sessions whose workers run, with or without an agent.
    pub sessions: Vec<Session>,
}

/// One session.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Session {
    /// Its id.
    pub session: String,
    /// The engineer.
    pub user: String,
    /// As whom.
    pub login: String,
    /// What it is, such as `ssh`.
    pub kind: String,
    /// When it began, by the relay's clock.
    pub since: UnixTime,
    /// When it ends at the latest, by the relay's clock.
    pub ends: UnixTime,
    /// Whether its client is there; absent when its worker does not answer.
    pub attached: Option<bool>,
    /// For how many seconds it has not been.
    pub detached_s: Option<u64>,
    /// Open terminals.
    pub terminals: Option<u32>,
}

impl Session {
    fn new(record: Record, standing: Standing) -> Self {
        let Standing { attached, detached_s, terminals, .. } = standing;
        Self {
            session: record.session.to_string(),
            user: record.user_name.to_string(),
            login: record.login.to_string(),
            kind: record.kind,
            since: record.started,
            ends: record.ends,
            attached,
            detached_s,
            terminals,
        }
    }

    /// One line for a person. `now` is the relay's time.
    fn line(&self, now: UnixTime) -> String {
        let Self { session, user, login, .. } = self;
        let age = now.0.saturating_sub(self.since.0);
        let client = match (self.attached, self.detached_s) {
            (Some(true), _) => "attached".to_owned(),
            (Some(false), Some(seconds)) => format!("detached for {seconds} s"),
            (Some(false), None) => "not attached yet".to_owned(),
            (None, _) => "does not answer".to_owned(),
        };
        format!("session {session}: {user} as {login}, open for {age} s, {client}")
    }
}

/// Reads it, and asks the workers.
///
/// # Errors
/// When this machine is not enrolled, no agent ever ran, or sessions cannot be looked for.
pub async fn report(state: &State) -> anyhow::Result<Report> {
    state.enrolment()?;
    let text = state.status().context("no agent has run yet; start one with: belay-agent run")?;
    let file = serde_json::from_str(&text).context("the status file is damaged")?;
    // The running agent holds the lock; whoever gets it knows that none runs.
    let running = state.lock().is_err();
    Ok(Report { file, running, sessions: sessions(state).await? })
}

async fn sessions(state: &State) -> anyhow::Result<Vec<Session>> {
    let dir = SessionDir::open(state.dir()).context("cannot look for sessions")?;
    let mut sessions = Vec::new();
    for record in dir.records().context("cannot look for sessions")? {
        match door::visit(&dir.door(record.session), &Word::default()).await {
            Ok(standing) => sessions.push(Session::new(record, standing)),
            Err(error) if error.is_gone() => {}
            Err(_) => sessions.push(Session::new(record, Standing::default())),
        }
    }
    Ok(sessions)
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
            sessions: &'a [Session],
        }
        let (running, reachable) = (self.running, self.is_online());
        let whole = Whole { file: &self.file, running, reachable, sessions: &self.sessions };
        Ok(serde_json::to_string(&whole)?)
    }

    /// For a person: the line's state, then a line for each session.
    pub fn lines(&self) -> Vec<String> {
        let now = clock::now().corrected(self.file.clock_behind_s.unwrap_or(0));
        let sessions = self.sessions.iter().map(|session| session.line(now));
        std::iter::once(self.first_line()).chain(sessions).collect()
    }

    fn first_line(&self) -> String {
        let file = &self.file;
        let ago = clock::now().0.saturating_sub(file.since.0);
        let state = match (self.running, file.online) {
            (false, _) => "no agent runs; start one with: belay-agent run".to_owned(),
            (true, true) => {
                let over = file.carrier.as_deref().unwrap_or("an unknown carrier");
                format!("line up for {ago} s over {}", printable(over))
            }
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
