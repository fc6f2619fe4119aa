//! Sessions as a table.

use belay_proto::api::{Guest, Session};
use belay_proto::error_line::printable;
use belay_proto::time::UnixTime;

use super::filter::State;
use crate::{span, table};

/// Open ones.
pub(super) fn open(sessions: &[Session], now: UnixTime) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| row(session, vec![span::rough(session.opened.distance(now))]))
        .collect();
    let heading = ["session", "user", "device", "open for", "state", "up", "down", "recording"];
    table::render(&heading, &rows)
}

/// Those that were.
pub(super) fn past(sessions: &[Session], now: UnixTime) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            let end = session.over.as_ref().map_or(now, |over| over.at);
            let times = vec![span::at(session.opened), span::rough(session.opened.distance(end))];
            row(session, times)
        })
        .collect();
    let heading =
        ["session", "user", "device", "opened", "for", "state", "up", "down", "recording"];
    table::render(&heading, &rows)
}

fn row(session: &Session, times: Vec<String>) -> Vec<String> {
    let mut row = vec![
        session.id.to_string(),
        session.user.to_string(),
        format!("{}@{}", session.login, session.device),
    ];
    row.extend(times);
    row.extend([
        state(session),
        bytes(session.bytes_up),
        bytes(session.bytes_down),
        recording(session),
    ]);
    row
}

/// Its recording, why it need not have one, and who else sees what happens in it.
fn recording(session: &Session) -> String {
    let mut text = session.recording.clone().unwrap_or_else(|| "?".to_owned());
    if let Some(reason) = session.break_glass.as_deref().map(printable) {
        text.push_str(&format!(", GLASS BROKEN: {reason}"));
    }
    if !session.watched_by.is_empty() {
        let names: Vec<_> = session.watched_by.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", watched by {}", names.join(", ")));
    }
    if !session.joined_by.is_empty() {
        let how = |may_type| if may_type { "may type" } else { "looks on" };
        let one = |guest: &Guest| format!("{} ({})", guest.user, how(guest.may_type));
        let guests: Vec<_> = session.joined_by.iter().map(one).collect();
        text.push_str(&format!(", joined by {}", guests.join(", ")));
    }
    if let Some(joins) = &session.joins {
        text.push_str(&format!(", joins {}", joins.session));
    }
    text
}

fn state(session: &Session) -> String {
    if let Some(over) = &session.over {
        return format!("ended: {}", over.why);
    }
    if session.ending.is_some() {
        return "being ended".to_owned();
    }
    let word = if State::of(session) == State::Attached { "attached" } else { "detached" };
    match session.device_online {
        Some(false) => format!("{word}, device offline"),
        Some(true) | None => word.to_owned(),
    }
}

/// `512 B`, `4.2 MB`: decimal units, as networks are measured in.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if scaled < 999.95 {
            break;
        }
        scaled /= 1000.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use belay_proto::api::{Joins, SessionOver};

    use super::super::filter::Filter;
    use super::*;

    fn session() -> Session {
        Session {
            id: "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap(),
            user: "anna".parse().unwrap(),
            device: "pump-17".parse().unwrap(),
            login: "root".into(),
            kind: "ssh".into(),
            opened: UnixTime(1_800_000_000),
            ends: UnixTime(1_800_040_000),
            attached: false,
            attachments: 3,
            bytes_up: 999,
            bytes_down: 4_200_000,
            over: None,
            ending: None,
            device_online: Some(false),
            recording: Some("unfinished".into()),
            break_glass: None,
            watched_by: Vec::new(),
            joins: None,
            joined_by: Vec::new(),
        }
    }

    const NOW: UnixTime = UnixTime(1_800_000_300);

    #[test]
    fn a_row_says_whose_it_is_and_how_it_stands() {
        let text = open(&[session()], NOW);
        let parts = [
            "anna",
            "root@pump-17",
            "5 min",
            "detached, device offline",
            "999 B",
            "4.2 MB",
            "unfinished",
        ];
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
        let killed = Session { ending: Some("olga ended this session: x".into()), ..session() };
        assert!(open(std::slice::from_ref(&killed), NOW).contains("being ended"));
        let why = "olga ended this session: x".to_owned();
        let over = Some(SessionOver { at: UnixTime(1_800_000_200), why });
        let text = past(&[Session { over, ..killed }], NOW);
        assert!(text.contains("200 s") || text.contains("3 min"), "{text}");
        assert!(text.contains("ended: olga ended this session: x"), "{text}");
    }

    #[test]
    fn who_looks_on_is_named() {
        let watched = Session { watched_by: vec!["ida".parse().unwrap()], ..session() };
        assert!(open(&[watched], NOW).contains("unfinished, watched by ida"));
    }

    #[test]
    fn that_the_glass_was_broken_stands_out_with_its_reason() {
        let broken = Session { break_glass: Some("pump stands still".into()), ..session() };
        let text = open(&[broken], NOW);
        assert!(text.contains("unfinished, GLASS BROKEN: pump stands still"), "{text}");
    }

    #[test]
    fn who_has_joined_and_what_is_joined_is_named() {
        let guest = Guest { user: "olga".parse().unwrap(), session: session().id, may_type: false };
        let joined = Session { joined_by: vec![guest], ..session() };
        assert!(open(&[joined], NOW).contains("unfinished, joined by olga (looks on)"));
        let joins = Some(Joins { session: session().id, may_type: true });
        let text = open(&[Session { joins, ..session() }], NOW);
        assert!(text.contains(&format!("unfinished, joins {}", session().id)), "{text}");
    }

    #[test]
    fn what_a_relay_of_before_does_not_say_is_not_made_up() {
        let older = Session { device_online: None, recording: None, ..session() };
        let text = open(&[older], NOW);
        assert!(text.contains("detached ") && !text.contains("offline"), "{text}");
        assert!(text.trim_end().ends_with('?'), "{text}");
    }

    #[test]
    fn each_filter_takes_away_and_all_of_them_hold() {
        let some = |text: &str| Some(text.to_owned());
        let takes = |filter: Filter| filter.takes(&session());
        assert!(takes(Filter::default()) && Filter::default().is_none());
        let right = || Filter {
            device: some("pump-17"),
            user: some("anna"),
            login: some("root"),
            state: Some(State::Detached),
            since: Some(UnixTime(1_800_000_000)),
            broken_glass: false,
        };
        assert!(takes(right()));
        assert!(!takes(Filter { device: some("pump-1"), ..right() }));
        assert!(!takes(Filter { user: some("olga"), ..right() }));
        assert!(!takes(Filter { login: some("pi"), ..right() }));
        assert!(!takes(Filter { state: Some(State::Attached), ..right() }));
        assert!(!takes(Filter { since: Some(NOW), ..right() }));
        assert!(!takes(Filter { broken_glass: true, ..right() }));
        let broken = Session { break_glass: Some("a reason".into()), ..session() };
        assert!(Filter { broken_glass: true, ..right() }.takes(&broken));
    }

    #[test]
    fn bytes_have_three_figures_or_so() {
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }
}
