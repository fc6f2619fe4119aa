#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::path::Path;
use std::time::Duration;

use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::cast::{Code, Fact, Header, event};
use belay_proto::recording::{End, Segment, VERSION, digest};
use belay_proto::time::UnixTime;
use belay_tunnel::pki::{DeviceKey, TlsKey};
use belay_tunnel::transcript::{Block, Gathering, Kind, Line};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::find::found;
use super::index::{Index, Read, Seen, State};
use super::*;
use crate::store::Store;

/// A data directory with a device, a store and recordings.
struct Site {
    dir: tempfile::TempDir,
    tls: TlsKey,
    key: Arc<DeviceKey>,
    store: Store,
    recordings: Arc<Recordings>,
    search: Arc<Search>,
}

async fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let now = belay_tunnel::clock::now();
    let authority = crate::ca::Authority::make(dir.path(), "127.0.0.1", now).unwrap();
    let tls = TlsKey::generate().unwrap();
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let host: ssh_key::PrivateKey = ssh_key::private::Ed25519Keypair::from_seed(&seed).into();
    let host = host.public_key().to_openssh().unwrap();
    let (id, name) = (DeviceId::from_uuid(Uuid::from_u128(7)), "pump".parse().unwrap());
    let request = tls.request_der().unwrap();
    let issued = authority.issue_device(id, &name, &request, &host, now).unwrap();
    let key = Arc::new(DeviceKey::issued(issued.certificate, authority.ca()).unwrap());
    let store = Store::open(dir.path()).await.unwrap();
    let recordings = Recordings::open(dir.path()).unwrap();
    let search = Search::new(Arc::clone(&recordings), authority.ca().clone());
    Site { dir, tls, key, store, recordings, search }
}

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::now_v7())
}

const BEGUN: UnixTime = UnixTime(1_800_000_000);

fn header(track: u32, kind: &str, command: Option<&str>) -> String {
    let mut line = String::new();
    let (columns, rows, term) = (40, 5, Some("xterm"));
    let begun = BEGUN;
    Header { columns, rows, term, begun, command, title: kind, track, kind }.write(&mut line);
    line
}

fn events<T: AsRef<str>>(events: &[(u64, Code, T)]) -> String {
    let mut out = String::new();
    for (seconds, code, text) in events {
        event(Duration::from_secs(*seconds), *code, text.as_ref(), &mut out);
    }
    out
}

/// What each segment of a recording has: track, text, sealed.
type Part = (u32, String, bool);

impl Site {
    /// Keeps a recording of these segments, the last of which ends it if `whole`.
    async fn record(&self, session: SessionId, parts: &[Part], whole: bool) {
        let mut before = [0; 32];
        for (number, (track, text, sealed)) in parts.iter().enumerate() {
            let segment = Segment {
                version: VERSION,
                session,
                device: self.key.device(),
                number: number as u64,
                before: before.to_vec().into(),
                track: *track,
                first_ms: BEGUN.0 * 1000 + 5,
                last_ms: BEGUN.0 * 1000 + 5,
                compressed: Some(true),
                sealed: sealed.then_some(true),
                key: None,
                end: (whole && number + 1 == parts.len()).then_some(End::Whole),
                payload: zstd::bulk::compress(text.as_bytes(), 1).unwrap().into(),
            };
            let (encoded, signed) = self.tls.sign_segment(&segment).unwrap();
            before = digest(&encoded);
            self.recordings.keep(session, &self.key, signed).await.unwrap();
        }
    }

    async fn index(&self) -> Index {
        let mut index = Index::open(self.recordings.dir()).await.unwrap();
        for (session, bytes) in self.recordings.sizes().unwrap() {
            let read = self.search.read(session, bytes, &self.store).await.unwrap().unwrap();
            index.put(&read).await.unwrap();
        }
        index
    }
}

async fn lines(index: &Index, text: &str) -> Vec<(&'static str, String)> {
    let asked = Asked { text: text.into(), limit: 100, ..Asked::default() };
    let found = found(&index.readers, &asked).await.unwrap();
    assert!(found.complete);
    found.hits.into_iter().map(|hit| (hit.kind, hit.line)).collect()
}

