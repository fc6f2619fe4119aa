//! A search gives what a look at every line would give, whatever the lines, the order they came in, and
//! what went again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::ids::SessionId;
use belay_tunnel::transcript::{Gathering, Kind, Line, Wanted};
use proptest::prelude::*;
use uuid::Uuid;

use super::find::found;
use super::index::{Index, Read, Seen, State};
use super::*;

/// What one recording is made of: whose, where, and its blocks' lines with their times.
#[derive(Debug, Clone)]
struct Made {
    session: u8,
    user: u8,
    device: u8,
    blocks: Vec<Vec<(u64, String)>>,
    /// It goes again.
    goes: bool,
}

#[derive(Debug, Clone)]
struct Question {
    /// Of all lines, which; and what of it.
    line: usize,
    from: usize,
    length: usize,
    /// In the place of that.
    text: Option<String>,
    capital: bool,
    since_ms: u64,
    device: Option<u8>,
    user: Option<u8>,
    limit: usize,
}

/// Few characters, so that much is found: of words, between them, and such as change in small letters.
const TEXT: &str = "[abBr0-1iÄßİ\u{307}\u{e000} /.&-]{0,14}";

fn made() -> impl Strategy<Value = Made> {
    let line = (0..60_u64, TEXT);
    let block = prop::collection::vec(line, 1..6);
    let blocks = prop::collection::vec(block, 0..10);
    (0..12_u8, 1..3_u8, 1..3_u8, blocks, prop::bool::weighted(0.2)).prop_map(
        |(session, user, device, blocks, goes)| Made { session, user, device, blocks, goes },
    )
}

fn question() -> impl Strategy<Value = Question> {
    let place = (0..1000_usize, 0..14_usize, 1..9_usize);
    let text = prop::option::weighted(0.2, TEXT);
    let of = || prop::option::weighted(0.3, 1..3_u8);
    let since = prop_oneof![2 => Just(0), 1 => 0..70_u64];
    let limit = prop_oneof![2 => 1..6_usize, 1 => Just(1000)];
    (place, text, any::<bool>(), since, of(), of(), limit).prop_map(
        |((line, from, length), text, capital, since_ms, device, user, limit)| Question {
            line,
            from,
            length,
            text,
            capital,
            since_ms,
            device,
            user,
            limit,
        },
    )
}

fn read(made: &Made) -> Read {
    let mut blocks = Vec::new();
    for lines in &made.blocks {
        let mut gathering = Gathering::default();
        for (at_ms, text) in lines {
            let (at_ms, text) = (*at_ms, text.clone());
            let line =
                Line { track: 1, at_ms, offset_ms: at_ms, kind: Kind::Output, text, command: None };
            assert_eq!(gathering.push(line).unwrap(), None);
        }
        blocks.extend(gathering.finish().unwrap());
    }
    Read {
        session: SessionId::from_uuid(Uuid::from_u128(made.session.into())),
        user: Some(vec![made.user; 16]),
        device: Some(vec![made.device; 16]),
        login: None,
        seen: Seen { bytes: 1, ended: true, state: State::Whole },
        blocks,
    }
}

/// What a look at every line gives: times and texts, the newest first.
fn looked(there: &[Made], asked: &Asked) -> Vec<(u64, String)> {
    let wanted = Wanted::new(&asked.text);
    let of = |wanted: &Option<Vec<u8>>, one: u8| wanted.as_ref().is_none_or(|id| id[0] == one);
    let mut lines: Vec<(u64, String)> = there
        .iter()
        .filter(|made| of(&asked.device, made.device) && of(&asked.user, made.user))
        .flat_map(|made| made.blocks.iter().flatten())
        .filter(|(at, text)| *at >= asked.since_ms && wanted.is_in(text))
        .cloned()
        .collect();
    lines.sort();
    lines.reverse();
    lines
}

async fn compare(recordings: Vec<Made>, questions: Vec<Question>) {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path()).await.unwrap();
    let mut there: Vec<Made> = Vec::new();
    for made in recordings {
        there.retain(|before| before.session != made.session);
        let read = read(&made);
        index.put(&read).await.unwrap();
        if made.goes {
            index.forget(read.session).await.unwrap();
        } else {
            there.push(made);
        }
    }
    let lines: Vec<&String> =
        there.iter().flat_map(|made| made.blocks.iter().flatten()).map(|(_, text)| text).collect();
    for question in questions {
        let Question { line, from, length, text, capital, since_ms, device, user, limit } =
            question;
        let text = text.unwrap_or_else(|| {
            let line = lines.get(line % lines.len().max(1)).map_or("a", |line| line.as_str());
            line.chars().skip(from).take(length).collect()
        });
        // The API refuses the empty text.
        let text = if text.is_empty() { "a".to_owned() } else { text };
        let text = if capital { text.to_ascii_uppercase() } else { text };
        let id = |one: u8| vec![one; 16];
        let (device, user) = (device.map(id), user.map(id));
        let asked = Asked { text, since_ms, device, user, limit };
        let all = looked(&there, &asked);
        let got = found(&index.readers, &asked).await.unwrap();
        let mut hits: Vec<(u64, String)> =
            got.hits.into_iter().map(|hit| (hit.at_ms, hit.line)).collect();
        let times = |lines: &[(u64, String)]| lines.iter().map(|line| line.0).collect::<Vec<_>>();
        let wanted = &all[..limit.min(all.len())];
        assert_eq!(times(&hits), times(wanted), "{asked:?} of {all:?}");
        assert!(!got.complete || all.len() <= limit, "{asked:?}");
        assert!(got.complete || hits.len() == limit, "{asked:?}");
        // Of lines of one time any may be the last.
        let mut left = all.clone();
        for hit in &hits {
            let at = left.iter().position(|one| one == hit);
            left.remove(at.unwrap_or_else(|| panic!("{hit:?} is not there: {asked:?}")));
        }
        if got.complete {
            hits.sort();
            hits.reverse();
            assert_eq!(hits, all, "{asked:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_search_finds_what_a_look_at_every_line_finds(
        recordings in prop::collection::vec(made(), 1..16),
        questions in prop::collection::vec(question(), 40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(recordings, questions));
    }
}
