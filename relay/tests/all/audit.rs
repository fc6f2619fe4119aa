//! The audit log: what is recorded is under a signed tree, whoever edits the database is found out,
//! and who reads it is in it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use belay_proto::api::{LogCheckpoint, LogEntries, LogProof};
use belay_proto::audit::{
    Checkpoint, Difference, Entry, Finding, MAX_PAGE, Report, Review, leaf_hash,
    verify_consistency, verify_inclusion,
};
use belay_proto::error_line::one_line;
use belay_proto::policy::Role;
use belay_relay::store::{Event, EventKind, Store};
use belay_tunnel::clock;
use belay_tunnel::pki::NoteVerifier;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::support::Relay;

/// Entries of a log that is tampered with: two whole tiles and a part of one.
const N: u64 = 600;

/// A log of [`N`] entries, written in parts as a relay writes them.
async fn log_of_n(dir: &Path) -> Store {
    let store = Store::open(dir).await.unwrap();
    grow(&store, 1..=N, "number").await;
    store
}

async fn grow(store: &Store, numbers: impl Iterator<Item = u64>, word: &str) {
    let numbers: Vec<_> = numbers.collect();
    for part in numbers.chunks(50) {
        let event = |n: &u64| Event::new(EventKind::LineUp).detail(&format!("{word} {n}"));
        store.record_batch(part.iter().map(event).collect()).await.unwrap();
    }
}

/// What an auditor finds who reads all of it, and has these checkpoints from elsewhere.
pub(crate) async fn review(store: &Store, elsewhere: &[String]) -> Report {
    let key = store.log_key().clone();
    let check = NoteVerifier::from(&key);
    let mut review = Review::new(key);
    let (size, note) = store.checkpoint().await.unwrap().unwrap();
    let mut after = 0;
    while after < size {
        let page = store.log_page(after, size).await.unwrap();
        for (place, entry) in page.entries.iter().enumerate() {
            match page.leaves.get(place).filter(|_| entry.is_empty()) {
                Some(leaf) => review.pruned(*leaf),
                None => review.entry(entry),
            }
        }
        review.leaves(&page.leaves);
        page.checkpoints.iter().for_each(|note| review.checkpoint(note, &check));
        after = size.min(after + u64::from(MAX_PAGE));
    }
    review.checkpoint(&note, &check);
    elsewhere.iter().for_each(|note| review.checkpoint_from_elsewhere(note, &check));
    review.finish()
}

async fn note(store: &Store) -> String {
    store.checkpoint().await.unwrap().unwrap().1
}

/// The database as whoever owns the file has it: without triggers.
async fn owner(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("belay.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    for trigger in ["decisions_are_not_changed", "decisions_are_not_removed"] {
        sql(&mut conn, &format!("DROP TRIGGER IF EXISTS {trigger}")).await;
    }
    conn
}

async fn sql(conn: &mut SqliteConnection, text: &str) {
    sqlx::query(AssertSqlSafe(text)).execute(conn).await.unwrap_or_else(|e| panic!("{text}: {e}"));
}

