//! What can go wrong with the store itself, apart from what an operation may refuse.

use std::sync::Arc;

use belay_proto::refusal::{Code, Refused};

/// The store could not do it. Nothing of the operation was kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Disk full, file locked by another process, input/output error.
    #[error("the store cannot {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// More operations wait than are let in.
    #[error("the store is overloaded")]
    Overloaded,
    /// The relay is stopping.
    #[error("the store is closed")]
    Closed,
    /// Something in it cannot be read, so it is not acted on.
    #[error("the store holds {0} that this version cannot read")]
    Unreadable(&'static str),
}

impl StoreError {
    pub(super) fn during(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Unavailable { doing, source: Arc::new(source) }
    }

    /// Whether the connection to the database may go on after this: a violated constraint concerns
    /// one statement, everything else may have taken the transaction with it.
    pub(super) fn spares_the_transaction(&self) -> bool {
        match self {
            Self::Unavailable { source, .. } => source.as_database_error().is_some_and(|error| {
                error.is_unique_violation()
                    || error.is_foreign_key_violation()
                    || error.is_check_violation()
            }),
            Self::Unreadable(_) => true,
            Self::Overloaded | Self::Closed => false,
        }
    }
}

/// SQLite says that there is no room (`SQLITE_FULL`, <https://sqlite.org/rescode.html#full>).
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    const SQLITE_FULL: &str = "13";
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some(SQLITE_FULL))
}

impl From<&StoreError> for Refused {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::new(
                Code::Store,
                "the relay cannot write its store, and this must be recorded",
                "try again; if it stays, ask the relay's operator to look at its disk and its log",
            ),
            StoreError::Overloaded => {
                Self::new(Code::Busy, "the relay's store is overloaded", "try again in a moment")
            }
            StoreError::Closed => {
                Self::new(Code::Draining, "the relay is shutting down", "try again in a moment")
            }
            StoreError::Unreadable(_) => Self::new(
                Code::Internal,
                "the relay cannot read a part of its store",
                "ask the relay's operator to look at its log",
            ),
        }
    }
}
