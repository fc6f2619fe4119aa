//! How long a search of one's own index takes, and what it costs. Prints figures:
//! `cargo test --release -p belay-client --lib own::speed -- --ignored --nocapture`; hours by
//! `BELAY_SEARCH_HOURS`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "figures")]

use std::time::Instant;

use belay_proto::api::SealedRecording;
use belay_tunnel::transcript::{Gathering, Kind, Line};

use super::file::State;
use super::*;
use crate::commands::play::logged::Ending;

/// Text of an hour's session: a command each 15 s, with a dozen lines of what it printed.
const HOUR_LINES: u64 = 240 * 13;

/// xorshift64*: the same corpus every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A word; small numbers far more often than large ones, as words are.
    fn word(&mut self, out: &mut String) {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = 40_000_f64.powf(unit) as u64;
        out.push_str(&match rank % 5 {
            0 => format!("/var/log/w{rank}.log "),
            1 => format!("{} ", self.next() % 100_000),
            _ => format!("w{rank} "),
        });
    }
}

fn hour(chance: &mut Chance, begun_ms: u64, needle: bool) -> (Vec<Block>, usize) {
    let (mut gathering, mut blocks, mut length) = (Gathering::default(), Vec::new(), 0);
    for line in 0..HOUR_LINES {
        let mut text = String::new();
        (0..8).for_each(|_| chance.word(&mut text));
        if needle && line == 17 {
            text = "$ sudo rm -rf /srv/needle".to_owned();
        }
        length += text.len() + 1;
        let (offset_ms, kind, command) = (line * 1000, Kind::Output, None);
        let at_ms = begun_ms + offset_ms;
        let line = Line { track: 1, at_ms, offset_ms, kind, text, command };
        blocks.extend(gathering.push(line).unwrap());
    }
    blocks.extend(gathering.finish().unwrap());
    (blocks, length)
}

#[test]
#[ignore = "prints figures; minutes of work and gigabytes of disk"]
fn a_search_of_ones_own_over_thousands_of_hours() {
    use age::secrecy::ExposeSecret as _;
    let hours: u64 = std::env::var("BELAY_SEARCH_HOURS").map_or(1000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let secret = age::x25519::Identity::generate();
    std::fs::write(&key, secret.to_string().expose_secret()).unwrap();
    let home = Home::locate(Some(&dir.path().join("home"))).unwrap();
    let index = Index::open(&home, &key).unwrap();
    let (mut chance, mut text, mut size) = (Chance(88_172_645_463_325_252), 0, 0);
    let mut listed = Vec::new();
    let begun = Instant::now();
    for n in 0..hours {
        let session = format!("0197a3c2-7a30-7cc1-9d0e-{n:012x}").parse().unwrap();
        let (blocks, length) = hour(&mut chance, 1_800_000_000_000 + n * 1_000_000, n % 997 == 500);
        text += length;
        let head = Head { bytes: 1, state: State::Whole, ending: Ending::Agreed };
        index.put(session, head, &blocks).unwrap();
        size += std::fs::metadata(index.path(session)).unwrap().len();
        let (user, device, device_id, login, bytes) = (None, None, None, None, 1);
        listed.push(SealedRecording { session, user, device, device_id, login, bytes });
    }
    println!(
        "{hours} h, {:.0} KB of text an hour: index {:.0} KB an hour, made at {:.0} h/s",
        text as f64 / hours as f64 / 1e3,
        size as f64 / hours as f64 / 1e3,
        hours as f64 / begun.elapsed().as_secs_f64(),
    );
    for text in ["rm -rf /srv/needle", "w2", "w2 w3 w4 w2", "nosuchword", "w2 nosuchword", "&& ;;"]
    {
        let asked = Asked { text: text.into(), since_ms: 0, device: None, user: None, limit: 50 };
        let mut times = Vec::new();
        let mut hits = 0;
        for _ in 0..5 {
            let begun = Instant::now();
            hits = index.look(&listed, &asked).unwrap().hits.len();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let first = times.first().copied().unwrap();
        times.sort_by(f64::total_cmp);
        let median = times.get(2).copied().unwrap();
        println!("{text:<22} {hits:>3} hits  first {first:>7.0} ms, median {median:>7.0} ms");
    }
}
