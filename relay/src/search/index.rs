//! The index's file: `DATA/recordings/search.db`.
//!
//! Its law: it is derived. A recording's part is one transaction, so that it is there whole or not at
//! all; a file that is gone, damaged or of another version is made anew from the recordings.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belay_proto::ids::SessionId;
use belay_tunnel::private_file;
use belay_tunnel::transcript::Block;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::AT_ONCE;
use super::find::AHEAD;

/// In the directory of recordings.
const FILE: &str = "search.db";

/// The layout. Another one is thrown away.
const LAYOUT: i64 = 2;

/// Connections of all searches at a time, since one that waits for another's keeps its own meanwhile: each has
/// one that says where to look, and one for each batch on its way.
const READERS: usize = AT_ONCE * (1 + AHEAD);

/// The number of the first block there ever was. Numbers go up with new recordings, and down from here with older
/// ones: the newest is read first when the index is made anew.
const MIDDLE: i64 = 1 << 27;

/// Pairs of so many blocks are one row, so that they are quickly read. A recording's first block has a
/// number that is a multiple of it, so that a row is of one recording.
pub(super) const TOGETHER: i64 = 8;

/// Bytes of a page: several blocks' signs, or texts, fill one with little waste.
const PAGE: u32 = 16_384;

/// The text's words are in an index without the text (FTS5, contentless); the text is in blocks. What
/// is asked of many blocks at once stands apart from the text, which is large: their pairs, [`TOGETHER`] in a
/// row. The numbers of blocks follow the time their sessions began in, nearly, and those of one recording each
/// other.
const TABLES: &str = "
CREATE TABLE recordings (
    id      INTEGER PRIMARY KEY,
    session BLOB    NOT NULL UNIQUE,
    user_id BLOB,
    device  BLOB,
    login   TEXT,
    bytes   BIGINT  NOT NULL,
    ended   BIGINT  NOT NULL,
    state   TEXT    NOT NULL
);
CREATE INDEX recordings_by_user ON recordings (user_id);
CREATE INDEX recordings_by_device ON recordings (device);
CREATE INDEX recordings_by_state ON recordings (state, session);
CREATE TABLE blocks (
    id        INTEGER PRIMARY KEY,
    recording BIGINT  NOT NULL,
    last_ms   BIGINT  NOT NULL,
    marks     BLOB    NOT NULL
);
CREATE INDEX blocks_by_recording ON blocks (recording);
CREATE INDEX blocks_by_time ON blocks (last_ms);
CREATE TABLE pairs (id INTEGER PRIMARY KEY, of BLOB NOT NULL);
CREATE TABLE texts (id INTEGER PRIMARY KEY, lines BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5
    (word, content='', contentless_delete=1, detail=none, tokenize='ascii');
PRAGMA user_version = 2;
";

/// The index cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// Its file.
    #[error("the search index cannot be made or removed")]
    File(#[from] io::Error),
    /// The database.
    #[error("the search index cannot be used")]
    Database(#[from] sqlx::Error),
}

/// How far a recording is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All there was of it.
    Whole,
    /// Its beginning: it is too long.
    Cut,
    /// Nothing: it is sealed.
    Sealed,
    /// What comes before something that its device did not sign.
    Damaged,
}

impl State {
    pub(super) const ALL: [Self; 4] = [Self::Whole, Self::Cut, Self::Sealed, Self::Damaged];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Cut => "cut",
            Self::Sealed => "sealed",
            Self::Damaged => "damaged",
        }
    }
}

/// What is known of a recording's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Bytes of it when it was read.
    pub(super) bytes: u64,
    /// Whether its end was among them.
    pub(super) ended: bool,
    pub(super) state: State,
}

/// A recording on its way into the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) session: SessionId,
    pub(super) user: Option<Vec<u8>>,
    pub(super) device: Option<Vec<u8>>,
    pub(super) login: Option<String>,
    pub(super) seen: Seen,
    pub(super) blocks: Vec<Block>,
}

/// The one who writes.
pub(super) struct Index {
    conn: SqliteConnection,
    pub(super) readers: SqlitePool,
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .page_size(PAGE)
        .journal_mode(SqliteJournalMode::Wal)
        // What a power cut takes is read again from the recordings.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5))
        .pragma("journal_size_limit", "16777216")
        // Of a recording that was deleted nothing stays behind in free pages.
        .pragma("secure_delete", "ON")
        .row_buffer_size(256)
        .disable_statement_logging()
}

