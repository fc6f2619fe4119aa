//! Entries that lose their text by rule: what is proven stays proven, and what nobody put on record is
//! found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use belay_proto::audit::Checkpoint;
use belay_proto::audit::{Finding, leaf_hash, verify_inclusion};
use belay_relay::export::config::{Export, From, To};
use belay_relay::recordings::Recordings;
use belay_relay::retention::Keeper;
use belay_relay::store::{Cursor, Event, EventKind, NewHold, Store};
use belay_tunnel::clock;
use belay_tunnel::pki::NoteVerifier;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::audit::review;

const N: u64 = 2500;

async fn log_of_n(dir: &Path) -> Store {
    let store = Store::open(dir).await.unwrap();
    grow(&store, N).await;
    store
}

async fn grow(store: &Store, count: u64) {
    let event = |n| Event::new(EventKind::LineUp).detail(&format!("a secret, number {n}"));
    store.record_batch((0..count).map(event).collect()).await.unwrap();
}

fn keeper(store: &Store, dir: &Path, days: u32, exports: &[Export]) -> Keeper {
    Keeper::new(store.clone(), Recordings::open(dir).unwrap(), 0).pruning(days, exports)
}

fn later(days: u64) -> belay_proto::time::UnixTime {
    clock::now().plus(Duration::from_secs(days * 24 * 3600 + 60))
}

async fn texts(store: &Store) -> Vec<String> {
    let size = store.checkpoint().await.unwrap().unwrap().0;
    let (mut all, mut after) = (Vec::new(), 0);
    while after < size {
        all.extend(store.log_page(after, size).await.unwrap().entries);
        after = all.len() as u64;
    }
    all
}

/// A young entry, so that there is one that ends what is old.
async fn young(store: &Store, dir: &Path) {
    store.record(Event::new(EventKind::RelayStarted)).await.unwrap();
    let options = SqliteConnectOptions::new().filename(dir.join("belay.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let trigger = "SELECT sql FROM sqlite_master WHERE name = 'decisions_are_not_changed'";
    let trigger: String = sqlx::query_scalar(trigger).fetch_one(&mut conn).await.unwrap();
    drop_triggers(&mut conn).await;
    let young = later(40).0;
    // Its time is a copy of what its text says; a test's way to let forty days pass.
    let set =
        format!("UPDATE decisions SET at = {young} WHERE seq = (SELECT max(seq) FROM decisions)");
    for sql in [set, trigger] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
}

async fn drop_triggers(conn: &mut SqliteConnection) {
    sqlx::query("DROP TRIGGER decisions_are_not_changed").execute(conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_loses_its_text_and_nothing_of_its_proof() {
    let dir = tempfile::tempdir().unwrap();
    let store = log_of_n(dir.path()).await;
    let elsewhere = store.checkpoint().await.unwrap().unwrap().1;
    let before = texts(&store).await;
    young(&store, dir.path()).await;
    assert_eq!(keeper(&store, dir.path(), 0, &[]).prune(later(9999)).await, 0, "0 is for ever");
    assert_eq!(keeper(&store, dir.path(), 30, &[]).prune(later(29)).await, 0, "not yet");
    assert_eq!(keeper(&store, dir.path(), 30, &[]).prune(later(31)).await, N);
    assert_eq!(keeper(&store, dir.path(), 30, &[]).prune(later(31)).await, 0, "once");

    let after = texts(&store).await;
    assert!(after[..N as usize].iter().all(String::is_empty));
    assert!(after.last().unwrap().contains("\"kind\":\"log-pruned\""), "{:?}", after.last());
    let report = review(&store, std::slice::from_ref(&elsewhere)).await;
    assert_eq!((report.findings, report.pruned, report.proven), (vec![], N, N + 2));
    // A text that somebody exported before is still proven by the log.
    let (size, note) = store.checkpoint().await.unwrap().unwrap();
    let key = store.log_key().clone();
    let root = Checkpoint::open(&note, &key, &NoteVerifier::from(&key)).unwrap().root;
    let proof = store.log_inclusion(7, size).await.unwrap().unwrap();
    assert!(verify_inclusion(leaf_hash(before[6].as_bytes()), 6, size, &proof, root));
    // And it is nowhere in the file any more.
    store.close().await;
    let bytes = std::fs::read(dir.path().join("belay.db")).unwrap();
    assert!(!bytes.windows(9).any(|window| window == b"a secret,"), "a text is left in the file");
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(review(&store, &[]).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_or_not_exported_yet_keeps_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let code = belay_relay::store::LoginCode { digest: [1; 32], expires: clock::now() };
    let by = belay_relay::store::Actor::Machine;
    let roles = vec![belay_proto::policy::Role::Administrator];
    let anna = store.add_user("anna".parse().unwrap(), roles, code, by).await.unwrap();
    grow(&store, 10).await;
    store.record(Event::new(EventKind::ClientUp).user(anna)).await.unwrap();
    let peer = "192.0.2.7:1".parse().unwrap();
    let by = belay_relay::store::Actor::User(anna, peer);
    let name = NewHold::User("anna".parse().unwrap());
    let hold = store.place_hold(name, "case 1".to_owned(), by).await.unwrap();
    young(&store, dir.path()).await;
    let to = To::File(dir.path().join("x"));
    let behind_after = Duration::from_secs(900);
    let siem = Export { name: "siem".to_owned(), from: From::Start, batch: 7, behind_after, to };
    let prune =
        async || keeper(&store, dir.path(), 30, std::slice::from_ref(&siem)).prune(later(31)).await;
    assert_eq!(prune().await, 0, "nothing is exported yet");
    let cursor = Cursor { seq: 5, ..Cursor::default() };
    store.keep_cursor("siem", cursor, None).await.unwrap();
    assert_eq!(prune().await, 5);
    store.keep_cursor("siem", Cursor { seq: 100, ..cursor }, None).await.unwrap();
    assert_eq!(prune().await, 7, "all but what is held and the hold itself");
    let left = texts(&store).await;
    let kinds = ["client-up", "hold-placed"];
    let kept: Vec<&String> = left[..14].iter().filter(|text| !text.is_empty()).collect();
    assert!(kept.len() == 2 && kept.iter().zip(kinds).all(|(t, k)| t.contains(k)), "{kept:?}");
    store.release_hold(hold.id, "closed".to_owned(), by).await.unwrap();
    assert_eq!(prune().await, 1);
    assert_eq!(review(&store, &[]).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_blanks_an_entry_by_hand_is_found_and_the_database_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let store = log_of_n(dir.path()).await;
    let options = SqliteConnectOptions::new().filename(dir.path().join("belay.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let blank = "UPDATE decisions SET entry = NULL, detail = NULL WHERE seq = 300";
    let refused = sqlx::query(blank).execute(&mut conn).await.unwrap_err().to_string();
    assert!(refused.contains("append-only"), "{refused}");
    drop_triggers(&mut conn).await;
    sqlx::query(blank).execute(&mut conn).await.unwrap();
    let report = review(&store, &[]).await;
    assert_eq!(report.findings, [Finding::Blank { first: 300, last: 300 }]);
}
