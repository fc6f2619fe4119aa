//! `belay attach [SESSION]`

use belay_proto::api::{Session, path};
use belay_proto::names::UserName;
use belay_proto::time::UnixTime;
use belay_proto::wire::open::kind;

use super::session::{self, Pty, Target};
use crate::api::Api;
use crate::device_ref::DeviceRef;
use crate::failure::{EXIT_USAGE, Failure};
use crate::kept::Entry;
use crate::run::Context;
use crate::span;
use crate::ssh::Work;

/// Sessions named when one has to be chosen.
const LISTED: usize = 10;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Draws the terminal as it is now and goes on in it. A client that still has the session loses it. Escapes and exit status are those of belay shell.\n\nExamples:\n  belay attach\n  belay attach 0197a3c2\n  belay attach 0197a3c2 --terminal 2"
)]
pub struct Args {
    /// The session, or the beginning of its id; without it the only one that waits for a client
    session: Option<String>,
    /// Which of its terminals, when it has several
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    terminal: Option<u32>,
}

/// Attaches; the exit status is the program's.
///
/// # Errors
/// When there is no such session, or the line fails or is refused.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let login = context.home.live_login()?;
    let sessions: Vec<Session> = Api::of(&login)?.get(path::SESSIONS).await?;
    let found = chosen(sessions, &login.record().user, args.session.as_deref());
    let found = found.map_err(|choice| choice.failure(login.relay_time()))?;
    let device = DeviceRef::Name(found.device);
    let account = found.login.parse().map_err(|_| {
        Failure::new("protocol", "the relay named a login that is none").remedy("upgrade it")
    })?;
    let (target, work) = (Target::new(device, account), Work::Attach(args.terminal));
    session::run_in(context, target, Entry::TakenOver(found.id), work, Pty::Always).await
}

/// Why no session was chosen.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// None begins so.
    Unknown(String),
    /// Nothing waits.
    NoneWaits(Vec<Session>),
    /// More than one could be meant.
    Several(Vec<Session>),
}

/// The one session that is meant, of those that are this person's own.
fn chosen(
    sessions: Vec<Session>,
    user: &UserName,
    wanted: Option<&str>,
) -> Result<Session, Choice> {
    let own = |session: &Session| session.user == *user && session.kind == kind::SSH;
    let mut own: Vec<Session> = sessions.into_iter().filter(own).collect();
    own.sort_by_key(|session| (session.opened, session.id));
    let (mut meant, others): (Vec<_>, Vec<_>) = match wanted {
        Some(wanted) => {
            let wanted = wanted.to_ascii_lowercase();
            own.into_iter().partition(|session| session.id.to_string().starts_with(&wanted))
        }
        None => own.into_iter().partition(|session| !session.attached),
    };
    match (meant.len(), wanted) {
        (1, _) => meant.pop().ok_or(Choice::NoneWaits(others)),
        (0, Some(wanted)) => Err(Choice::Unknown(wanted.to_owned())),
        (0, None) => Err(Choice::NoneWaits(others)),
        _ => Err(Choice::Several(meant)),
    }
}

impl Choice {
    fn failure(self, now: UnixTime) -> Failure {
        match self {
            Self::Unknown(wanted) => {
                Failure::new("session-over", format!("you have no open session \"{wanted}\""))
                    .remedy("see: belay sessions")
            }
            Self::NoneWaits(others) if others.is_empty() => {
                Failure::new("session-over", "you have no open session")
                    .remedy("open one: belay shell DEVICE")
            }
            Self::NoneWaits(others) => {
                Failure::new("usage", "none of your sessions waits for a client")
                    .remedy(format!("to take one over, name it:{}", list(&others, now)))
                    .exit(EXIT_USAGE)
            }
            Self::Several(several) => Failure::new("usage", "several sessions could be meant")
                .remedy(format!("name one:{}", list(&several, now)))
                .exit(EXIT_USAGE),
        }
    }
}

/// What to type for each.
fn list(sessions: &[Session], now: UnixTime) -> String {
    let one = |session: &Session| {
        let (id, login, device) = (session.id, &session.login, &session.device);
        let age = span::rough(session.opened.distance(now));
        format!(" belay attach {id} ({login}@{device}, open for {age});")
    };
    let mut text: String = sessions.iter().rev().take(LISTED).map(one).collect();
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn session(id: &str, user: &str, attached: bool) -> Session {
        Session {
            id: id.parse().unwrap(),
            user: user.parse().unwrap(),
            device: "pump-17".parse().unwrap(),
            login: "root".into(),
            kind: kind::SSH.into(),
            opened: UnixTime(1_800_000_000),
            ends: UnixTime(1_800_040_000),
            attached,
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

    const ONE: &str = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e";
    const TWO: &str = "0197a3c2-8a30-7cc1-9d0e-3f2a1b4c5d6e";
    const HERS: &str = "0197a3c2-9a30-7cc1-9d0e-3f2a1b4c5d6e";

    fn choose(attached: [bool; 2], wanted: Option<&str>) -> Result<String, String> {
        let sessions = vec![
            session(ONE, "anna", attached[0]),
            session(TWO, "anna", attached[1]),
            session(HERS, "olga", false),
        ];
        let chosen = chosen(sessions, &"anna".parse().unwrap(), wanted);
        let text = |choice: Choice| choice.failure(UnixTime(1_800_000_300)).to_string();
        chosen.map(|session| session.id.to_string()).map_err(text)
    }

    #[test]
    fn the_only_one_that_waits_needs_no_name() {
        assert_eq!(choose([true, false], None), Ok(TWO.to_owned()));
        let none = choose([true, true], None).unwrap_err();
        assert!(
            none.contains(&format!("belay attach {ONE} (root@pump-17, open for 5 min)")),
            "{none}"
        );
        let both = choose([false, false], None).unwrap_err();
        assert!(both.contains(ONE) && both.contains(TWO) && !both.contains(HERS), "{both}");
    }

    #[test]
    fn a_session_is_named_by_as_much_of_its_id_as_is_its_alone() {
        assert_eq!(choose([true, true], Some("0197A3C2-7")), Ok(ONE.to_owned()));
        assert_eq!(choose([true, true], Some(TWO)), Ok(TWO.to_owned()));
        assert!(choose([true, true], Some("0197a3c2")).unwrap_err().contains("several"));
        for unknown in [HERS, "0198", "x"] {
            assert!(choose([true, true], Some(unknown)).unwrap_err().contains("no open session"));
        }
    }
}
