//! The audit log when the store is opened: records of before there was a log are brought under it,
//! and what is there is checked against what was signed last.

use std::path::Path;
use std::sync::Arc;

use belay_proto::audit::{BadCheckpoint, Checkpoint, Entry, leaf_hash};
use sqlx::{Connection as _, SqliteConnection};

use super::decisions::decision;
use super::log::{Log, newest};
use super::rows::{column, count};
use super::tree::Tree;
use super::{Decision, Event, EventKind, StoreError, prune};
use crate::ca::{AuditKey, FilesError};
use crate::config::Config;

/// The audit log is not what was signed, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key file.
    #[error(transparent)]
    Key(#[from] FilesError),
    /// There is a log, and no key.
    #[error("the audit log is signed and its key is gone; put keys/audit.key back from the backup")]
    KeyGone,
    /// The log's last checkpoint is not signed by the key.
    #[error(
        "the audit log's last checkpoint is not of keys/audit.key; put the right key back, or the \
         database that belongs to it"
    )]
    Checkpoint(#[source] BadCheckpoint),
    /// The hashes are not those that were signed.
    #[error(
        "the audit log was changed by other than the relay: its tree is not the one that was signed \
         for {0} entries; keep this database for the auditors and restore the backup"
    )]
    Tree(u64),
    /// Records are missing, or there are too many.
    #[error(
        "the audit log was changed by other than the relay: {signed} entries are signed and {found} \
         are there; keep this database for the auditors and restore the backup"
    )]
    Length {
        /// By the last checkpoint.
        signed: u64,
        /// In the database.
        found: u64,
    },
    /// One of the last entries is another.
    #[error(
        "the audit log was changed by other than the relay: entry {0} is not the one that was \
         signed; keep this database for the auditors and restore the backup"
    )]
    Entry(u64),
    /// Far more numbers are missing among old records than any accident explains.
    #[error(
        "records of before the audit log have numbers up to {0}, and almost none of them is there"
    )]
    Gaps(u64),
}

/// Records brought in at a time.
const PAGE: i64 = 4096;

/// Places without a record that are marked as such.
const MOST_GAPS: u64 = 1_000_000;

/// Loads the key, or makes it for a log that is not begun; then brings old records in and checks.
pub(super) async fn open(
    conn: &mut SqliteConnection,
    data: &Path,
) -> Result<Arc<AuditKey>, LogError> {
    let signed = newest(&mut *conn).await?.is_some();
    let key = match AuditKey::load(data)? {
        Some(key) => key,
        None if signed => return Err(LogError::KeyGone),
        None => {
            // A store without a deployment around it belongs to this machine.
            let config = Config::load(data).ok();
            let host = config.as_ref().map_or("localhost", |config| config.address.host());
            AuditKey::make(data, host)?
        }
    };
    let key = Arc::new(key);
    if !signed {
        let doing = || StoreError::during("begin the audit log");
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(doing())?;
        begin(&mut tx, &key).await?;
        tx.commit().await.map_err(doing())?;
    }
    let mut tx = conn.begin().await.map_err(StoreError::during("read the audit log"))?;
    check(&mut tx, &key).await?;
    tx.rollback().await.map_err(StoreError::during("read the audit log"))?;
    Ok(key)
}

/// Makes entries of the records of before. All in one transaction: a cut leaves nothing behind.
async fn begin(conn: &mut SqliteConnection, key: &Arc<AuditKey>) -> Result<(), LogError> {
    let (records, last) = extent(conn).await?;
    if last == 0 || newest(&mut *conn).await?.is_some() {
        return Ok(());
    }
    if last - records > MOST_GAPS {
        return Err(LogError::Gaps(last));
    }
    let run = |sql: &'static str| sqlx::query(sql);
    let doing = || StoreError::during("begin the audit log");
    run("DROP TRIGGER decisions_are_not_changed").execute(&mut *conn).await.map_err(doing())?;
    let mut tree = Tree::default();
    loop {
        let rows =
            run("SELECT seq, at, kind, user_id, device, session, login, code, detail, source
             FROM decisions WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(count(tree.size()))
            .bind(PAGE)
            .fetch_all(&mut *conn)
            .await
            .map_err(doing())?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let record = decision(row)?;
            let seq = u64::try_from(record.seq).unwrap_or_default();
            while tree.size() + 1 < seq {
                missing(conn, &mut tree, &record).await?;
            }
            let line = entry_of(record).encode();
            tree.append(leaf_hash(line.as_bytes()));
            run("UPDATE decisions SET entry = $2 WHERE seq = $1")
                .bind(count(seq))
                .bind(line)
                .execute(&mut *conn)
                .await
                .map_err(doing())?;
        }
        tree.save(&mut *conn).await?;
    }
    run(prune::TRIGGER).execute(&mut *conn).await.map_err(doing())?;
    let size = tree.size();
    let note = key.seal(size, tree.root()).map_err(FilesError::from)?;
    run("INSERT INTO audit_checkpoints (size, note) VALUES ($1, $2)")
        .bind(count(size))
        .bind(note)
        .execute(&mut *conn)
        .await
        .map_err(doing())?;
    let detail = format!(
        "{records} earlier records were brought in, {} were missing; signed from now on by {}",
        last - records,
        key.verifier()
    );
    let mut log = Log::new(Arc::clone(key));
    log.append(conn, &Event::new(EventKind::LogBegun).detail(&detail)).await?;
    Ok(log.flush(conn).await?)
}

