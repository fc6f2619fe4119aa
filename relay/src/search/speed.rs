//! How long a search takes over thousands of hours, and what the index costs. Prints figures:
//! `cargo test --release -p belay-relay --lib search::speed -- --ignored --nocapture`; hours by
//! `BELAY_SEARCH_HOURS`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "figures")]

use std::time::Instant;

use belay_proto::ids::SessionId;
use belay_tunnel::transcript::{Block, Gathering, Kind, Line};
use uuid::Uuid;

use super::find::found;
use super::index::{Index, Read, Seen, State};
use super::*;

/// Text of an hour's session: a command each 15 s, with a dozen lines of what it printed.
const HOUR_COMMANDS: u64 = 240;

/// xorshift64*: the same corpus every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Small numbers far more often than large ones, as words are.
    fn rank(&mut self, most: u64) -> u64 {
        let one = self.next() >> 11;
        let unit = one as f64 / (1_u64 << 53) as f64;
        (most as f64).powf(unit) as u64
    }
}

fn words(chance: &mut Chance, count: u64, out: &mut String) {
    for _ in 0..count {
        let rank = chance.rank(40_000);
        match rank % 5 {
            0 => out.push_str(&format!("/var/log/w{rank}.log ")),
            1 => out.push_str(&format!("{} ", chance.next() % 100_000)),
            _ => out.push_str(&format!("w{rank} ")),
        }
    }
}

fn hour(chance: &mut Chance, begun_ms: u64, needle: bool) -> (Vec<Block>, usize) {
    let (mut gathering, mut blocks, mut text) = (Gathering::default(), Vec::new(), 0);
    for command in 0..HOUR_COMMANDS {
        let at_ms = begun_ms + command * 15_000;
        let mut typed = "$ ".to_owned();
        words(chance, 3, &mut typed);
        if needle && command == 17 {
            typed = "$ sudo rm -rf /srv/needle".to_owned();
        }
        for line in 0..13 {
            let mut shown = typed.clone();
            if line > 0 {
                shown.clear();
                words(chance, 8, &mut shown);
            }
            text += shown.len() + 1;
            let (track, offset_ms) = (1, at_ms - begun_ms);
            let (kind, command) = (Kind::Output, None);
            let line = Line { track, at_ms, offset_ms, kind, text: shown, command };
            blocks.extend(gathering.push(line).unwrap());
        }
    }
    blocks.extend(gathering.finish().unwrap());
    (blocks, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; minutes of work and gigabytes of disk"]
async fn a_search_over_thousands_of_hours() {
    let hours: u64 = std::env::var("BELAY_SEARCH_HOURS").map_or(1000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path()).await.unwrap();
    // Made ahead, on the other core.
    let (give, mut made) = tokio::sync::mpsc::channel(16);
    let maker = tokio::task::spawn_blocking(move || {
        let mut chance = Chance(88_172_645_463_325_252);
        for n in 0..hours {
            let made = hour(&mut chance, 1_800_000_000_000 + n * 1_000_000, n % 997 == 500);
            give.blocking_send(made).unwrap();
        }
    });
    let (mut text, mut took) = (0, 0.0);
    for n in 0..hours {
        let begun = Instant::now();
        let (blocks, length) = made.recv().await.unwrap();
        text += length;
        let read = Read {
            session: SessionId::from_uuid(Uuid::from_u128(u128::from(n) + 1)),
            user: Some(vec![1; 16]),
            device: Some(vec![u8::try_from(n % 50).unwrap(); 16]),
            login: Some("root".into()),
            seen: Seen { bytes: 1, ended: true, state: State::Whole },
            blocks,
        };
        index.put(&read).await.unwrap();
        took += begun.elapsed().as_secs_f64();
        // At a tenth of the way too: what grows with the hours shows, and what does not.
        if n + 1 == hours || n + 1 == hours / 10 {
            size(dir.path(), n + 1, text as f64, took);
            times(&index).await;
        }
    }
    maker.await.unwrap();
}

fn size(dir: &std::path::Path, hours: u64, text: f64, took: f64) {
    let size: u64 = std::fs::read_dir(dir)
        .unwrap()
        .map(Result::unwrap)
        .filter(|file| file.path().extension().is_some_and(|it| it == "db"))
        .map(|file| file.metadata().unwrap().len())
        .sum();
    let (mb, kb) = (|bytes: f64| bytes / 1e6, |bytes: f64| bytes / hours as f64 / 1e3);
    println!(
        "{hours} h of transcript, {:.0} MB of text ({:.0} KB an hour): index {:.0} MB ({:.0} KB an hour), made in {took:.0} s ({:.1} MB/s, {:.0} hours a second)",
        mb(text),
        kb(text),
        mb(size as f64),
        kb(size as f64),
        mb(text) / took,
        hours as f64 / took,
    );
}

async fn times(index: &Index) {
    let cases = [
        ("a rare line", "rm -rf /srv/needle", None),
        ("its beginning, on one device", "rm -rf", Some(vec![0; 16])),
        ("a frequent word, the newest", "w2", None),
        ("frequent words, rarely in this order", "w2 w3 w4 w2", None),
        ("frequent words, apart only", "w2/w3", None),
        ("frequent pairs of words, never in this order", "w2 w3 w2 w3 w2 w3 w2", None),
        ("the beginning of half of all words", "w", None),
        ("the beginning of many words", "w39", None),
        ("the beginning of few words", "w3914", None),
        ("nothing at all", "nosuchword", None),
        ("marks alone, which are nowhere", "&& ;;", None),
        ("frequent marks alone, never in this order", "/ ./", None),
        ("a frequent mark and a beginning", ".l", None),
    ];
    for (what, text, device) in cases {
        let asked = Asked { text: text.into(), device, limit: 50, ..Asked::default() };
        let mut times = Vec::new();
        let mut last = Found::default();
        for _ in 0..5 {
            let begun = Instant::now();
            last = found(&index.readers, &asked).await.unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let first = times[0];
        times.sort_by(f64::total_cmp);
        println!(
            "{what:<46} {text:<22} {:>3} hits, complete {:<5}  first {first:>7.0} ms, median {:>7.0} ms",
            last.hits.len(),
            last.complete,
            times[2],
        );
    }
}