impl Index {
    /// Opens the index of a directory of recordings; makes it anew when it is not there or cannot be
    /// used.
    pub(super) async fn open(dir: &Path) -> Result<Self, IndexError> {
        let path = dir.join(FILE);
        match Self::at(&path).await {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the search index is made anew from the recordings");
            }
        }
        remove(&path)?;
        private_file::create(&path, b"")?;
        let mut conn = options(&path).connect().await?;
        sqlx::raw_sql(TABLES).execute(&mut conn).await?;
        conn.close().await?;
        Self::at(&path).await?.ok_or_else(|| io::Error::other("it has no layout").into())
    }

    async fn at(path: &Path) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let mut conn = options(path).connect().await?;
        let layout: i64 =
            sqlx::query("PRAGMA user_version").fetch_one(&mut conn).await?.try_get(0)?;
        if layout != LAYOUT {
            return Ok(None);
        }
        // Opened by whoever searches, whose threads are not the patient ones of the keeper.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS as u32)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options(path).pragma("query_only", "ON"));
        Ok(Some(Self { conn, readers }))
    }

    /// All recordings that are in it.
    pub(super) async fn seen(&mut self) -> Result<BTreeMap<SessionId, Seen>, IndexError> {
        let rows = sqlx::query("SELECT session, bytes, ended, state FROM recordings")
            .fetch_all(&mut self.conn)
            .await?;
        let mut all = BTreeMap::new();
        for row in rows {
            let (session, bytes): (&[u8], i64) = (row.try_get(0)?, row.try_get(1)?);
            let (ended, word): (i64, &str) = (row.try_get(2)?, row.try_get(3)?);
            let state = State::ALL.into_iter().find(|state| state.word() == word);
            if let (Some(session), Some(state)) = (SessionId::from_slice(session), state) {
                let bytes = u64::try_from(bytes).unwrap_or(0);
                all.insert(session, Seen { bytes, ended: ended != 0, state });
            }
        }
        Ok(all)
    }

    /// Puts a recording in, in the place of what was there of it.
    pub(super) async fn put(&mut self, read: &Read) -> Result<(), IndexError> {
        let mut tx = self.conn.begin().await?;
        forget(&mut tx, read.session).await?;
        let Seen { bytes, ended, state } = read.seen;
        let id = sqlx::query(
            "INSERT INTO recordings (session, user_id, device, login, bytes, ended, state)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(read.session.as_bytes().as_slice())
        .bind(read.user.as_deref())
        .bind(read.device.as_deref())
        .bind(read.login.as_deref())
        .bind(signed(bytes))
        .bind(i64::from(ended))
        .bind(state.word())
        .execute(&mut *tx)
        .await?
        .last_insert_rowid();
        let first = place(&mut tx, read).await?;
        for (row, blocks) in (0..).zip(read.blocks.chunks(TOGETHER.unsigned_abs() as usize)) {
            sqlx::query("INSERT INTO pairs (id, of) VALUES ($1, $2)")
                .bind(first + row * TOGETHER)
                .bind(together(blocks))
                .execute(&mut *tx)
                .await?;
        }
        for (place, block) in (first..).zip(&read.blocks) {
            sqlx::query(
                "INSERT INTO blocks (id, recording, last_ms, marks) VALUES ($1, $2, $3, $4)",
            )
            .bind(place)
            .bind(id)
            .bind(signed(block.last_ms))
            .bind(&block.marks)
            .execute(&mut *tx)
            .await?;
            sqlx::query("INSERT INTO texts (id, lines) VALUES ($1, $2)")
                .bind(place)
                .bind(&block.packed)
                .execute(&mut *tx)
                .await?;
            sqlx::query("INSERT INTO words (rowid, word) VALUES ($1, $2)")
                .bind(place)
                .bind(&block.words)
                .execute(&mut *tx)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    /// Takes a recording out that is no more.
    pub(super) async fn forget(&mut self, session: SessionId) -> Result<(), IndexError> {
        let mut tx = self.conn.begin().await?;
        forget(&mut tx, session).await?;
        Ok(tx.commit().await?)
    }
}

/// Pairs of blocks in a row: the length of each, four bytes, and it.
fn together(blocks: &[Block]) -> Vec<u8> {
    let mut all = Vec::new();
    for block in blocks {
        let length = u32::try_from(block.pairs.len()).unwrap_or(0);
        all.extend_from_slice(&length.to_le_bytes());
        all.extend_from_slice(&block.pairs);
    }
    all
}

/// The pairs of the block with this number, in a row that has them; nothing when it has not.
pub(super) fn pairs_of(row: &[u8], block: i64) -> Option<&[u8]> {
    let mut rest = row;
    for _ in 0..block.rem_euclid(TOGETHER) {
        (_, rest) = next(rest)?;
    }
    next(rest).map(|(pairs, _)| pairs)
}

fn next(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// The number of the first block of a recording that is in the table of them already: below all others when
/// its session is older than theirs, or else above.
async fn place(conn: &mut SqliteConnection, read: &Read) -> Result<i64, IndexError> {
    let row = sqlx::query(
        "SELECT (SELECT min(id) FROM blocks), (SELECT max(id) FROM blocks),
                EXISTS (SELECT 1 FROM recordings WHERE session < $1)",
    )
    .bind(read.session.as_bytes().as_slice())
    .fetch_one(conn)
    .await?;
    let (lowest, highest): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let is_oldest = row.try_get::<i64, _>(2)? == 0;
    Ok(match (lowest, highest) {
        (Some(lowest), _) if is_oldest => {
            let count = i64::try_from(read.blocks.len()).unwrap_or(i64::MAX);
            lowest.saturating_sub(count).div_euclid(TOGETHER) * TOGETHER
        }
        (_, Some(highest)) => (highest.div_euclid(TOGETHER) + 1) * TOGETHER,
        (_, None) => MIDDLE,
    })
}

async fn forget(conn: &mut SqliteConnection, session: SessionId) -> Result<(), IndexError> {
    let row = sqlx::query("SELECT id FROM recordings WHERE session = $1")
        .bind(session.as_bytes().as_slice())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(()) };
    let id: i64 = row.try_get(0)?;
    for sql in [
        "DELETE FROM words WHERE rowid IN (SELECT id FROM blocks WHERE recording = $1)",
        "DELETE FROM pairs WHERE id IN (SELECT id FROM blocks WHERE recording = $1)",
        "DELETE FROM texts WHERE id IN (SELECT id FROM blocks WHERE recording = $1)",
        "DELETE FROM blocks WHERE recording = $1",
        "DELETE FROM recordings WHERE id = $1",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *conn).await?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
