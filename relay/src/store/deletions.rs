//! Tombstones of recordings: what was there, and why it goes.
//!
//! Its law: a tombstone is written, as a row and as an entry of the audit log in one transaction,
//! before the file goes, and once for each recording. One whose file is not gone yet is found at the
//! next start. What it is not: it touches no file (`recordings`) and has no rule (`retention`).

use belay_proto::evidence;
use belay_proto::ids::SessionId;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{column, count, digest, seconds, session_id, time};
use super::writer::{Fails, Tx};
use super::{Actor, Event, EventKind, Store, StoreError, sessions};

/// Deletions finished in one go after a start.
const MOST_UNFINISHED: i64 = 10_000;

/// What is there of a recording, for its tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Of which session.
    pub session: SessionId,
    /// The number of its last segment; none when not one is whole.
    pub last: Option<u64>,
    /// SHA-256 of that.
    pub head: Option<[u8; 32]>,
    /// Bytes of its file.
    pub bytes: u64,
    /// `whole`, `cut` or `unfinished`.
    pub state: &'static str,
}

/// A tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Of which session.
    pub session: SessionId,
    /// When.
    pub at: UnixTime,
    /// The number of its last segment.
    pub last: Option<u64>,
    /// SHA-256 of that.
    pub head: Option<[u8; 32]>,
    /// Bytes of its file.
    pub bytes: u64,
    /// `whole`, `cut` or `unfinished`.
    pub state: String,
    /// By which rule, or by whom and why.
    pub why: String,
}

/// A recording must stay.
#[derive(Debug, thiserror::Error)]
pub enum BuryError {
    /// It is held.
    #[error("the recording of session {session} is under legal hold {hold}: {reason}")]
    Held {
        /// Of which session.
        session: SessionId,
        /// The number of the hold.
        hold: u64,
        /// Why it is held.
        reason: String,
    },
    /// Its session is not over.
    #[error("session {0} is still open")]
    Open(SessionId),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for BuryError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&BuryError> for Refused {
    fn from(error: &BuryError) -> Self {
        let remedy = match error {
            BuryError::Held { .. } => "the hold has to be released first: belay hold release",
            BuryError::Open(_) => "wait for its end",
            BuryError::Store(error) => return error.into(),
        };
        Self::new(Code::NotAllowed, error.to_string(), remedy)
    }
}

impl Store {
    /// Writes the tombstone of a recording, unless it has one: then that one. Its file may go once
    /// this has returned.
    ///
    /// # Errors
    /// [`BuryError`]: the file must stay.
    pub async fn bury(
        &self,
        remains: Remains,
        why: String,
        by: Option<Actor>,
    ) -> Result<Tombstone, BuryError> {
        self.write(move |tx| Box::pin(async move { tx.bury(&remains, why, by).await })).await
    }

    /// The tombstone of a session's recording, when it was deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tombstone(&self, session: SessionId) -> Result<Option<Tombstone>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        by_id(&mut conn, session).await
    }

    /// Recordings with a tombstone whose file may be there still, at most 10,000.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unfinished_deletions(&self) -> Result<Vec<SessionId>, StoreError> {
        let rows =
            sqlx::query("SELECT session FROM deleted_recordings WHERE gone IS NULL LIMIT $1")
                .bind(MOST_UNFINISHED)
                .fetch_all(self.readers())
                .await
                .map_err(doing())?;
        rows.iter().map(|row| session_id(column(row, "session")?)).collect()
    }

    /// A recording's file is gone, and the disk knows it.
    ///
    /// # Errors
    /// [`StoreError`]; then it is looked for once more, which does no harm.
    pub async fn deletion_done(&self, session: SessionId) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.deletion_done(session).await })).await
    }

    /// Records, once for each recording, that a device brought more of a deleted one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn late_segment(&self, session: SessionId, event: Event) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.late_segment(session, &event).await })).await
    }
}

