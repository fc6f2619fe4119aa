//! Sessions that join terminals of others: what is listed of them.

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::names::UserName;

/// A session that joins another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joins {
    /// Which other.
    pub session: SessionId,
    /// Or only looks on.
    pub may_type: bool,
}

/// Somebody who has joined a session, with one of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Who.
    pub user: UserName,
    /// Their own session.
    pub session: SessionId,
    /// Or only looks on.
    pub may_type: bool,
}
