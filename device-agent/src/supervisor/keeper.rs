//! Keeping one session: hearing what its worker tells, and ending it when it has to end.
//!
//! Its law: a session leaves the list only when its worker is gone. A supervisor that stops leaves
//! the worker, its files and its terminals as they are, for the next one.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_proto::ids::SessionId;
use belay_proto::recording::Policy;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Agent;
use super::sessions::Held;
use super::tell::tell;
use super::utmp::Terminals;
use crate::process_id::ProcessId;
use crate::session_dir::Record;
use crate::worker::{ControlLine, Recorded, WorkerEvent};

/// What a worker has to end in that was told to: it says goodbye to its client, lets its programs
/// take what was sent to them, and tells its last events, in two seconds each.
const ENDS_WITHIN: Duration = Duration::from_secs(8);

/// Between two looks at a process that is about to go.
const LOOK: Duration = Duration::from_millis(50);

/// A session's worker, as its keeper has it.
pub(super) struct Kept {
    pub(super) held: Arc<Held>,
    pub(super) record: Record,
    pub(super) control: ControlLine,
    /// Its process, when this supervisor started it.
    pub(super) child: Option<Child>,
}

/// Whatever ends a keeper, its session does not stay on the list without one.
struct Place {
    agent: Arc<Agent>,
    session: SessionId,
    reason: Option<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(reason) = self.reason.take() {
            self.agent.sessions.remove(self.session, reason);
        }
    }
}

/// Keeps the session until its worker is gone, or this supervisor is to stop.
pub(super) async fn keep(agent: Arc<Agent>, kept: Kept) {
    let Kept { held, mut record, mut control, child } = kept;
    let session = held.session();
    let failed = Some("the agent failed at keeping it".to_owned());
    let mut place = Place { agent: Arc::clone(&agent), session, reason: failed };
    let mut terminals = Terminals::new(&record);
    let mut close = Close::default();
    let mut deadline = None;
    let mut is_failing = false;
    loop {
        tokio::select! {
            event = control.next() => match event {
                Ok(Some(event)) => {
                    tell(&record, &event);
                    if let WorkerEvent::Recorded(recorded) = event {
                        let bytes = recorded.payload.len();
                        keep_recorded(&agent, &held, &record, recorded).await;
                        // The worker has not heard that it is kept, and makes no more than a few.
                        tokio::select! {
                            () = until_taken(&agent, session, bytes) => {}
                            _ = held.ending(), if close.told.is_none() => {}
                            () = agent.stop.cancelled() => {}
                        }
                        continue;
                    }
                    if note_terminals(&event, &mut terminals, &mut record)
                        && let Err(error) = agent.sessions.dir.write(&record)
                    {
                        tracing::warn!(%session, %error, "a session's record cannot be written");
                    }
                    if let WorkerEvent::Ended { reason: why } = event {
                        close.said = Some(why);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%session, %error, "a worker's control socket failed");
                    break;
                }
            },
            why = failing(&agent, session), if !is_failing => {
                is_failing = true;
                recording_fails(&held, &record, &why);
            }
            why = held.ending(), if close.told.is_none() => {
                tracing::info!(%session, reason = why, "ending a session");
                control.end(&why);
                close.told = Some(why);
                deadline = Some(Instant::now() + ENDS_WITHIN);
            }
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            } => {
                deadline = None;
                close.killed = true;
                tracing::warn!(%session, pid = record.process.pid(), "killing a worker that does not end");
                kill(session, record.process);
            }
            () = agent.stop.cancelled() => {
                place.reason = None;
                return;
            }
        }
    }
    let status = gone(session, record.process, child).await;
    agent.cut_recording(session).await;
    terminals.close();
    let reason = close.reason(&status);
    tracing::info!(%session, user = %record.user_name, login = %record.login, reason, "session closed");
    place.reason = Some(reason);
}

/// How a session came to its end.
#[derive(Default)]
struct Close {
    /// What its worker was told.
    told: Option<String>,
    /// What the worker said last.
    said: Option<String>,
    /// It did not end in time.
    killed: bool,
}

