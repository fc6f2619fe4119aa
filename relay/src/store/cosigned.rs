//! Checkpoints that witnesses have cosigned.

use belay_proto::audit::{TILE_WIDTH, with_signatures};
use sqlx::SqliteConnection;

use super::rows::{column, count};
use super::writer::Tx;
use super::{Store, StoreError};

impl Store {
    /// The newest checkpoint that a witness has cosigned: how many entries it covers, and its note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cosigned(&self) -> Result<Option<(u64, String)>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        newest_until(&mut conn, u64::MAX).await
    }

    /// Those of sizes above `after` and up to `upto`.
    pub(super) async fn cosigned_within(
        &self,
        after: u64,
        upto: u64,
    ) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT note FROM audit_cosigned WHERE size > $1 AND size <= $2 ORDER BY size",
        )
        .bind(count(after))
        .bind(count(upto))
        .fetch_all(self.readers())
        .await
        .map_err(doing())?;
        rows.iter().map(|row| column(row, "note")).collect()
    }

    /// Keeps what a witness signed below a checkpoint, beside what others did. Whoever calls this has
    /// checked it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_cosigned(
        &self,
        size: u64,
        note: String,
        lines: String,
    ) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.keep_cosigned(size, &note, &lines).await }))
            .await
    }
}

impl Tx {
    async fn keep_cosigned(
        &mut self,
        size: u64,
        note: &str,
        lines: &str,
    ) -> Result<(), StoreError> {
        let before = newest_until(&mut self.conn, size).await?;
        let same = before.as_ref().filter(|(kept, _)| *kept == size).map(|(_, note)| note);
        let signed = with_signatures(same.map_or(note, String::as_str), lines)
            .map_err(|_| StoreError::Unreadable("a cosignature"))?;
        sqlx::query(
            "INSERT INTO audit_cosigned (size, note) VALUES ($1, $2)
             ON CONFLICT (size) DO UPDATE SET note = excluded.note",
        )
        .bind(count(size))
        .bind(signed)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        // The one before goes, unless it is the last one of its tile.
        if let Some((old, _)) = before
            && old < size
            && old / TILE_WIDTH == size / TILE_WIDTH
        {
            sqlx::query("DELETE FROM audit_cosigned WHERE size = $1")
                .bind(count(old))
                .execute(&mut self.conn)
                .await
                .map_err(doing())?;
        }
        Ok(())
    }
}

/// The newest of at most so many entries.
async fn newest_until(
    conn: &mut SqliteConnection,
    most: u64,
) -> Result<Option<(u64, String)>, StoreError> {
    let row = sqlx::query(
        "SELECT size, note FROM audit_cosigned WHERE size <= $1 ORDER BY size DESC LIMIT 1",
    )
    .bind(count(most))
    .fetch_optional(conn)
    .await
    .map_err(doing())?;
    let Some(row) = row else { return Ok(None) };
    let size: i64 = column(&row, "size")?;
    let size = u64::try_from(size).map_err(|_| StoreError::Unreadable("a cosigned checkpoint"))?;
    Ok(Some((size, column(&row, "note")?)))
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or keep cosigned checkpoints")
}
