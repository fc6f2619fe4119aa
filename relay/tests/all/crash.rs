//! `kill -9` in the middle of writing: what was acknowledged is there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use belay_relay::store::{Event, EventKind, Store};
use tokio::task::JoinSet;

const DATA: &str = "BELAY_TEST_CRASH_DATA";

/// Not a test of its own: the process that [`acknowledged_records_survive_kill_9`] kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, which kills it"]
async fn helper_that_records_until_it_is_killed() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let store = Store::open(data.as_ref()).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let name = format!("{task}-{n}");
                store.record(Event::new(EventKind::LineUp).detail(&name)).await.unwrap();
                println!("kept {name}");
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
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::helper_that_records_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(DATA, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            if let Some(name) = line.unwrap().strip_prefix("kept ") {
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
            if let Some(name) = line.strip_prefix("kept ") {
                acknowledged.insert(format!("{round}: {name}"));
            }
        }
    }
    assert!(acknowledged.len() >= 1500);
    let store = Store::open(dir.path()).await.unwrap();
    let mut kept = Vec::new();
    let mut after = 0;
    loop {
        let page = store.decisions(after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        kept.extend(page.into_iter().filter_map(|d| d.detail));
    }
    let mut rounds: std::collections::BTreeMap<&str, usize> = [].into();
    for name in &kept {
        *rounds.entry(name).or_default() += 1;
    }
    let mut wanted: std::collections::BTreeMap<&str, usize> = [].into();
    for name in &acknowledged {
        *wanted.entry(name.split_once(": ").unwrap().1).or_default() += 1;
    }
    let report = crate::audit::review(&store, &[]).await;
    assert_eq!((report.findings, report.proven), (vec![], kept.len() as u64), "all under the tree");
    for (name, times) in wanted {
        assert!(rounds.get(name).is_some_and(|kept| *kept >= times), "{name} was lost");
    }
}