const SHIFT: &str = "UPDATE decisions SET seq = -seq - 1 WHERE seq > 300;
                     UPDATE decisions SET seq = -seq WHERE seq < 0;";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_edits_the_database_is_told_which_entry_it_was() {
    let differs = |difference| vec![Finding::Differs(difference)];
    for (edit, expected) in [
        (
            "UPDATE decisions SET entry = replace(entry, 'number 300', 'number 301') WHERE seq = 300"
                .to_owned(),
            differs(Difference::Changed(300)),
        ),
        ("DELETE FROM decisions WHERE seq = 300".to_owned(), differs(Difference::Removed(300..301))),
        (
            "UPDATE decisions SET seq = -1 WHERE seq = 300;
             UPDATE decisions SET seq = 300 WHERE seq = 400;
             UPDATE decisions SET seq = 400 WHERE seq = -1"
                .to_owned(),
            vec![
                Finding::Differs(Difference::Moved { entry: 400, after: 299 }),
                Finding::Differs(Difference::Moved { entry: 300, after: 399 }),
            ],
        ),
        (
            format!(
                "{SHIFT} INSERT INTO decisions (seq, at, kind, entry) SELECT 301, at, kind,
                 replace(entry, '\"seq\":300', '\"seq\":301') FROM decisions WHERE seq = 300"
            ),
            vec![
                Finding::Differs(Difference::Inserted { after: 300, count: 1 }),
                Finding::Differs(Difference::Truncated(N..N + 1)),
            ],
        ),
        (
            "DELETE FROM decisions WHERE seq > 550".to_owned(),
            differs(Difference::Truncated(551..N + 1)),
        ),
        // The hashes too: then it is known to be in the tile whose checkpoint no longer fits.
        (
            "UPDATE decisions SET entry = replace(entry, 'number 300', 'number 301') WHERE seq = 300;
             DELETE FROM audit_tiles WHERE level = 0 AND place = 1"
                .to_owned(),
            vec![Finding::Altered { first: 251, last: 500 }],
        ),
        (
            "UPDATE audit_tiles SET hashes = zeroblob(8192) WHERE level = 0 AND place = 1".to_owned(),
            vec![Finding::HashChanged(257)],
        ),
        (
            "UPDATE audit_checkpoints SET note = replace(note, char(10) || '250' || char(10),
             char(10) || '249' || char(10)) WHERE size = 250"
                .to_owned(),
            vec![Finding::BadCheckpoint(belay_proto::audit::NoteError::Signature.into())],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = log_of_n(dir.path()).await;
        let before = review(&store, &[]).await;
        assert_eq!((before.findings, before.proven), (vec![], N));
        let mut conn = owner(dir.path()).await;
        sql(&mut conn, &edit).await;
        let report = review(&store, &[]).await;
        assert_eq!(report.findings, expected, "{edit}");
        assert!(report.proven >= 200, "what comes before is still proven: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_back_or_forks_does_not_fit_what_auditors_have() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = log_of_n(dir.path()).await;
    let first = note(&store).await;
    store.close().await;
    std::fs::create_dir(old.path().join("keys")).unwrap();
    for file in ["belay.db", "keys/audit.key"] {
        std::fs::copy(dir.path().join(file), old.path().join(file)).unwrap();
    }
    let (store, fork) =
        (Store::open(dir.path()).await.unwrap(), Store::open(old.path()).await.unwrap());
    grow(&store, N + 1..=N + 100, "number").await;
    let second = note(&store).await;
    assert_eq!(review(&store, std::slice::from_ref(&first)).await.findings, []);
    // Whoever restored the old state shows less than was seen.
    let findings = review(&fork, &[first.clone(), second.clone()]).await.findings;
    assert_eq!(findings, [Finding::Shorter { have: N, signed: N + 100 }]);
    // And whoever goes on from there, with the same key, another history.
    grow(&fork, N + 1..=N + 200, "another").await;
    let findings = review(&fork, &[first, second]).await.findings;
    assert_eq!(findings, [Finding::OtherHistory { size: N + 100, agree: N }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_not_start_on_a_log_that_is_not_the_signed_one() {
    for (edit, says) in [
        ("DELETE FROM decisions WHERE seq = 600", "600 entries are signed and 599 are there"),
        ("UPDATE decisions SET entry = '{}' WHERE seq = 599", "entry 599 is not the one"),
        (
            "UPDATE audit_tiles SET hashes = zeroblob(2816) WHERE level = 0 AND place = 2",
            "its tree",
        ),
        ("DELETE FROM audit_tiles WHERE level = 1", "its tree is not the one"),
        (
            "UPDATE audit_checkpoints SET note = replace(note, '600', '601')",
            "not of keys/audit.key",
        ),
        (
            "DELETE FROM audit_checkpoints WHERE size = 600",
            "the one that was signed for 500|500 entries are signed",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        log_of_n(dir.path()).await.close().await;
        let mut conn = owner(dir.path()).await;
        sql(&mut conn, edit).await;
        conn.close().await.unwrap();
        let error = one_line(&Store::open(dir.path()).await.unwrap_err());
        assert!(says.split('|').any(|says| error.contains(says)), "{edit}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    log_of_n(dir.path()).await.close().await;
    let key = dir.path().join("keys/audit.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let error = one_line(&Store::open(dir.path()).await.unwrap_err());
    assert!(error.contains("its key is gone"), "{error}");
    let other = tempfile::tempdir().unwrap();
    log_of_n(other.path()).await.close().await;
    std::fs::copy(other.path().join("keys/audit.key"), &key).unwrap();
    let error = one_line(&Store::open(dir.path()).await.unwrap_err());
    assert!(error.contains("not of keys/audit.key"), "{error}");
    belay_tunnel::private_file::replace(&key, &right).unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(review(&store, &[]).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_before_the_log_is_brought_under_it_with_its_gaps() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path()).await.unwrap().close().await;
    let mut conn = owner(dir.path()).await;
    for step in [
        "DROP TABLE audit_tiles; DROP TABLE audit_checkpoints; DROP TABLE grants",
        "ALTER TABLE decisions DROP COLUMN entry",
        "DELETE FROM _sqlx_migrations WHERE version = 5",
        "CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
         BEGIN SELECT RAISE (ABORT, 'decisions are append-only'); END",
    ] {
        sql(&mut conn, step).await;
    }
    for n in (1..=700).filter(|n| ![3, 4, 650].contains(n)) {
        let row = format!(
            "INSERT INTO decisions (seq, at, kind, detail, device) VALUES
             ({n}, 1795716000, 'line-up', 'number {n}', x'0197a3c29c527ee39f205b4c3d6e7f80')"
        );
        sql(&mut conn, &row).await;
    }
    conn.close().await.unwrap();
    std::fs::remove_file(dir.path().join("keys/audit.key")).unwrap();

    for _ in 0..2 {
        let store = Store::open(dir.path()).await.unwrap();
        let report = review(&store, &[]).await;
        assert_eq!((report.findings, report.entries), (vec![], 701));
        let all = store.decisions(0).await.unwrap();
        let of =
            |kind: &str| all.iter().filter(|d| d.kind == kind).map(|d| d.seq).collect::<Vec<_>>();
        assert_eq!((of("record-missing"), of("log-begun")), (vec![3, 4, 650], vec![701]));
        let told = all.last().unwrap().detail.clone().unwrap();
        let key = store.log_key().to_string();
        assert!(told.contains("697 earlier records") && told.contains(&key), "{told}");
        let page = store.log_page(699, 700).await.unwrap();
        let entry: Entry = serde_json::from_str(page.entries.first().unwrap()).unwrap();
        assert_eq!((entry.seq, entry.detail.as_deref()), (700, Some("number 700")));
        assert!(entry.device.is_some());
        store.close().await;
    }
    let mut conn = owner_with_triggers(dir.path()).await;
    let error = sqlx::query("UPDATE decisions SET kind = 'x'").execute(&mut conn).await;
    assert!(error.unwrap_err().to_string().contains("append-only"), "the trigger is back");
}

async fn owner_with_triggers(dir: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("belay.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = log_of_n(dir.path()).await;
    // As `belay-relay code` does while the relay runs.
    let other = Store::open(dir.path()).await.unwrap();
    for n in 0..20 {
        let who = if n % 2 == 0 { &store } else { &other };
        grow(who, n..=n, "in turn").await;
    }
    let report = review(&store, &[]).await;
    assert_eq!((report.findings, report.proven), (vec![], N + 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_and_proves_the_log_and_is_in_it() {
    let relay = Relay::start().await;
    let id = relay.add_person("ida", vec![Role::Auditor]).await;
    let ida = relay.person_at(id, "ida", clock::now());
    grow(&relay.store, 1..=N, "number").await;

    let newest: LogCheckpoint = relay.get(&ida, "/v1/audit/checkpoint").await.json();
    let read = relay.last("evidence-read").await;
    assert_eq!((read.user, read.seq), (Some(id), i64::try_from(newest.size).unwrap()));
    let key = newest.vkey.parse().unwrap();
    let now = Checkpoint::open(&newest.note, &key, &NoteVerifier::from(&key)).unwrap();
    assert_eq!(now.size, newest.size);

    let ask = json!({"after": 0, "count": MAX_PAGE});
    let page: LogEntries = relay.send(&ida, "POST", "/v1/audit/entries", &ask).await.json();
    assert_eq!(page.upto, newest.size + 1, "with the reading itself");
    let last: Entry = serde_json::from_str(page.entries.last().unwrap()).unwrap();
    assert_eq!((last.kind.as_str(), last.user_name.as_deref()), ("evidence-read", Some("ida")));
    assert!(last.detail.unwrap().contains("from entry 1 on"));
    let again = json!({"after": 100, "count": 10});
    let more: LogEntries = relay.send(&ida, "POST", "/v1/audit/entries", &again).await.json();
    assert_eq!(more.entries, page.entries.get(100..110).unwrap());
    let readings = relay.decisions().await.iter().filter(|d| d.kind == "evidence-read").count();
    assert_eq!(readings, 2, "one record stands for one reading");

    let seq = 300;
    let entry = page.entries.get(seq - 1).unwrap();
    let ask = json!({"seq": seq, "size": now.size});
    let proof: LogProof = relay.send(&ida, "POST", "/v1/audit/inclusion", &ask).await.json();
    let leaf = leaf_hash(entry.as_bytes());
    assert!(verify_inclusion(leaf, seq as u64 - 1, now.size, &proof.hashes, now.root));

    grow(&relay.store, 1..=N, "more").await;
    let later: LogCheckpoint = relay.get(&ida, "/v1/audit/checkpoint").await.json();
    let later = Checkpoint::open(&later.note, &key, &NoteVerifier::from(&key)).unwrap();
    let ask = json!({"old": now.size, "new": later.size});
    let proof: LogProof = relay.send(&ida, "POST", "/v1/audit/consistency", &ask).await.json();
    assert!(verify_consistency(now.size, now.root, later.size, later.root, &proof.hashes));

    for (path, ask) in [
        ("entries", json!({"after": 0, "count": MAX_PAGE + 1})),
        ("entries", json!({"after": 0, "count": 0})),
        ("consistency", json!({"old": 0, "new": 1})),
        ("consistency", json!({"old": 1, "new": u64::MAX})),
        ("inclusion", json!({"seq": 0, "size": 1})),
        ("inclusion", json!({"seq": 2, "size": 1})),
    ] {
        let answer = relay.send(&ida, "POST", &format!("/v1/audit/{path}"), &ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{ask}");
    }
    let beyond: LogEntries = relay
        .send(&ida, "POST", "/v1/audit/entries", &json!({"after": u64::MAX, "count": 5}))
        .await
        .json();
    assert!(beyond.entries.is_empty() && beyond.leaves.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_entries_are_those_of_that_time() {
    let relay = Relay::start().await;
    let token = relay.token(json!({"lives_s": 600, "uses": 1, "name": "pump"})).await;
    let asked = crate::enrolment::request(&token, &belay_tunnel::pki::TlsKey::generate().unwrap());
    let answer = relay.send(&relay.nobody(), "POST", "/v1/enrol", &asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let change = json!({"name": "pump-17"});
    let done = relay.send(&relay.admin(), "PATCH", "/v1/devices/pump", &change).await;
    assert_eq!(done.status, 200, "{done:?}");
    let page = relay.store.log_page(0, 1000).await.unwrap();
    let entries: Vec<Entry> =
        page.entries.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| entries.iter().find(|entry| entry.kind == kind).unwrap();
    assert_eq!(of("enrolled").device_name.as_deref(), Some("pump"));
    assert_eq!(of("device-changed").device_name.as_deref(), Some("pump-17"));
    assert_eq!(of("device-changed").user_name.as_deref(), Some("root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_gets_each_checkpoint_whole_and_none_is_written_over() {
    use std::time::Duration;

    use belay_relay::audit::witness::Witness;
    use tokio_util::sync::CancellationToken;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoints");
    assert!(Witness::new(&dir.path().join("none/x"), Duration::from_secs(1)).is_err());
    let store = log_of_n(dir.path()).await;
    for round in 0..3_u64 {
        let stop = CancellationToken::new();
        let witness = Witness::new(&file, Duration::from_secs(3600)).unwrap();
        let kept = tokio::spawn(witness.keep(store.clone(), stop.clone()));
        grow(&store, 1..=5, &format!("round {round}")).await;
        stop.cancel();
        kept.await.unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let notes = belay_proto::audit::notes(&text);
    assert!((3..=6).contains(&notes.len()), "{text}");
    assert_eq!(notes.last(), Some(&note(&store).await));
    assert_eq!(review(&store, &notes).await.findings, []);
}
