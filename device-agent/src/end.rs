//! `belay-agent end`: the owner's way to end sessions, whether an agent runs or not.

use std::time::Duration;

use anyhow::Context as _;
use belay_proto::error_line::one_line;
use belay_proto::ids::SessionId;
use tokio::time::{Instant, sleep};

use crate::session_dir::{Record, SessionDir};
use crate::state::State;
use crate::worker::Word;
use crate::worker::door;

/// What the engineer is told.
const REASON: &str = "the device's owner ended the session";

/// A worker says goodbye, lets its programs go and tells its last events within this.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Which sessions to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(SessionId),
    /// Every one.
    All,
}

/// Ends sessions, and says of each, in one line, how that went.
///
/// # Errors
/// When there is no such session, or the sessions cannot be looked for.
pub async fn end(state: &State, which: Which) -> anyhow::Result<Vec<String>> {
    state.enrolment()?;
    let dir = SessionDir::open(state.dir()).context("cannot look for sessions")?;
    let records = dir.records().context("cannot look for sessions")?;
    let mut lines = Vec::new();
    for record in records {
        if matches!(which, Which::One(session) if session != record.session) {
            continue;
        }
        let how = end_one(&dir, &record).await?;
        let Record { session, user_name, login, .. } = record;
        lines.push(format!("{session} ({user_name} as {login}): {how}"));
    }
    if let Which::One(session) = which
        && lines.is_empty()
    {
        anyhow::bail!("there is no session {session}; see: belay-agent status");
    }
    Ok(lines)
}

async fn end_one(dir: &SessionDir, record: &Record) -> anyhow::Result<&'static str> {
    let word = Word { end: Some(REASON.to_owned()), ..Word::default() };
    match door::visit(&dir.door(record.session), &word).await {
        Err(error) if error.is_gone() => return Ok("had ended"),
        Err(error) => tracing::warn!(error = one_line(&error), "it is killed"),
        Ok(_) => {
            let deadline = Instant::now() + ENDS_WITHIN;
            while record.process.is_running() {
                if Instant::now() > deadline {
                    break;
                }
                sleep(LOOK).await;
            }
            if !record.process.is_running() {
                return Ok("ended");
            }
        }
    }
    record.process.kill().context("a session's worker cannot be killed")?;
    Ok("killed")
}
