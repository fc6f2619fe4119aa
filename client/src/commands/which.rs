//! Which session is meant: the beginning of its id is enough.

use belay_proto::api::Session;
use belay_proto::time::UnixTime;

use crate::failure::{EXIT_USAGE, Failure};
use crate::span;

/// Sessions named when one has to be chosen.
const LISTED: usize = 10;

/// The one of these whose id begins so.
///
/// # Errors
/// When there is none, or more than one.
pub(super) fn one(sessions: Vec<Session>, wanted: &str, now: UnixTime) -> Result<Session, Failure> {
    let wanted = wanted.to_ascii_lowercase();
    let begins = |session: &Session| session.id.to_string().starts_with(&wanted);
    let mut meant: Vec<Session> = sessions.into_iter().filter(begins).collect();
    if meant.len() > 1 {
        return Err(Failure::new("usage", "several sessions could be meant")
            .remedy(format!("name one: {}", list(&meant, now)))
            .exit(EXIT_USAGE));
    }
    meant.pop().ok_or_else(|| {
        Failure::new(
            "session-over",
            format!("there is no open session \"{wanted}\" that you may see"),
        )
        .remedy("see: belay sessions")
    })
}

fn list(sessions: &[Session], now: UnixTime) -> String {
    let one = |session: &Session| {
        let Session { id, user, login, device, .. } = session;
        let age = span::rough(session.opened.distance(now));
        format!("{id} ({user}, {login}@{device}, open for {age})")
    };
    let list: Vec<_> = sessions.iter().rev().take(LISTED).map(one).collect();
    list.join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn session(id: &str) -> Session {
        Session {
            id: id.parse().unwrap(),
            user: "anna".parse().unwrap(),
            device: "pump-17".parse().unwrap(),
            login: "root".into(),
            kind: "ssh".into(),
            opened: UnixTime(1_800_000_000),
            ends: UnixTime(1_800_040_000),
            attached: true,
            attachments: 1,
            bytes_up: 0,
            bytes_down: 0,
            over: None,
            ending: None,
            device_online: None,
            recording: None,
            break_glass: None,
            watched_by: Vec::new(),
            joins: None,
            joined_by: Vec::new(),
        }
    }

    #[test]
    fn a_session_is_named_by_as_much_of_its_id_as_is_its_alone() {
        let ids = ["0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e", "0197a3c2-8a30-7cc1-9d0e-3f2a1b4c5d6e"];
        let named = |wanted: &str| {
            let all = ids.iter().map(|id| session(id)).collect();
            one(all, wanted, UnixTime(1_800_000_300))
        };
        assert_eq!(
            named("0197A3C2-7").unwrap().id.to_string(),
            "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e"
        );
        let both = named("0197a3c2").unwrap_err().to_string();
        assert!(both.contains("several") && ids.iter().all(|id| both.contains(id)), "{both}");
        assert!(named("0198").unwrap_err().to_string().contains("no open session \"0198\""));
    }
}
