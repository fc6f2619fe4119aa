//! Answering a search: the index says which blocks may have the text, the newest are looked through first.
//!
//! Its law: what is answered is what a look at every line would give, the newest lines of it. Blocks come
//! in the order of their numbers, which is nearly that of time; so the search goes on, once it has enough,
//! until no block that is left has a line newer than those.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_proto::ids::SessionId;
use belay_tunnel::transcript::{Line, Reader, Wanted};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use sqlx::sqlite::SqlitePool;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction};
use tokio::task::spawn_blocking;

use super::index::{IndexError, State, TOGETHER, pairs_of, signed};
use super::{Search, SearchError};

/// Candidates in one go: few at first, since they may be enough.
const BATCH_FIRST: usize = 32;
/// See [`BATCH_FIRST`]. Their texts are in memory at once, some kilobytes each.
const BATCH_MOST: usize = 2048;

/// Batches on their way: while one is read, the words of others are looked for, and texts unpacked.
pub(super) const AHEAD: usize = 3;

/// Searches that are made again, since a recording was put in anew meanwhile, and its blocks have other numbers.
const AGAIN: usize = 3;

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
    /// Recordings that have lines which are not in the index yet, of those it is to have.
    pub(crate) growing: u64,
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
        found.growing = growing(&readers, &self.recordings.unread.all()).await?;
        Ok(found)
    }
}

/// A line, where it stands in the index, and which of the block's lines that have the text it is.
struct Standing {
    line: Line,
    recording: i64,
    block: i64,
    nth: usize,
}

impl Standing {
    /// What order they are shown in, the last first.
    const fn order(&self) -> (u64, i64, u32, i64, usize) {
        (self.line.at_ms, self.recording, self.line.track, self.block, self.nth)
    }
}

/// Looks for a text in an index.
pub(super) async fn found(readers: &SqlitePool, asked: &Asked) -> Result<Found, IndexError> {
    let deadline = Instant::now() + WITHIN;
    for _ in 0..AGAIN {
        if let Some(found) = once(readers, asked, deadline).await? {
            return Ok(found);
        }
    }
    let found = once(readers, asked, deadline).await?;
    // Who asks while it changes all the time is told that there may be more.
    Ok(found.unwrap_or_default())
}

