//! `belay search TEXT`: what the relay finds, and what is in sealed recordings for whoever has a key.
//!
//! `own` searches those, on this machine.

mod own;

use std::path::{Path, PathBuf};

use belay_proto::api::{MAX_SEARCH_HITS, SearchAnswer, SearchHit, SearchRequest, path};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use hyper::Method;
use serde::Serialize;

use self::own::{Asked, Index, Looked};
use crate::api::Api;
use crate::failure::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure};
use crate::home::Login;
use crate::output::{self, Format};
use crate::run::Context;
use crate::span;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Finds lines that terminals and commands showed, command lines, and what else a recording tells (files moved, forwards). Capital and small letters are the same; where TEXT begins with a letter or digit, a word must begin there. Sealed recordings are searched on this machine by whoever has a key: --identity FILE reads those that are new, each reading is recorded, and keeps an encrypted index in BELAY_HOME/search. Without it they are counted. Needs the role auditor or administrator; what is searched for is recorded. Exits with 1 when nothing is found.\n\nExample:\n  belay search 'rm -rf' --since 7d\n  belay search 'rm -rf' --identity ~/auditor.age\n  belay search /etc/shadow --device pump-17 --json | jq -r '.hits[].session' | sort -u"
)]
pub struct Args {
    /// What to look for: a part of one line
    #[arg(value_name = "TEXT")]
    text: String,
    /// Nothing older: 90m, 24h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only on this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only in this person's sessions
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// How many lines at most, the newest
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SEARCH_HITS)))]
    limit: u32,
    /// An age identity file with your secret key: what is sealed to it is searched too
    #[arg(long, value_name = "FILE", env = "BELAY_IDENTITY")]
    identity: Option<PathBuf>,
}

/// Who found a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Relay,
    /// The index on this machine.
    Own,
}

/// A line that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Hit {
    #[serde(flatten)]
    hit: SearchHit,
    from: From,
}

/// What was found by both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Answer {
    /// The newest first.
    hits: Vec<Hit>,
    complete: bool,
    searched: u64,
    waiting: u64,
    growing: u64,
    /// Not searched: sealed, and not to a key that is here.
    sealed: u64,
    damaged: u64,
    cut: u64,
    /// Not searched: sealed, and not those whose end is in the audit log.
    exchanged: Vec<SessionId>,
    /// Not searched: sealed and searched before, and not at the relay any more without having been deleted.
    missing: Vec<SessionId>,
    /// Sealed and searched, with an end that the audit log does not have.
    unlogged: u64,
    /// Of those that were searched, how many on this machine; nothing where no key was given.
    own: Option<u64>,
}

/// Asks the relay, and shows what it found and what it could not look at.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let login = context.home.live_login()?;
    let since = match &args.since {
        Some(text) => {
            let length = span::parse(text).map_err(|e| {
                Failure::new("usage", format!("--since {text}: {e}")).exit(EXIT_USAGE)
            })?;
            Some(login.relay_time().minus(length))
        }
        None => None,
    };
    let Args { text, device, user, limit, identity, .. } = args;
    let request = SearchRequest { text, since, device, user, limit };
    let index = identity.as_deref().map(|file| Index::open(&context.home, file)).transpose()?;
    let answer: SearchAnswer = Api::of(&login)?.send(Method::POST, path::SEARCH, &request).await?;
    let looked = match index {
        Some(index) => own(index, (context, &login), request).await?,
        None => None,
    };
    let answer = Answer::of(answer, looked, usize::try_from(limit).unwrap_or(1));
    let status = if answer.hits.is_empty() { EXIT_FAILED } else { EXIT_OK };
    if context.format == Format::Json {
        output::json(&answer)?;
        return Ok(status);
    }
    for hit in &answer.hits {
        output::line(shown(hit, identity.as_deref()))?;
    }
    for line in remarks(&answer) {
        output::note(line);
    }
    Ok(status)
}

/// Searches what is sealed; nothing when the relay is of a version before that.
async fn own(
    index: Index,
    (context, login): (&Context, &Login),
    request: SearchRequest,
) -> Result<Option<Looked>, Failure> {
    let SearchRequest { text, since, device, user, limit } = request;
    let asked = Asked {
        text,
        since_ms: since.map_or(0, |since| since.0.saturating_mul(1000)),
        device,
        user,
        limit: usize::try_from(limit).unwrap_or(1),
    };
    match index.search(context, login, asked).await {
        Err(failure) if failure.is_unknown_path() => {
            output::note(
                "belay: the relay is too old to say which recordings are sealed, so they are not searched",
            );
            Ok(None)
        }
        looked => looked.map(Some),
    }
}

