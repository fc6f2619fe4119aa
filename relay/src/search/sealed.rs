//! Which recordings are sealed: an auditor who has a key searches those on a machine of their own.

use belay_proto::ids::SessionId;
use sqlx::Row as _;

use super::index::{IndexError, State, signed};
use super::{Search, SearchError};

/// A recording that is sealed, as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) session: SessionId,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) device: Option<Vec<u8>>,
    pub(crate) login: Option<String>,
    pub(crate) bytes: u64,
}

impl Search {
    /// So many of them at most, behind this session in the order of their ids.
    ///
    /// # Errors
    /// [`SearchError`].
    pub(crate) async fn sealed(
        &self,
        after: Option<SessionId>,
        count: u32,
    ) -> Result<Vec<Sealed>, SearchError> {
        let readers = self.readers().ok_or(SearchError::NotYet)?;
        let after = after.map_or_else(Vec::new, |session| session.as_bytes().to_vec());
        let rows = sqlx::query(
            "SELECT session, user_id, device, login, bytes FROM recordings
             WHERE state = $1 AND session > $2 ORDER BY session LIMIT $3",
        )
        .bind(State::Sealed.word())
        .bind(after)
        .bind(signed(count.into()))
        .fetch_all(&readers)
        .await
        .map_err(IndexError::from)?;
        let mut sealed = Vec::with_capacity(rows.len());
        for row in rows {
            let get = || -> Result<Option<Sealed>, sqlx::Error> {
                let Some(session) = SessionId::from_slice(row.try_get(0)?) else { return Ok(None) };
                let (user, device, login) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                let bytes = u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0);
                Ok(Some(Sealed { session, user, device, login, bytes }))
            };
            sealed.extend(get().map_err(IndexError::from)?);
        }
        Ok(sealed)
    }
}