impl Close {
    /// For the relay. `status` is how the process ended, where that is known.
    fn reason(self, status: &str) -> String {
        match self {
            Self { said: Some(said), .. } => said,
            Self { told: Some(told), killed: true, .. } => {
                format!("{told} (the worker did not end, and was killed)")
            }
            Self { told: Some(told), .. } => told,
            Self { .. } => format!("the worker ended by itself{status}"),
        }
    }
}

/// Into the spool.
async fn keep_recorded(agent: &Agent, held: &Held, record: &Record, recorded: Recorded) {
    let session = record.session;
    let Some(spool) = agent.spool.clone() else { return };
    let kept = spawn_blocking(move || spool.append(session, &recorded)).await;
    match kept {
        Ok(Ok(())) => {}
        Ok(Err(error)) => recording_fails(held, record, &one_line(&error)),
        Err(error) => recording_fails(held, record, &error.to_string()),
    }
}

/// A recording that must be whole ends its session when it cannot be kept.
fn recording_fails(held: &Held, record: &Record, error: &str) {
    let required = Policy::of(&record.obligations) == Policy::Required;
    if required {
        held.end(&format!("the session must be recorded, and cannot be: {error}"));
    }
    if held.recording_fails() {
        tracing::error!(session = %record.session, required, error, "a recording has a gap");
    }
}

/// Waits for the relay where the session records more than it takes.
async fn until_taken(agent: &Agent, session: SessionId, bytes: usize) {
    if let Some(spool) = &agent.spool {
        spool.until_taken(session, bytes).await;
    }
}

/// Returns when the disk fails at the session's recording.
async fn failing(agent: &Agent, session: SessionId) -> String {
    match &agent.spool {
        Some(spool) => format!("the disk fails: {}", spool.failing(session).await),
        None => std::future::pending().await,
    }
}

/// Whether the open terminals are others now.
fn note_terminals(event: &WorkerEvent, terminals: &mut Terminals, record: &mut Record) -> bool {
    #[allow(clippy::wildcard_enum_match_arm, reason = "only these two are about terminals")]
    match event {
        WorkerEvent::PtyOpened { tty, pid, .. } => terminals.opened(tty, *pid),
        WorkerEvent::PtyClosed { tty, pid, .. } => terminals.closed(tty, *pid),
        _ => return false,
    }
    record.terminals = terminals.open().to_vec();
    true
}

/// Sees to it that a worker that speaks no more is no more.
async fn gone(session: SessionId, process: ProcessId, child: Option<Child>) -> String {
    if let Some(mut child) = child {
        return match timeout(ENDS_WITHIN, child.wait()).await {
            Ok(Ok(status)) => format!(" ({status})"),
            Ok(Err(error)) => format!(" ({error})"),
            Err(_) => {
                kill(session, process);
                " (killed)".to_owned()
            }
        };
    }
    let leaving = async {
        while process.is_running() {
            sleep(LOOK).await;
        }
    };
    if timeout(ENDS_WITHIN, leaving).await.is_err() {
        kill(session, process);
    }
    String::new()
}

fn kill(session: SessionId, process: ProcessId) {
    if let Err(error) = process.kill() {
        tracing::error!(%session, pid = process.pid(), %error, "a worker cannot be killed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(told: Option<&str>, said: Option<&str>, killed: bool) -> String {
        let (told, said) = (told.map(str::to_owned), said.map(str::to_owned));
        Close { told, said, killed }.reason(" (signal: 9)")
    }

    #[test]
    fn a_session_that_was_told_to_end_ended_for_that_reason() {
        assert_eq!(reason(Some("revoked"), Some("revoked: bye"), false), "revoked: bye");
        assert_eq!(reason(Some("revoked"), None, false), "revoked");
        let killed = reason(Some("revoked"), None, true);
        assert!(killed.starts_with("revoked") && killed.contains("killed"), "{killed}");
        assert_eq!(reason(None, None, false), "the worker ended by itself (signal: 9)");
    }
}
