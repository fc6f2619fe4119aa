//! The migrations, embedded, and the database file's settings.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// How long a writer waits for another process that holds the file (`belay-relay code`).
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A write-ahead log that grew beyond this under a long reader is cut back to it.
const WAL_KEPT: &str = "16777216";

/// Settings of the connection that writes. `synchronous=FULL` is what makes a commit survive a
/// power cut in WAL mode (<https://sqlite.org/pragma.html#pragma_synchronous>).
pub(super) fn writing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(LOCK_PATIENCE)
        .pragma("journal_size_limit", WAL_KEPT)
        // What is pruned or removed is not to be found in the file's free space.
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

/// Settings of the connections that read.
pub(super) fn reading(file: &Path) -> SqliteConnectOptions {
    writing(file).pragma("query_only", "ON")
}

/// Every step from an empty file to this version's tables.
pub(super) fn migrator() -> Migrator {
    let step = |version, name: &'static str, sql: &'static str| {
        let kind = MigrationType::Simple;
        Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        step(1, "start", include_str!("../../migrations/sqlite/0001_start.sql")),
        step(2, "sessions", include_str!("../../migrations/sqlite/0002_sessions.sql")),
        step(3, "streams", include_str!("../../migrations/sqlite/0003_streams.sql")),
        step(4, "lines", include_str!("../../migrations/sqlite/0004_lines.sql")),
        step(5, "audit", include_str!("../../migrations/sqlite/0005_audit.sql")),
        step(6, "killed", include_str!("../../migrations/sqlite/0006_killed.sql")),
        step(7, "grants", include_str!("../../migrations/sqlite/0007_grants.sql")),
        step(8, "retention", include_str!("../../migrations/sqlite/0008_retention.sql")),
        step(9, "joins", include_str!("../../migrations/sqlite/0009_joins.sql")),
        step(10, "break-glass", include_str!("../../migrations/sqlite/0010_break_glass.sql")),
    ])
}