/// Marks a place without a record as such, so that the log has no gap and hides none.
async fn missing(
    conn: &mut SqliteConnection,
    tree: &mut Tree,
    next: &Decision,
) -> Result<(), StoreError> {
    let seq = tree.size() + 1;
    let record = Decision {
        seq: count(seq),
        at: next.at,
        kind: EventKind::RecordMissing.token().to_owned(),
        user: None,
        device: None,
        session: None,
        login: None,
        code: None,
        detail: None,
        source: None,
    };
    let line = entry_of(record).encode();
    tree.append(leaf_hash(line.as_bytes()));
    sqlx::query("INSERT INTO decisions (seq, at, kind, entry) VALUES ($1, $2, $3, $4)")
        .bind(count(seq))
        .bind(super::rows::seconds(next.at))
        .bind(EventKind::RecordMissing.token())
        .bind(line)
        .execute(conn)
        .await
        .map(drop)
        .map_err(StoreError::during("begin the audit log"))
}

fn entry_of(record: Decision) -> Entry {
    Entry {
        seq: u64::try_from(record.seq).unwrap_or_default(),
        at: record.at,
        kind: record.kind,
        user: record.user,
        user_name: None,
        device: record.device,
        device_name: None,
        session: record.session,
        login: record.login,
        code: record.code,
        detail: record.detail,
        source: record.source,
    }
}

/// How many records there are, and the highest number among them.
async fn extent(conn: &mut SqliteConnection) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query("SELECT count(*) AS n, max(seq) AS last FROM decisions")
        .fetch_one(conn)
        .await
        .map_err(StoreError::during("read the audit log"))?;
    let records: i64 = column(&row, "n")?;
    let last: Option<i64> = column(&row, "last")?;
    let number = |n: i64| u64::try_from(n).unwrap_or_default();
    Ok((number(records), number(last.unwrap_or_default())))
}

/// Checks what a start can check at once: signature, root over the right edge, length, and the
/// entries of the tile that is not whole. The rest is for `belay audit verify`.
async fn check(conn: &mut SqliteConnection, key: &AuditKey) -> Result<(), LogError> {
    let (found, last) = extent(conn).await?;
    let Some((size, note)) = newest(&mut *conn).await? else {
        return if last == 0 { Ok(()) } else { Err(LogError::Length { signed: 0, found }) };
    };
    let signed =
        Checkpoint::open(&note, key.verifier(), &key.check()).map_err(LogError::Checkpoint)?;
    let tree = Tree::load(conn, signed.size).await?;
    let fits = |tree: &Tree| tree.root() == signed.root && signed.size == size;
    let tree = tree.filter(fits).ok_or(LogError::Tree(signed.size))?;
    if found != size || last != size {
        return Err(LogError::Length { signed: size, found: found.max(last) });
    }
    let pruned = prune::upto(&mut *conn).await?;
    let leaves = tree.last_leaves();
    let first = size - leaves.len() as u64;
    let rows = sqlx::query("SELECT seq, entry FROM decisions WHERE seq > $1 ORDER BY seq")
        .bind(count(first))
        .fetch_all(conn)
        .await
        .map_err(StoreError::during("read the audit log"))?;
    for ((leaf, row), seq) in leaves.iter().zip(&rows).zip(first + 1..) {
        let entry: Option<String> = column(row, "entry")?;
        if entry.is_none() && seq <= pruned {
            continue;
        }
        if leaf_hash(entry.unwrap_or_default().as_bytes()) != *leaf {
            return Err(LogError::Entry(seq));
        }
    }
    Ok(())
}
