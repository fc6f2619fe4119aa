//! `belay search TEXT`

use belay_proto::api::{MAX_SEARCH_HITS, SearchAnswer, SearchHit, SearchRequest, path};
use belay_proto::error_line::printable;
use hyper::Method;

use crate::api::Api;
use crate::failure::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure};
use crate::output::{self, Format};
use crate::run::Context;
use crate::span;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Finds lines that terminals and commands showed, command lines, and what else a recording tells (files moved, forwards). Capital and small letters are the same; where TEXT begins with a letter or digit, a word must begin there. Sealed recordings are not searched, and counted. Needs the role auditor or administrator; what is searched for is recorded. Exits with 1 when nothing is found.\n\nExample:\n  belay search 'rm -rf' --since 7d\n  belay search /etc/shadow --device pump-17 --json | jq -r '.hits[].session' | sort -u"
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
    let Args { text, device, user, limit, .. } = args;
    let request = SearchRequest { text, since, device, user, limit };
    let answer: SearchAnswer = Api::of(&login)?.send(Method::POST, path::SEARCH, &request).await?;
    let status = if answer.hits.is_empty() { EXIT_FAILED } else { EXIT_OK };
    if context.format == Format::Json {
        output::json(&answer)?;
        return Ok(status);
    }
    for hit in &answer.hits {
        output::line(shown(hit))?;
    }
    for line in remarks(&answer) {
        output::note(line);
    }
    Ok(status)
}

/// Two lines: what was found, and how to see it.
fn shown(hit: &SearchHit) -> String {
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
    let play = format!("    belay play {} {how}", hit.session);
    format!("{}\n{play}", printable(&first))
}

/// Rounded up: by then the line is there.
fn clock(ms: u64) -> String {
    let s = ms.div_ceil(1000);
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// What a person must know of an answer.
fn remarks(answer: &SearchAnswer) -> Vec<String> {
    let SearchAnswer { hits, complete, searched, waiting, sealed, damaged, cut } = answer;
    let mut lines = vec![format!("{} lines in {searched} recordings", hits.len())];
    if !complete {
        lines.push(
            "there may be more: raise --limit, or narrow with --since or --device".to_owned(),
        );
    }
    for (count, what) in [
        (waiting, "are not in the index yet, the newest come first: try again in a while"),
        (sealed, "are sealed and were not searched"),
        (
            damaged,
            "are not what their device signed, and were searched up to there: see belay play",
        ),
        (cut, "are too long, and were searched in their beginning only"),
    ] {
        if *count > 0 {
            lines.push(format!("{count} recordings {what}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
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
        let text = shown(&hit);
        assert!(text.contains("anna  root@pump-17  [rm -rf x] gone\u{fffd}[2J\n"), "{text}");
        let play = "belay play 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --track 2 --at 0:12:35";
        assert!(text.ends_with(play), "{text}");
    }
}
