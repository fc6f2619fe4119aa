//! How far each export of the audit log has come.

use super::rows::{column, count};
use super::writer::Tx;
use super::{Event, Store, StoreError};

/// An export's place in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last entry that its receiver has acknowledged.
    pub seq: u64,
    /// The last entry of the batch that is under way, where that must not change; else 0.
    pub upto: u64,
    /// It is on record that it is behind.
    pub behind: bool,
}

impl Store {
    /// Where an export of this name is; `None` for a new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        let row = sqlx::query("SELECT seq, upto, behind FROM export_cursors WHERE name = $1")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(doing())?;
        let Some(row) = row else { return Ok(None) };
        let number = |name| {
            let value: i64 = column(&row, name)?;
            u64::try_from(value).map_err(|_| StoreError::Unreadable("an export's place"))
        };
        let behind = number("behind")? > 0;
        Ok(Some(Cursor { seq: number("seq")?, upto: number("upto")?, behind }))
    }

    /// Keeps an export's place, and with it an event about it.
    ///
    /// # Errors
    /// [`StoreError`]; the place is the one before.
    pub async fn keep_cursor(
        &self,
        name: &str,
        cursor: Cursor,
        event: Option<Event>,
    ) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                tx.keep_cursor(&name, cursor).await?;
                match &event {
                    Some(event) => tx.append(event).await,
                    None => Ok(()),
                }
            })
        })
        .await
    }
}

impl Tx {
    async fn keep_cursor(&mut self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO export_cursors (name, seq, upto, behind) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE
             SET seq = excluded.seq, upto = excluded.upto, behind = excluded.behind",
        )
        .bind(name)
        .bind(count(cursor.seq))
        .bind(count(cursor.upto))
        .bind(i64::from(cursor.behind))
        .execute(&mut self.conn)
        .await
        .map(drop)
        .map_err(doing())
    }
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or keep an export's place")
}