/// `None` when the index changed below it, so that it may have missed something.
async fn once(
    readers: &SqlitePool,
    asked: &Asked,
    deadline: Instant,
) -> Result<Option<Found>, IndexError> {
    let wanted = Arc::new(Wanted::new(&asked.text));
    let mut found = Found { complete: true, ..Found::default() };
    let mut lines: Vec<Standing> = Vec::new();
    if let Some(lowest) = lowest_since(readers, asked.since_ms).await? {
        let since = asked.since_ms;
        let mut batches = std::pin::pin!(
            batches(readers, asked, Arc::clone(&wanted), lowest)
                .map(|batch| looked_through(readers, batch, Arc::clone(&wanted), since))
                .buffered(AHEAD)
        );
        while let Some(batch) = batches.next().await {
            let Some((lowest, mut more)) = batch? else { return Ok(None) };
            lines.append(&mut more);
            if lines.len() >= asked.limit {
                lines.sort_by_key(|standing| std::cmp::Reverse(standing.order()));
                // One more says that there are others.
                lines.truncate(asked.limit + 1);
                let oldest = lines.get(asked.limit.saturating_sub(1));
                let oldest = oldest.map_or(0, |standing| standing.line.at_ms);
                if !is_left(readers, oldest, lowest).await? {
                    found.complete = false;
                    break;
                }
            }
            if Instant::now() > deadline {
                found.complete = false;
                break;
            }
        }
    }
    lines.sort_by_key(|standing| std::cmp::Reverse(standing.order()));
    found.complete &= lines.len() <= asked.limit;
    lines.truncate(asked.limit);
    let mut recordings = BTreeMap::new();
    for Standing { line, recording, .. } in lines {
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
    Ok(Some(found))
}

/// The lowest block that has a line from then on; `None` when none has.
async fn lowest_since(readers: &SqlitePool, since_ms: u64) -> Result<Option<i64>, IndexError> {
    if since_ms == 0 {
        return Ok(Some(i64::MIN));
    }
    let row = sqlx::query("SELECT min(id) FROM blocks WHERE last_ms >= $1")
        .bind(signed(since_ms))
        .fetch_one(readers)
        .await?;
    Ok(row.try_get(0)?)
}

/// Whether there is a block below this one that may have a line so new.
async fn is_left(readers: &SqlitePool, at_ms: u64, below: i64) -> Result<bool, IndexError> {
    let row = sqlx::query("SELECT EXISTS (SELECT 1 FROM blocks WHERE last_ms >= $1 AND id < $2)")
        .bind(signed(at_ms))
        .bind(below)
        .fetch_one(readers)
        .await?;
    Ok(row.try_get::<i64, _>(0)? != 0)
}

/// Blocks that may have it from their words, from the highest down, some at a time and all as the index was at the
/// first.
fn batches<'q>(
    readers: &'q SqlitePool,
    asked: &'q Asked,
    wanted: Arc<Wanted>,
    lowest: i64,
) -> impl Stream<Item = Result<Vec<i64>, IndexError>> + 'q {
    let begin = (None::<Transaction<'static, Sqlite>>, i64::MAX, BATCH_FIRST);
    stream::try_unfold(begin, move |(tx, below, size)| {
        let mut query = candidates(asked, &wanted, lowest..below, size);
        async move {
            let mut tx = match tx {
                Some(tx) => tx,
                None => readers.begin().await?,
            };
            // One row for all of them: a row costs more than what is in it.
            let row = query.build().fetch_one(&mut *tx).await?;
            let blocks: Vec<i64> =
                serde_json::from_str(row.try_get(0)?).map_err(std::io::Error::other)?;
            let next = blocks.iter().min().copied();
            Ok(next.map(|below| (blocks, (Some(tx), below, BATCH_MOST.min(size * 2)))))
        }
    })
}

/// So many of the highest of them in a range of numbers, as a JSON array.
fn candidates(
    asked: &Asked,
    wanted: &Wanted,
    range: Range<i64>,
    most: usize,
) -> QueryBuilder<Sqlite> {
    let words = wanted.query();
    let narrowed = asked.since_ms > 0 || asked.device.is_some() || asked.user.is_some();
    // A cross join keeps its order: nothing is gathered or sorted before the first block is known.
    let (id, from) = match (&words, narrowed) {
        (Some(_), false) => ("words.rowid", "words"),
        (Some(_), true) => ("words.rowid", "words CROSS JOIN blocks b ON b.id = words.rowid"),
        (None, _) => ("b.id", "blocks b"),
    };
    let all = "SELECT json_group_array(id) FROM (SELECT";
    let mut query = QueryBuilder::new(format!("{all} {id} AS id FROM {from} WHERE {id} >= "));
    query.push_bind(range.start).push(format!(" AND {id} < ")).push_bind(range.end);
    if let Some(words) = words {
        query.push(" AND words MATCH ").push_bind(words);
    }
    if asked.since_ms > 0 {
        query.push(" AND b.last_ms >= ").push_bind(signed(asked.since_ms));
    }
    for (column, wanted) in [("device", &asked.device), ("user_id", &asked.user)] {
        if let Some(wanted) = wanted {
            // The plus: each block is asked for its recording, not the recordings for their blocks.
            query.push(" AND +b.recording IN (SELECT id FROM recordings WHERE ");
            query.push(column).push(" = ").push_bind(wanted.clone()).push(")");
        }
    }
    query.push(format!(" ORDER BY {id} DESC LIMIT {most})"));
    query
}

