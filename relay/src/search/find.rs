//! Answering a search: the index says which blocks may have the text, the newest are looked through first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_proto::ids::SessionId;
use futures::{StreamExt as _, stream};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::task::spawn_blocking;

use super::block::{Line, lines_with};
use super::index::{IndexError, State, signed};
use super::words::Wanted;
use super::{Search, SearchError};

/// Blocks read at once.
const BATCH: usize = 64;

/// Batches on their way.
const AHEAD: usize = 2;

/// Longest search. What it did not come to is older than what it found.
const WITHIN: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) text: String,
    /// Nothing before, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// Of this device, by its id's bytes.
    pub(crate) device: Option<Vec<u8>>,
    /// Of this person.
    pub(crate) user: Option<Vec<u8>>,
    /// How many at most.
    pub(crate) limit: usize,
}

/// A line that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) session: SessionId,
    /// As the index has them.
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) device: Option<Vec<u8>>,
    pub(crate) login: Option<String>,
    pub(crate) track: u32,
    pub(crate) at_ms: u64,
    pub(crate) offset_ms: u64,
    pub(crate) kind: &'static str,
    pub(crate) line: String,
    pub(crate) command: Option<String>,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The newest first.
    pub(crate) hits: Vec<Hit>,
    /// Whether there are no others.
    pub(crate) complete: bool,
    /// Recordings, by their state in the index.
    pub(crate) searched: u64,
    pub(crate) cut: u64,
    pub(crate) sealed: u64,
    pub(crate) damaged: u64,
    pub(crate) waiting: u64,
}

impl Search {
    /// Looks for a text.
    ///
    /// # Errors
    /// [`SearchError`].
    pub(crate) async fn find(&self, asked: &Asked) -> Result<Found, SearchError> {
        let _turn = self.turns.try_acquire().map_err(|_| SearchError::Busy)?;
        let readers = self.readers().ok_or(SearchError::NotYet)?;
        let mut found = found(&readers, asked).await?;
        found.waiting = self.waiting();
        Ok(found)
    }
}

/// Looks for a text in an index.
pub(super) async fn found(readers: &SqlitePool, asked: &Asked) -> Result<Found, IndexError> {
    let deadline = Instant::now() + WITHIN;
    let wanted = Arc::new(Wanted::new(&asked.text));
    let candidates = candidates(readers, asked, &wanted).await?;
    let mut found = Found { complete: true, ..Found::default() };
    let mut lines: Vec<(i64, Line)> = Vec::new();
    {
        let since = asked.since_ms;
        let batches: Vec<Vec<i64>> = candidates.chunks(BATCH).map(<[i64]>::to_vec).collect();
        let readers = readers.clone();
        let mut batches = stream::iter(batches)
            .map(move |ids| looked_through(readers.clone(), ids, Arc::clone(&wanted), since))
            .buffered(AHEAD);
        let mut left = candidates.len();
        while let Some(batch) = batches.next().await {
            lines.append(&mut batch?);
            left = left.saturating_sub(BATCH);
            if left > 0 && (lines.len() >= asked.limit || Instant::now() > deadline) {
                found.complete = false;
                break;
            }
        }
    }
    lines.sort_by_key(|(recording, line)| std::cmp::Reverse((line.at_ms, *recording, line.track)));
    found.complete &= lines.len() <= asked.limit;
    lines.truncate(asked.limit);
    let mut recordings = BTreeMap::new();
    for (recording, line) in lines {
        let known = match recordings.get(&recording) {
            Some(known) => known,
            None => {
                let Some(known) = self::recording(readers, recording).await? else { continue };
                recordings.entry(recording).or_insert(known)
            }
        };
        let Known { session, user, device, login } = known.clone();
        let Line { track, at_ms, offset_ms, kind, text, command } = line;
        let kind = kind.word();
        let hit = Hit {
            session,
            user,
            device,
            login,
            track,
            at_ms,
            offset_ms,
            kind,
            line: text,
            command,
        };
        found.hits.push(hit);
    }
    count(readers, &mut found).await?;
    Ok(found)
}

/// Blocks that may have it, the newest first.
async fn candidates(
    readers: &SqlitePool,
    asked: &Asked,
    wanted: &Wanted,
) -> Result<Vec<i64>, IndexError> {
    let query = wanted.query();
    let from = match query {
        Some(_) => "words JOIN blocks b ON b.id = words.rowid WHERE words MATCH $4 AND",
        None => "blocks b WHERE $4 IS NULL AND",
    };
    let of = match (&asked.device, &asked.user) {
        (None, None) => "",
        _ => {
            " AND b.recording IN (SELECT id FROM recordings WHERE
              ($2 IS NULL OR device = $2) AND ($3 IS NULL OR user_id = $3))"
        }
    };
    let sql = format!(
        "SELECT b.id FROM {from} b.last_ms >= $1 AND coalesce($2, $3, 1) IS NOT NULL{of}
         ORDER BY b.last_ms DESC, b.id DESC"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(signed(asked.since_ms))
        .bind(asked.device.as_deref())
        .bind(asked.user.as_deref())
        .bind(query)
        .fetch_all(readers)
        .await?;
    rows.iter().map(|row: &SqliteRow| Ok(row.try_get(0)?)).collect()
}

/// The lines of these blocks that have it, each with its recording.
async fn looked_through(
    readers: SqlitePool,
    ids: Vec<i64>,
    wanted: Arc<Wanted>,
    since_ms: u64,
) -> Result<Vec<(i64, Line)>, IndexError> {
    let places: Vec<String> = (1..=BATCH).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT b.recording, t.lines FROM texts t JOIN blocks b ON b.id = t.id WHERE t.id IN ({})",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for place in 0..BATCH {
        query = query.bind(ids.get(place).copied().unwrap_or(-1));
    }
    let rows = query.fetch_all(&readers).await?;
    let lines = spawn_blocking(move || {
        let mut found = Vec::new();
        for row in rows {
            let (recording, packed): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            let lines = lines_with(packed, &wanted)?.into_iter();
            let lines = lines.filter(|line| line.at_ms >= since_ms);
            found.extend(lines.map(|line| (recording, line)));
        }
        Ok::<_, IndexError>(found)
    });
    lines.await.map_err(std::io::Error::other)?
}

/// What a recording is of.
#[derive(Clone)]
struct Known {
    session: SessionId,
    user: Option<Vec<u8>>,
    device: Option<Vec<u8>>,
    login: Option<String>,
}

async fn recording(readers: &SqlitePool, id: i64) -> Result<Option<Known>, IndexError> {
    let row = sqlx::query("SELECT session, user_id, device, login FROM recordings WHERE id = $1")
        .bind(id)
        .fetch_optional(readers)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let session: &[u8] = row.try_get(0)?;
    let Some(session) = SessionId::from_slice(session) else { return Ok(None) };
    let (user, device) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Some(Known { session, user, device, login: row.try_get(3)? }))
}

async fn count(readers: &SqlitePool, found: &mut Found) -> Result<(), IndexError> {
    let rows = sqlx::query("SELECT state, count(*) FROM recordings GROUP BY state")
        .fetch_all(readers)
        .await?;
    for row in rows {
        let (word, count): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
        let count = u64::try_from(count).unwrap_or(0);
        match State::ALL.into_iter().find(|state| state.word() == word) {
            Some(State::Whole) => found.searched += count,
            Some(State::Cut) => {
                found.searched += count;
                found.cut += count;
            }
            Some(State::Sealed) => found.sealed += count,
            Some(State::Damaged) => found.damaged += count,
            None => {}
        }
    }
    Ok(())
}
