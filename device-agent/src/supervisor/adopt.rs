//! Taking over what an earlier supervisor left running.

use std::sync::Arc;

use belay_proto::error_line::one_line;
use tokio::task::JoinSet;

use super::Agent;
use super::keeper::{Kept, keep};
use super::sessions::Held;
use super::utmp::Terminals;
use crate::session_dir::Record;
use crate::worker::door::{self, DoorError};

/// Adopts every session whose worker answers, and clears away the others. Done before the first
/// greeting, which tells the relay what is left.
pub(super) async fn adopt_all(agent: &Arc<Agent>) -> std::io::Result<()> {
    let dir = &agent.sessions.dir;
    let records = dir.records()?;
    dir.keep_only(&records.iter().map(|record| record.session).collect::<Vec<_>>())?;
    let mut tasks = JoinSet::new();
    for record in records {
        tasks.spawn(adopt(Arc::clone(agent), record));
    }
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done {
            tracing::error!(%error, "a session was not adopted");
        }
    }
    let running = agent.sessions.all();
    let unended = agent.spool.as_ref().map(|spool| spool.unended()).unwrap_or_default();
    for session in unended.into_iter().filter(|session| !running.contains(session)) {
        agent.cut_recording(session).await;
    }
    Ok(())
}

async fn adopt(agent: Arc<Agent>, record: Record) {
    let (session, user, login) = (record.session, &record.user_name, &record.login);
    match door::adopt(&agent.sessions.dir.door(session)).await {
        Ok((control, standing)) => {
            let place = match agent.sessions.reserve(session) {
                Ok(place) => place,
                Err(refused) => return tracing::error!(%session, %refused, "not adopted"),
            };
            tracing::info!(
                %session, %user, %login, pid = record.process.pid(),
                detached_s = standing.detached_s, "session goes on"
            );
            let held = Held::new(&record);
            place.keep(Arc::clone(&held));
            let kept = Kept { held, record, control, child: None };
            agent.sessions.keepers.spawn(keep(Arc::clone(&agent), kept));
        }
        Err(error) => {
            clear(&agent, &record, &error);
        }
    }
}

/// Nobody is behind the door, or nobody who answers.
fn clear(agent: &Agent, record: &Record, error: &DoorError) {
    let (session, process, reason) = (record.session, record.process, reason(error));
    tracing::warn!(
        %session, user = %record.user_name, login = %record.login, error = one_line(error), reason,
        "session not taken over"
    );
    if !error.is_gone()
        && let Err(error) = process.kill()
    {
        tracing::error!(%session, pid = process.pid(), %error, "a worker cannot be killed");
    }
    Terminals::new(record).close();
    agent.sessions.remove(session, reason.to_owned());
}

/// Why a session is over that could not be taken over.
const fn reason(error: &DoorError) -> &'static str {
    match error {
        DoorError::Gone(_) => "it ended while no agent ran",
        DoorError::Silent => "its worker did not answer the restarted agent, and was killed",
        DoorError::Connect(_) | DoorError::Answer(_) => {
            "the restarted agent could not take its worker over, and killed it"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_worker_that_was_killed_is_not_said_to_have_ended_by_itself() {
        let gone = DoorError::Gone(io::ErrorKind::NotFound.into());
        assert_eq!(reason(&gone), "it ended while no agent ran");
        let connect = DoorError::Connect(io::ErrorKind::PermissionDenied.into());
        for error in [DoorError::Silent, connect] {
            assert!(reason(&error).contains("kill"), "{error}");
        }
    }
}