impl Answer {
    /// Of what the relay found, and what was found here.
    fn of(answer: SearchAnswer, looked: Option<Looked>, limit: usize) -> Self {
        let SearchAnswer { hits, complete, searched, waiting, growing, sealed, damaged, cut } =
            answer;
        let from = |from| move |hit| Hit { hit, from };
        let mut all = Self {
            hits: hits.into_iter().map(from(From::Relay)).collect(),
            complete,
            searched,
            waiting,
            growing,
            sealed,
            damaged,
            cut,
            exchanged: Vec::new(),
            missing: Vec::new(),
            unlogged: 0,
            own: looked.as_ref().map(|looked| looked.searched),
        };
        if let Some(looked) = looked {
            let Looked { hits, more, searched, cut, damaged, foreign, waiting, .. } = looked;
            (all.exchanged, all.missing) = (looked.exchanged, looked.missing);
            all.unlogged = looked.unlogged;
            // What stands before the first sealed segment, the relay knows too.
            let new: Vec<SearchHit> =
                hits.into_iter().filter(|hit| all.hits.iter().all(|one| one.hit != *hit)).collect();
            all.hits.extend(new.into_iter().map(from(From::Own)));
            all.hits.sort_by_key(|hit| std::cmp::Reverse(hit.hit.at));
            all.complete &= !more && all.hits.len() <= limit;
            all.hits.truncate(limit);
            all.searched += searched;
            all.waiting += waiting;
            all.damaged += damaged;
            all.cut += cut;
            all.sealed = foreign;
        }
        all
    }
}

/// Two lines: what was found, and how to see it.
fn shown(hit: &Hit, identity: Option<&Path>) -> String {
    let Hit { hit, from } = hit;
    let name = |name: Option<String>| name.unwrap_or_else(|| "?".to_owned());
    let who = name(hit.user.as_ref().map(ToString::to_string));
    let device = name(hit.device.as_ref().map(ToString::to_string));
    let place = format!("{}@{device}", name(hit.login.clone()));
    let what = match (hit.kind.as_str(), &hit.command) {
        ("command", _) => "ran: ".to_owned(),
        ("screen", Some(command)) => format!("[{command}, full screen] "),
        ("screen", None) => "[full screen] ".to_owned(),
        ("output", Some(command)) if !hit.line.contains(command.as_str()) => {
            format!("[{command}] ")
        }
        _ => String::new(),
    };
    let first = format!("{}  {who}  {place}  {what}{}", span::at(hit.at), hit.line);
    // A fact is nothing that a screen shows.
    let how = match hit.kind.as_str() {
        "fact" => "--text".to_owned(),
        _ => format!("--track {} --at {}", hit.track, clock(hit.offset_ms)),
    };
    let key = match (from, identity) {
        (From::Own, Some(file)) => format!(" --identity {}", file.display()),
        _ => String::new(),
    };
    let play = printable(&format!("    belay play {} {how}{key}", hit.session));
    format!("{}\n{play}", printable(&first))
}

/// Rounded up: by then the line is there.
fn clock(ms: u64) -> String {
    let s = ms.div_ceil(1000);
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// The first, and that there are others.
fn named(sessions: &[SessionId]) -> Option<(SessionId, String)> {
    let (first, others) = sessions.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        others => format!(" and {others} more (--json names them)"),
    };
    Some((*first, others))
}

