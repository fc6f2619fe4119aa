//! The audit log inside the writer's transaction.
//!
//! Its law: events of a transaction become entries when it ends, in their order, all in one go, with
//! one signed checkpoint over all there are; so what is acknowledged is under a signature on the
//! disk. What it is not: it knows no transaction that was taken back; then the tree is loaded anew.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use belay_proto::audit::{Entry, TILE_WIDTH, leaf_hash};
use belay_proto::ids::{DeviceId, UserId};
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::rows::{column, count, seconds};
use super::tree::Tree;
use super::{Event, StoreError};
use crate::ca::AuditKey;

/// Rows in one statement: sending one costs about as much as ten rows.
const ROWS: usize = 32;

/// Columns of a row.
const COLUMNS: usize = 11;

/// Names remembered, of people and devices: at about 100 bytes each, 7 MB.
const NAMES: usize = 65_536;

static ONE: LazyLock<Arc<str>> = LazyLock::new(|| insert(1).into());
static MANY: LazyLock<Arc<str>> = LazyLock::new(|| insert(ROWS).into());

fn insert(rows: usize) -> String {
    let row = |n: usize| {
        let places: Vec<_> = (1..=COLUMNS).map(|c| format!("${}", n * COLUMNS + c)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO decisions
         (seq, at, kind, user_id, device, session, login, code, detail, source, entry)
         VALUES {}",
        rows.join(", ")
    )
}

/// An event on its way into the log.
struct Pending {
    event: Event,
    user_name: Option<String>,
    device_name: Option<String>,
}

/// The log, as one connection of the writer sees it.
pub(super) struct Log {
    key: Arc<AuditKey>,
    tree: Option<Tree>,
    pending: Vec<Pending>,
    users: BTreeMap<UserId, String>,
    devices: BTreeMap<DeviceId, String>,
}

impl Log {
    pub(super) fn new(key: Arc<AuditKey>) -> Self {
        let (users, devices) = Default::default();
        Self { key, tree: None, pending: Vec::new(), users, devices }
    }

    /// Takes an event in; it is an entry when the transaction ends.
    pub(super) async fn append(
        &mut self,
        conn: &mut SqliteConnection,
        event: &Event,
    ) -> Result<(), StoreError> {
        if self.users.len() + self.devices.len() > NAMES {
            self.forget_names();
        }
        let user_name = match event.user {
            Some(id) => name(conn, &mut self.users, USER_NAME, id, id.as_bytes()).await?,
            None => None,
        };
        let device_name = match event.device {
            Some(id) => name(conn, &mut self.devices, DEVICE_NAME, id, id.as_bytes()).await?,
            None => None,
        };
        self.pending.push(Pending { event: event.clone(), user_name, device_name });
        Ok(())
    }

    /// How much was taken in, for [`Log::take_back`].
    pub(super) fn mark(&self) -> usize {
        self.pending.len()
    }

    /// Forgets what was taken in since the mark.
    pub(super) fn take_back(&mut self, mark: usize) {
        self.pending.truncate(mark);
        self.forget_names();
    }

    /// A name may be another from now on.
    pub(super) fn forget_names(&mut self) {
        self.users.clear();
        self.devices.clear();
    }

    /// Writes the entries, the tree over them and its checkpoint.
    pub(super) async fn flush(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut tree = self.tree(conn).await?;
        let before = tree.size();
        let mut rows = Vec::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            let entry = pending.entry(tree.size() + 1);
            tree.append(leaf_hash(entry.as_bytes()));
            rows.push((tree.size(), pending.event, entry));
        }
        let mut rows = rows.as_slice();
        while !rows.is_empty() {
            let (sql, length) = if rows.len() >= ROWS { (&*MANY, ROWS) } else { (&*ONE, 1) };
            let (now, later) = rows.split_at(length);
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(sql)));
            for (seq, event, entry) in now {
                query = bind(query, *seq, event, entry);
            }
            query.execute(&mut *conn).await.map_err(StoreError::during("record an event"))?;
            rows = later;
        }
        tree.save(&mut *conn).await?;
        self.check_in(conn, &tree, before).await?;
        self.tree = Some(tree);
        Ok(())
    }

    /// The tree in memory, if it still is the one in the database: another process may have added
    /// to it (`belay-relay code`).
    async fn tree(&mut self, conn: &mut SqliteConnection) -> Result<Tree, StoreError> {
        let size = newest(&mut *conn).await?.map_or(0, |(size, _)| size);
        if let Some(tree) = self.tree.take().filter(|tree| tree.size() == size) {
            return Ok(tree);
        }
        let tree = Tree::load(conn, size).await?;
        tree.ok_or(StoreError::Unreadable("a tile of the audit log"))
    }

    /// Signs the tree. The checkpoint before goes, unless it is the last one of its tile.
    async fn check_in(
        &self,
        conn: &mut SqliteConnection,
        tree: &Tree,
        before: u64,
    ) -> Result<(), StoreError> {
        let note = self.key.seal(tree.size(), tree.root());
        let note = note.map_err(|_| StoreError::Unreadable("an audit key that does not sign"))?;
        let doing = || StoreError::during("sign the audit log");
        sqlx::query("INSERT INTO audit_checkpoints (size, note) VALUES ($1, $2)")
            .bind(count(tree.size()))
            .bind(note)
            .execute(&mut *conn)
            .await
            .map_err(doing())?;
        if before > 0 && before / TILE_WIDTH == tree.size() / TILE_WIDTH {
            sqlx::query("DELETE FROM audit_checkpoints WHERE size = $1")
                .bind(count(before))
                .execute(conn)
                .await
                .map_err(doing())?;
        }
        Ok(())
    }
}

