//! `kill -9` in the middle of writing, and power that goes: what was acknowledged is there, and under
//! the audit log's tree. `BELAY_CUTS=1000` cuts so often, `BELAY_SEED=n` takes a series again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use belay_relay::store::{Event, EventKind, Store};
use tokio::task::JoinSet;

const DATA: &str = "BELAY_TEST_CRASH_DATA";

/// Not a test of its own: the process that [`acknowledged_records_survive_kill_9`] kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, which kills it"]
async fn helper_that_records_until_it_is_killed() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let log = Path::new(&data).join("belay.db-wal");
    let store = Store::open(data.as_ref()).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let (store, log) = (store.clone(), log.clone());
        tasks.spawn(async move {
            for n in 0.. {
                let name = format!("{task}-{n}");
                store.record(Event::new(EventKind::LineUp).detail(&name)).await.unwrap();
                // What is in the write-ahead log now was synced, this record with it, or is younger.
                println!("kept {name} {}", std::fs::metadata(&log).map_or(0, |meta| meta.len()));
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let (mut child, mut lines) = recorder(dir.path());
        for line in lines.by_ref() {
            if let Some((name, _)) = kept(&line.unwrap()) {
                acknowledged.insert(format!("{round}: {name}"));
            }
            if acknowledged.len() >= 500 * (round + 1) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had written before it died counts as acknowledged as well.
        for line in lines.map_while(Result::ok) {
            if let Some((name, _)) = kept(&line) {
                acknowledged.insert(format!("{round}: {name}"));
            }
        }
    }
    assert!(acknowledged.len() >= 1500);
    let store = Store::open(dir.path()).await.unwrap();
    let kept = details(&store).await;
    let mut rounds: BTreeMap<&str, usize> = [].into();
    for name in &kept {
        *rounds.entry(name).or_default() += 1;
    }
    let mut wanted: BTreeMap<&str, usize> = [].into();
    for name in &acknowledged {
        *wanted.entry(name.split_once(": ").unwrap().1).or_default() += 1;
    }
    let report = crate::audit::review(&store, &[]).await;
    assert_eq!((report.findings, report.proven), (vec![], kept.len() as u64), "all under the tree");
    for (name, times) in wanted {
        assert!(rounds.get(name).is_some_and(|kept| *kept >= times), "{name} was lost");
    }
}

fn recorder(data: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::helper_that_records_until_it_is_killed"])
        .args(["--ignored", "--nocapture"])
        .env(DATA, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// The name of a record that was acknowledged, and how long the write-ahead log was then.
fn kept(line: &str) -> Option<(&str, u64)> {
    let (name, length) = line.strip_prefix("kept ")?.split_once(' ')?;
    Some((name, length.parse().ok()?))
}

async fn details(store: &Store) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store.decisions(after).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = last.seq;
        all.extend(page.into_iter().filter_map(|d| d.detail));
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A power cut is a kill after which the disk has of what was not synced a part, or garbage.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_power_cuts_with_torn_writes() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("BELAY_SEED", u64::from(now.subsec_nanos()));
    println!("BELAY_SEED={seed}");
    let mut state = seed | 1;
    let mut chance = move |below: u64| {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut total, mut torn) = (0, 0);
    for cut in 0..number("BELAY_CUTS", 8) {
        let (mut child, mut lines) = recorder(dir.path());
        let wanted = 1 + chance(150);
        let (mut names, mut synced) = (Vec::new(), 0);
        let mut heard = |line: &str| {
            if let Some((name, length)) = kept(line) {
                names.push(name.to_owned());
                synced = synced.max(length);
            }
            names.len() as u64
        };
        for line in lines.by_ref() {
            if heard(&line.unwrap()) >= wanted {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            heard(&line);
        }
        let log = File::options().write(true).open(dir.path().join("belay.db-wal")).unwrap();
        let length = log.metadata().unwrap().len();
        if synced < length {
            torn += 1;
            let from = synced + chance(length - synced + 1);
            if chance(2) == 0 {
                log.set_len(from).unwrap();
            } else {
                let garbage: Vec<u8> = (from..length).map(|_| chance(256) as u8).collect();
                log.write_all_at(&garbage, from).unwrap();
            }
        }
        drop(log);
        let store = Store::open(dir.path()).await.unwrap();
        let report = crate::audit::review(&store, &[]).await;
        assert_eq!(report.findings, [], "cut {cut}");
        assert_eq!(report.proven, report.entries, "cut {cut}");
        let all = details(&store).await;
        let new: BTreeSet<&str> = all[total..].iter().map(String::as_str).collect();
        for name in &names {
            assert!(new.contains(name.as_str()), "cut {cut}: {name} was lost");
        }
        total = all.len();
        // Folds the write-ahead log in, so that the next one begins anew.
        store.close().await;
    }
    println!("{total} records, {torn} torn writes");
}
