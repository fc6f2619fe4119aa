//! Pruning the audit log: the text of entries goes when its time is over, their hashes stay.
//!
//! Its law: that entries up to one lose their text is an entry itself, on the disk before the first of
//! them does; the tree, its checkpoints and every proof stay as they are. What says what is gone
//! (tombstones, holds, this) keeps its text, and so does what is held. What it is not: it removes no row,
//! and the database itself takes no other change of one.

use belay_proto::audit::pruned_detail;
use belay_proto::time::UnixTime;

use super::rows::{column, count, seconds};
use super::writer::Tx;
use super::{Event, EventKind, Store, StoreError};

/// Entries in one transaction: some ten milliseconds in which nobody else writes.
const ROWS: u64 = 1000;

/// Kinds whose text stays: what there is no more is known by them.
const KEPT: &str = "('initialised', 'log-begun', 'record-missing', 'log-pruned', 'hold-placed',
    'hold-released', 'recording-deleted', 'recording-late')";

/// In force: the log's own trigger, and the one condition under which a row may change.
pub(super) const TRIGGER: &str = "CREATE TRIGGER decisions_are_not_changed
BEFORE UPDATE ON decisions
WHEN NEW.seq <> OLD.seq OR NEW.at <> OLD.at OR NEW.kind <> OLD.kind OR NEW.entry IS NOT NULL
    OR coalesce (NEW.user_id, NEW.device, NEW.session, NEW.login, NEW.code, NEW.detail, NEW.source)
        IS NOT NULL
    OR OLD.seq > (SELECT coalesce (max (upto), 0) FROM audit_prunings)
BEGIN
    SELECT RAISE (ABORT, 'decisions are append-only');
END";

impl Store {
    /// Takes the text of entries from before this time, by the rule that keeps them so many days;
    /// none behind the first `exported`. Returns how many lost theirs.
    ///
    /// # Errors
    /// [`StoreError`]; what was done is done, and the rest is for the next time.
    pub async fn prune(
        &self,
        before: UnixTime,
        days: u32,
        exported: u64,
    ) -> Result<u64, StoreError> {
        let Some((first, upto)) = self.prunable(before, exported).await? else { return Ok(0) };
        // On the disk before the first text goes.
        self.write(move |tx| Box::pin(async move { tx.announce_pruning(upto, days).await }))
            .await?;
        let (mut pruned, mut from) = (0, first);
        while from <= upto {
            let to = upto.min(from + ROWS - 1);
            pruned +=
                self.write(move |tx| Box::pin(async move { tx.prune(from, to).await })).await?;
            from = to + 1;
        }
        Ok(pruned)
    }

    /// The first entry whose text may go, and up to which that is so.
    async fn prunable(
        &self,
        before: UnixTime,
        exported: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        // Times of neighbours may be out of order by a moment, and a clock may have gone back: the
        // first entry that is young enough ends it.
        let young = sqlx::query("SELECT seq FROM decisions WHERE at >= $1 ORDER BY seq LIMIT 1")
            .bind(seconds(before))
            .fetch_optional(&mut *conn)
            .await
            .map_err(doing())?;
        let Some(young) = young else { return Ok(None) };
        let number = |seq: i64| u64::try_from(seq).unwrap_or_default();
        let upto = number(column::<i64>(&young, "seq")?).saturating_sub(1).min(exported);
        let sql =
            format!("SELECT d.seq FROM decisions d WHERE {} ORDER BY d.seq LIMIT 1", condition());
        let due = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(0_i64)
            .bind(count(upto))
            .fetch_optional(&mut *conn)
            .await
            .map_err(doing())?;
        let Some(due) = due else { return Ok(None) };
        Ok(Some((number(column(&due, "seq")?), upto)))
    }
}

/// What loses its text, from the entry `$1` to the entry `$2`.
fn condition() -> String {
    format!(
        "d.seq >= $1 AND d.seq <= $2 AND d.entry IS NOT NULL AND d.kind NOT IN {KEPT} AND NOT EXISTS (
            SELECT 1 FROM holds h WHERE h.released IS NULL AND (h.session = d.session
                OR h.device = d.device OR h.user_id = d.user_id))"
    )
}

/// Up to which entry texts may be missing.
pub(super) async fn upto(conn: &mut sqlx::SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT coalesce(max(upto), 0) AS upto FROM audit_prunings")
        .fetch_one(conn)
        .await
        .map_err(doing())?;
    let upto: i64 = column(&row, "upto")?;
    Ok(u64::try_from(upto).unwrap_or_default())
}

impl Tx {
    async fn announce_pruning(&mut self, upto: u64, days: u32) -> Result<(), StoreError> {
        let event = Event::new(EventKind::LogPruned).detail(&pruned_detail(upto, days));
        sqlx::query(
            "INSERT INTO audit_prunings (upto, at) VALUES ($1, $2) ON CONFLICT (upto) DO NOTHING",
        )
        .bind(count(upto))
        .bind(seconds(event.at))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        self.append(&event).await
    }

    async fn prune(&mut self, from: u64, to: u64) -> Result<u64, StoreError> {
        let sql = format!(
            "UPDATE decisions SET entry = NULL, user_id = NULL, device = NULL, session = NULL,
                 login = NULL, code = NULL, detail = NULL, source = NULL
             WHERE seq IN (SELECT d.seq FROM decisions d WHERE {})",
            condition()
        );
        let done = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(count(from))
            .bind(count(to))
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        Ok(done.rows_affected())
    }
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("prune the audit log")
}