#[tokio::test]
async fn terminals_commands_and_facts_are_found_with_their_times_and_commands() {
    let site = site().await;
    let id = session();
    let fact = Fact::new("file").text("path", "/etc/passwd").text("direction", "to-device");
    let parts = [
        (0, header(0, "session", None) + &events(&[(1, Code::Belay, fact.finish())]), false),
        (1, header(1, "terminal", None) + &events(&[(2, Code::Output, "$ cat no")]), false),
        (
            2,
            header(2, "command", Some("grep -r needle /etc"))
                + &events(&[
                    (3, Code::Output, "/etc/a: nee"),
                    (1, Code::Output, "dle\nlast"),
                    (0, Code::Error, " line\n"),
                    (1, Code::Exit, "0"),
                ]),
            false,
        ),
        (1, events(&[(10, Code::Output, "tes\r\nthe Needle is here\r\n$ ")]), false),
    ];
    site.record(id, &parts, true).await;
    let index = site.index().await;
    let asked = Asked { text: "needle".into(), limit: 100, ..Asked::default() };
    let found = found(&index.readers, &asked).await.unwrap();
    let shown: Vec<_> =
        found.hits.iter().map(|h| (h.track, h.offset_ms, h.kind, h.line.as_str())).collect();
    let wanted = [
        (1, 12_000, "output", "the Needle is here"),
        (2, 4_000, "output", "/etc/a: needle"),
        (2, 0, "command", "grep -r needle /etc"),
    ];
    assert_eq!(shown, wanted);
    assert_eq!(found.hits[1].command.as_deref(), Some("grep -r needle /etc"));
    assert_eq!(found.hits[0].at_ms, BEGUN.0 * 1000 + 5 + 12_000);
    assert_eq!((found.searched, found.cut, found.sealed, found.damaged), (1, 0, 0, 0));
    assert_eq!(lines(&index, "/etc/passwd").await.len(), 1);
    assert_eq!(lines(&index, "cat notes").await, [("output", "$ cat notes".to_owned())]);
    assert_eq!(lines(&index, "last line").await, [("output", "last line".to_owned())]);
    assert_eq!(lines(&index, "eedle").await, []);
    assert_eq!(lines(&index, "-r").await.len(), 1, "no word to look up by");
    let since = Asked { since_ms: u64::MAX / 2, ..asked.clone() };
    assert_eq!(super::find::found(&index.readers, &since).await.unwrap().hits, []);
    let other = Asked { device: Some(vec![1; 16]), ..asked.clone() };
    assert_eq!(super::find::found(&index.readers, &other).await.unwrap().hits, []);
    let one = Asked { limit: 1, ..asked };
    let one = super::find::found(&index.readers, &one).await.unwrap();
    assert_eq!((one.hits.len(), one.complete), (1, false));
    assert_eq!(one.hits[0].offset_ms, 12_000, "the newest");
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_harms_no_other() {
    let site = site().await;
    let text = |word: &str| {
        header(1, "terminal", None) + &events(&[(1, Code::Output, &format!("{word}\r\n"))])
    };
    let (sealed, broken, nonsense, good) = (session(), session(), session(), session());
    site.record(sealed, &[(1, text("hidden"), true)], true).await;
    site.record(
        broken,
        &[(1, text("before"), false), (1, events(&[(1, Code::Output, "x\r\n")]), false)],
        true,
    )
    .await;
    site.record(nonsense, &[(1, "no asciicast at all\n".to_owned(), false)], true).await;
    site.record(good, &[(1, text("visible"), false)], false).await;
    let file = |session: SessionId| {
        let days = std::fs::read_dir(site.recordings.dir()).unwrap();
        let mut files = days.map(|day| day.unwrap().path().join(format!("{session}.belay")));
        files.find(|file| file.exists()).unwrap()
    };
    let mut bytes = std::fs::read(file(broken)).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(file(broken), bytes).unwrap();
    let mut index = site.index().await;
    let asked = Asked { text: "visible".into(), limit: 9, ..Asked::default() };
    let found = found(&index.readers, &asked).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    assert_eq!((found.searched, found.sealed, found.damaged), (1, 1, 2));
    assert_eq!(lines(&index, "hidden").await, []);
    assert_eq!(lines(&index, "before").await.len(), 1, "what its device did sign");
    let seen = index.seen().await.unwrap();
    assert_eq!((seen[&sealed].state, seen[&good].state), (State::Sealed, State::Whole));
    assert!(!seen[&good].ended);
    // Gone, and all of it with it.
    index.forget(good).await.unwrap();
    assert_eq!(lines(&index, "visible").await, []);
    assert!(!index.seen().await.unwrap().contains_key(&good));
}

#[tokio::test]
async fn a_recording_that_would_not_end_is_searched_in_its_beginning() {
    let site = site().await;
    let line = "spam ".repeat(11_000);
    let flood = |n: u64| events(&[(n, Code::Output, &line)]);
    let mut parts = vec![(
        1,
        header(1, "command", Some("yes")) + &events(&[(0, Code::Output, "first words\n")]),
        false,
    )];
    // Each segment is a bomb of its own; together they are more than is looked at.
    parts.extend((0..20).map(|n| (1, flood(n), false)));
    for track in 2..200 {
        let big = header(track, "terminal", None).replace("\"cols\":40", "\"cols\":65535");
        parts.push((track, big, false));
    }
    site.record(session(), &parts, true).await;
    let index = site.index().await;
    assert_eq!(lines(&index, "first words").await.len(), 1);
    let asked = Asked { text: "spam".into(), limit: 9, ..Asked::default() };
    let found = found(&index.readers, &asked).await.unwrap();
    assert_eq!(found.cut, 1, "more terminals than are followed");
    assert!(found.hits.iter().all(|hit| hit.line.len() <= belay_tunnel::transcript::LINE_MAX));
}

async fn eventually(search: &Search, text: &str) -> Found {
    let asked = Asked { text: text.into(), limit: 9, ..Asked::default() };
    for _ in 0..600 {
        if let Ok(found) = search.find(&asked).await
            && !found.hits.is_empty()
        {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{text} is never found");
}

/// Waits until so many recordings grow, wait, are searched and sealed. The index may be a moment ahead of its account.
async fn settled(search: &Search, wanted: (u64, u64, u64, u64)) {
    let asked = Asked { text: "begun".into(), limit: 9, ..Asked::default() };
    let mut last = wanted;
    for _ in 0..600 {
        let found = search.find(&asked).await.unwrap();
        last = (found.growing, found.waiting, found.searched, found.sealed);
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?} instead of {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_kept_by_itself_and_made_anew_when_it_is_gone_or_broken() {
    let site = site().await;
    let part = |word: &str| {
        let text =
            header(1, "terminal", None) + &events(&[(1, Code::Output, &format!("{word}\r\n"))]);
        [(1, text, false)]
    };
    assert!(matches!(site.search.find(&Asked::default()).await, Err(SearchError::NotYet)));
    site.record(session(), &part("alpha"), true).await;
    for damage in [None, Some(&b"no database"[..])] {
        let cancel = CancellationToken::new();
        let keeper = Arc::clone(&site.search).keep(site.store.clone(), cancel.clone());
        let keeper = tokio::spawn(keeper);
        assert_eq!(eventually(&site.search, "alpha").await.searched, 1);
        cancel.cancel();
        keeper.await.unwrap();
        let file: &Path = &site.dir.path().join("recordings/search.db");
        assert!(file.exists());
        if let Some(damage) = damage {
            assert!(site.recordings.sizes().unwrap().len() == 1, "it is no recording");
            std::fs::write(file, damage).unwrap();
        }
    }
    site.record(session(), &part("omega"), true).await;
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(Arc::clone(&site.search).keep(site.store.clone(), cancel.clone()));
    eventually(&site.search, "omega").await;
    eventually(&site.search, "alpha").await;
    cancel.cancel();
    keeper.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_counted_and_what_has_ended_is_read_at_once() {
    let site = site().await;
    let text = |word: &str| events(&[(1, Code::Output, &format!("{word}\r\n"))]);
    let mut parts = vec![(1, header(1, "terminal", None) + &text("begun"), false)];
    parts.extend((0..9).map(|n| (1, text(&format!("more{n}")), false)));
    let one = session();
    site.record(one, &parts, false).await;
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(Arc::clone(&site.search).keep(site.store.clone(), cancel.clone()));
    eventually(&site.search, "more8").await;
    let asked = Asked { text: "begun".into(), limit: 9, ..Asked::default() };
    assert_eq!(site.search.find(&asked).await.unwrap().growing, 0);
    // Less than a quarter is not read yet.
    parts.push((1, text("late"), false));
    site.record(one, &parts, false).await;
    settled(&site.search, (1, 0, 1, 0)).await;
    parts.push((1, text("last"), false));
    site.record(one, &parts, true).await;
    eventually(&site.search, "last").await;
    assert_eq!(eventually(&site.search, "late").await.growing, 0);
    // What is sealed is not wanted in the index.
    let other = session();
    let sealed = [(1, "sealed".to_owned(), true), (1, "again".to_owned(), true)];
    site.record(other, &sealed, true).await;
    settled(&site.search, (0, 0, 1, 1)).await;
    cancel.cancel();
    keeper.await.unwrap();
}

/// A block of its own for a line.
fn block(text: &str) -> Block {
    let line = Line {
        track: 1,
        at_ms: 1_800_000_000_000,
        offset_ms: 0,
        kind: Kind::Output,
        text: text.into(),
        command: None,
    };
    let mut gathering = Gathering::default();
    gathering.push(line).unwrap();
    gathering.finish().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_at_once_do_not_wait_for_each_others_readers() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path()).await.unwrap();
    let seen = Seen { bytes: 1, ended: true, state: State::Whole };
    let blocks = vec![block("once upon a time"); 20_000];
    let (user, device, login) = (None, None, None);
    index.put(&Read { session: session(), user, device, login, seen, blocks }).await.unwrap();
    // The one line that is wanted is as new as all others: each batch is asked for, and whether it was the last.
    let asked = Asked { text: "upon a".into(), limit: 1, ..Asked::default() };
    for _ in 0..20 {
        let all = (0..AT_ONCE).map(|_| found(&index.readers, &asked));
        for found in futures::future::join_all(all).await {
            let found = found.unwrap();
            assert_eq!((found.hits.len(), found.complete), (1, false));
        }
    }
}