/// What a person must know of an answer.
fn remarks(answer: &Answer) -> Vec<String> {
    let Answer { hits, complete, searched, waiting, growing, sealed, damaged, cut, own, .. } =
        answer;
    let here = match own {
        None | Some(0) => String::new(),
        Some(own) => format!(", {own} of them sealed to you and searched here"),
    };
    let (found, among) = (count(hits.len() as u64, "line"), count(*searched, "recording"));
    let mut lines = vec![format!("{found} in {among}{here}")];
    let sealed_how = match own {
        None => "sealed and not searched: --identity FILE has your key",
        Some(_) => "sealed, not to a key of yours, and not searched",
    };
    if !complete {
        lines.push(
            "there may be more: raise --limit, or narrow with --since or --device".to_owned(),
        );
    }
    for (number, what) in [
        (waiting, "not in the index yet, the newest come first: try again in a while"),
        (growing, "still growing or just ended, the last lines not in the index yet"),
        (sealed, sealed_how),
        (damaged, "not as the device signed it, searched up to there: see belay play"),
        (cut, "too long, searched in the beginning only"),
        (
            &answer.unlogged,
            "with an end that the audit log does not have, or not any more: searched, and compared \
             with nothing",
        ),
    ] {
        if *number > 0 {
            lines.push(format!("{} {what}", count(*number, "recording")));
        }
    }
    if let Some((first, others)) = named(&answer.exchanged) {
        lines.push(format!(
            "NOT AS LOGGED: by the audit log, the recording of session {first}{others} was cut or exchanged; \
             it was not searched: belay play {first} says how"
        ));
    }
    if let Some((first, others)) = named(&answer.missing) {
        lines.push(format!(
            "NOT AS LOGGED: the relay has no recording of session {first}{others} any more, and its audit log \
             does not say that it was deleted: belay evidence {first} proves it"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use belay_proto::time::UnixTime;

    use super::*;

    #[test]
    fn a_hit_says_who_where_what_and_how_to_see_it() {
        let hit = SearchHit {
            session: "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap(),
            user: Some("anna".parse().unwrap()),
            device: Some("pump-17".parse().unwrap()),
            login: Some("root".into()),
            track: 2,
            at: UnixTime(1_800_000_000),
            offset_ms: 754_001,
            kind: "output".into(),
            line: "gone\u{1b}[2J".into(),
            command: Some("rm -rf x".into()),
        };
        let from = |hit: &SearchHit, from| Hit { hit: hit.clone(), from };
        let text = shown(&from(&hit, From::Relay), Some(Path::new("key.age")));
        assert!(text.contains("anna  root@pump-17  [rm -rf x] gone\u{fffd}[2J\n"), "{text}");
        let play = "belay play 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --track 2 --at 0:12:35";
        assert!(text.ends_with(play), "{text}");
        let hit = SearchHit { kind: "screen".into(), command: None, ..hit };
        let text = shown(&from(&hit, From::Own), Some(Path::new("key.age")));
        assert!(text.contains("  [full screen] gone"), "{text}");
        assert!(text.ends_with(&format!("{play} --identity key.age")), "{text}");
    }

    fn hit(at: u64, line: &str) -> SearchHit {
        SearchHit {
            session: "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap(),
            user: None,
            device: None,
            login: None,
            track: 1,
            at: UnixTime(at),
            offset_ms: 0,
            kind: "output".into(),
            line: line.into(),
            command: None,
        }
    }

    #[test]
    fn what_both_found_is_one_answer_and_says_what_nobody_searched() {
        let relay = SearchAnswer {
            hits: vec![hit(9, "i"), hit(5, "e"), hit(1, "a")],
            complete: true,
            searched: 7,
            waiting: 0,
            growing: 1,
            sealed: 3,
            damaged: 0,
            cut: 0,
        };
        let alone = Answer::of(relay.clone(), None, 3);
        assert!(alone.complete && alone.own.is_none() && alone.sealed == 3);
        assert!(remarks(&alone).iter().any(|line| line.contains("3 recordings sealed and")));
        let looked = Looked {
            hits: vec![hit(7, "g"), hit(5, "e"), hit(2, "b")],
            searched: 2,
            foreign: 1,
            exchanged: vec![hit(1, "").session; 2],
            missing: vec![hit(1, "").session],
            unlogged: 3,
            ..Looked::default()
        };
        let both = Answer::of(relay, Some(looked), 4);
        let lines: Vec<_> = both.hits.iter().map(|hit| (hit.hit.line.as_str(), hit.from)).collect();
        let wanted = [("i", From::Relay), ("g", From::Own), ("e", From::Relay), ("b", From::Own)];
        assert_eq!(lines, wanted);
        assert_eq!((both.complete, both.searched, both.sealed, both.own), (false, 9, 1, Some(2)));
        let remarks = remarks(&both);
        assert!(remarks[0].ends_with("in 9 recordings, 2 of them sealed to you and searched here"));
        assert!(remarks.iter().any(|line| line.contains("1 recording sealed, not to a key")));
        assert!(
            remarks.iter().any(|line| line.contains("3 recordings with an end that the audit"))
        );
        let [.., exchanged, missing] = remarks.as_slice() else { panic!("{remarks:?}") };
        assert!(exchanged.starts_with("NOT AS LOGGED: ") && exchanged.contains(" and 1 more"));
        assert!(
            missing.starts_with("NOT AS LOGGED: the relay has no recording of session 0197a3c2-")
        );
        assert!(!missing.contains("more (") && both.missing.len() == 1, "{missing}");
        let json = serde_json::to_value(&both).unwrap();
        assert_eq!(
            (&json["hits"][1]["from"], &json["hits"][1]["line"]),
            (&"own".into(), &"g".into())
        );
    }
}