/// The lines of these blocks that have it; with the lowest block they are from. `None` when one of them is
/// gone.
async fn looked_through(
    readers: &SqlitePool,
    batch: Result<Vec<i64>, IndexError>,
    wanted: Arc<Wanted>,
    since_ms: u64,
) -> Result<Option<(i64, Vec<Standing>)>, IndexError> {
    let blocks = batch?;
    let lowest = blocks.iter().min().copied().unwrap_or(i64::MIN);
    let Some(blocks) = with_signs(readers, blocks, &wanted).await? else { return Ok(None) };
    if blocks.is_empty() {
        return Ok(Some((lowest, Vec::new())));
    }
    let sql = "SELECT t.id, b.recording, t.lines FROM texts t JOIN blocks b ON b.id = t.id
               WHERE t.id IN (SELECT value FROM json_each($1))";
    let rows = sqlx::query(sql).bind(array(&blocks)).fetch_all(readers).await?;
    if rows.len() < blocks.len() {
        return Ok(None);
    }
    let lines = spawn_blocking(move || {
        let (mut reader, mut found) = (Reader::new()?, Vec::new());
        for row in rows {
            let (block, recording): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let lines = reader.lines_with(row.try_get(2)?, &wanted)?.into_iter().enumerate();
            let lines = lines.filter(|(_, line)| line.at_ms >= since_ms);
            found.extend(lines.map(|(nth, line)| Standing { line, recording, block, nth }));
        }
        Ok::<_, IndexError>(found)
    });
    Ok(Some((lowest, lines.await.map_err(std::io::Error::other)??)))
}

/// Those of these blocks that their signs do not rule out: pairs where the text has any, since they have its marks
/// in them, or else marks. `None` when one of them is gone.
async fn with_signs(
    readers: &SqlitePool,
    blocks: Vec<i64>,
    wanted: &Wanted,
) -> Result<Option<Vec<i64>>, IndexError> {
    if !wanted.has_pairs() && !wanted.has_marks() {
        return Ok(Some(blocks));
    }
    let (mut seen, mut may) = (0, Vec::new());
    if wanted.has_pairs() {
        let mut rows_of: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for block in &blocks {
            rows_of.entry(block.div_euclid(TOGETHER) * TOGETHER).or_default().push(*block);
        }
        let ids: Vec<i64> = rows_of.keys().copied().collect();
        let sql = "SELECT id, of FROM pairs WHERE id IN (SELECT value FROM json_each($1))";
        let mut rows = sqlx::query(sql).bind(array(&ids)).fetch(readers);
        while let Some(row) = rows.try_next().await? {
            let (id, pairs): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            for block in rows_of.get(&id).into_iter().flatten().copied() {
                let Some(pairs) = pairs_of(pairs, block) else { continue };
                seen += 1;
                if wanted.may_be_among_pairs(pairs) {
                    may.push(block);
                }
            }
        }
    } else {
        let sql = "SELECT id, marks FROM blocks WHERE id IN (SELECT value FROM json_each($1))";
        let mut rows = sqlx::query(sql).bind(array(&blocks)).fetch(readers);
        while let Some(row) = rows.try_next().await? {
            seen += 1;
            if wanted.may_be_among_marks(row.try_get(1)?) {
                may.push(row.try_get(0)?);
            }
        }
    }
    Ok((seen == blocks.len()).then_some(may))
}

fn array(ids: &[i64]) -> String {
    format!("{ids:?}")
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

/// Of recordings of which more is there than was read, those whose lines are wanted in the index, and not in
/// their beginning alone.
async fn growing(readers: &SqlitePool, unread: &[SessionId]) -> Result<u64, IndexError> {
    if unread.is_empty() {
        return Ok(0);
    }
    let hex = unread.iter().map(|session| {
        session.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect::<String>()
    });
    let hex = serde_json::Value::from_iter(hex).to_string();
    let row = sqlx::query(
        "SELECT count(*) FROM recordings
         WHERE state <> $1 AND hex(session) IN (SELECT value FROM json_each($2))",
    )
    .bind(State::Whole.word())
    .bind(hex)
    .fetch_one(readers)
    .await?;
    let never = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0);
    Ok((unread.len() as u64).saturating_sub(never))
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