impl Pending {
    fn entry(&self, seq: u64) -> String {
        let event = &self.event;
        let entry = Entry {
            seq,
            at: event.at,
            kind: event.kind.token().to_owned(),
            user: event.user,
            user_name: self.user_name.clone(),
            device: event.device,
            device_name: self.device_name.clone(),
            session: event.session,
            login: event.login.as_ref().map(ToString::to_string),
            code: event.code.map(str::to_owned),
            detail: event.detail.clone(),
            source: event.source.map(|address| address.to_string()),
        };
        entry.encode()
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

fn bind<'q>(query: Query<'q>, seq: u64, event: &'q Event, entry: &'q str) -> Query<'q> {
    query
        .bind(count(seq))
        .bind(seconds(event.at))
        .bind(event.kind.token())
        .bind(event.user.as_ref().map(|id| id.as_bytes().as_slice()))
        .bind(event.device.as_ref().map(|id| id.as_bytes().as_slice()))
        .bind(event.session.as_ref().map(|id| id.as_bytes().as_slice()))
        .bind(event.login.as_ref().map(|login| login.as_str()))
        .bind(event.code)
        .bind(event.detail.as_deref())
        .bind(event.source.map(|address| address.to_string()))
        .bind(entry)
}

const USER_NAME: &str = "SELECT name FROM users WHERE id = $1";
const DEVICE_NAME: &str = "SELECT name FROM devices WHERE id = $1";

async fn name<K: Ord>(
    conn: &mut SqliteConnection,
    known: &mut BTreeMap<K, String>,
    sql: &'static str,
    id: K,
    bytes: &[u8; 16],
) -> Result<Option<String>, StoreError> {
    if let Some(name) = known.get(&id) {
        return Ok(Some(name.clone()));
    }
    let row = sqlx::query(sql)
        .bind(bytes.as_slice())
        .fetch_optional(conn)
        .await
        .map_err(StoreError::during("record an event"))?;
    let Some(row) = row else { return Ok(None) };
    let name: String = column(&row, "name")?;
    known.insert(id, name.clone());
    Ok(Some(name))
}

/// The newest checkpoint: its size, and its note.
pub(super) async fn newest(
    conn: impl sqlx::SqliteExecutor<'_>,
) -> Result<Option<(u64, String)>, StoreError> {
    let row = sqlx::query("SELECT size, note FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
        .fetch_optional(conn)
        .await
        .map_err(StoreError::during("read the audit log"))?;
    let Some(row) = row else { return Ok(None) };
    let size: i64 = column(&row, "size")?;
    let size = u64::try_from(size).map_err(|_| StoreError::Unreadable("a checkpoint"))?;
    Ok(Some((size, column(&row, "note")?)))
}