impl Tx {
    async fn bury(
        &mut self,
        remains: &Remains,
        why: String,
        by: Option<Actor>,
    ) -> Result<Tombstone, BuryError> {
        let id = remains.session;
        if let Some(before) = by_id(&mut self.conn, id).await? {
            return Ok(before);
        }
        let session = sessions::by_id(&mut self.conn, id).await?;
        if session.as_ref().is_some_and(|session| session.over.is_none()) {
            return Err(BuryError::Open(id));
        }
        if let Some(hold) = self.hold_on(id, session.as_ref()).await? {
            return Err(BuryError::Held { session: id, hold: hold.id, reason: hold.reason });
        }
        let kind = EventKind::RecordingDeleted;
        let mut event = by.map_or_else(|| Event::new(kind), |by| by.event(kind)).session(id);
        if let Some(session) = session {
            event = event.device(session.device).login(session.login);
        }
        let tombstone = Tombstone {
            session: id,
            at: event.at,
            last: remains.last,
            head: remains.head,
            bytes: remains.bytes,
            state: remains.state.to_owned(),
            why,
        };
        sqlx::query(
            "INSERT INTO deleted_recordings (session, at, last, head, bytes, state, why)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(seconds(tombstone.at))
        .bind(tombstone.last.map(count))
        .bind(tombstone.head.as_ref().map(<[u8; 32]>::as_slice))
        .bind(count(tombstone.bytes))
        .bind(&tombstone.state)
        .bind(&tombstone.why)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        self.append(&event.detail(&tombstone.detail())).await?;
        Ok(tombstone)
    }

    async fn deletion_done(&mut self, session: SessionId) -> Result<(), StoreError> {
        sqlx::query("UPDATE deleted_recordings SET gone = $2 WHERE session = $1 AND gone IS NULL")
            .bind(session.as_bytes().as_slice())
            .bind(seconds(clock::now()))
            .execute(&mut self.conn)
            .await
            .map(drop)
            .map_err(doing())
    }

    async fn late_segment(&mut self, session: SessionId, event: &Event) -> Result<(), StoreError> {
        let first = sqlx::query(
            "UPDATE deleted_recordings SET late = $2 WHERE session = $1 AND late IS NULL",
        )
        .bind(session.as_bytes().as_slice())
        .bind(seconds(event.at))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        if first.rows_affected() > 0 {
            self.append(event).await?;
        }
        Ok(())
    }
}

impl Tombstone {
    /// The head of its chain in hexadecimal.
    pub fn head_hex(&self) -> Option<String> {
        let hex = |head: [u8; 32]| head.iter().map(|byte| format!("{byte:02x}")).collect();
        self.head.map(hex)
    }

    /// What the audit log says of it.
    pub fn detail(&self) -> String {
        let Self { last, head, bytes, state, why, .. } = self.clone();
        evidence::Tombstone { last: last.zip(head), bytes, state, why }.detail()
    }
}

async fn by_id(
    conn: &mut SqliteConnection,
    session: SessionId,
) -> Result<Option<Tombstone>, StoreError> {
    let row = sqlx::query(
        "SELECT session, at, last, head, bytes, state, why FROM deleted_recordings
         WHERE session = $1",
    )
    .bind(session.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .map_err(doing())?;
    row.as_ref().map(record).transpose()
}

fn record(row: &SqliteRow) -> Result<Tombstone, StoreError> {
    let number = |value: i64| {
        u64::try_from(value).map_err(|_| StoreError::Unreadable("a deleted recording"))
    };
    let last: Option<i64> = column(row, "last")?;
    let head: Option<Vec<u8>> = column(row, "head")?;
    Ok(Tombstone {
        session: session_id(column(row, "session")?)?,
        at: time(column(row, "at")?)?,
        last: last.map(number).transpose()?,
        head: head.as_deref().map(digest).transpose()?,
        bytes: number(column(row, "bytes")?)?,
        state: column(row, "state")?,
        why: column(row, "why")?,
    })
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change deleted recordings")
}
