//! Sessions that were, newest first, a page at a time.
//!
//! What it is not: it asks nobody's rights; whoever asks names whose sessions may be read.

use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::names::Login;
use belay_proto::time::UnixTime;
use sqlx::{QueryBuilder, Sqlite};

use super::rows::seconds;
use super::sessions::{COLUMNS, record};
use super::{SessionRecord, Store, StoreError};

/// Which sessions, open or not. What is absent restricts nothing.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// This person's.
    pub user: Option<UserId>,
    /// On this device.
    pub device: Option<DeviceId>,
    /// As this account.
    pub login: Option<Login>,
    /// Opened then or later.
    pub since: Option<UnixTime>,
    /// Older than this one.
    pub before: Option<SessionId>,
}

/// An id is made, and the clock read, at most this long apart.
const APART_S: u64 = 60;

impl Store {
    /// So many of them at most, the newest first. Takes about 300 bytes of memory a session; looks
    /// at every session since then when neither person nor device is named.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn past_sessions(
        &self,
        past: Past,
        count: u32,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let doing = StoreError::during("read past sessions");
        let mut conn = self.readers().acquire().await.map_err(&doing)?;
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS).push(" FROM sessions WHERE 1 = 1");
        if let Some(user) = past.user {
            query.push(" AND user_id = ").push_bind(user.as_bytes().to_vec());
        }
        if let Some(device) = past.device {
            query.push(" AND device = ").push_bind(device.as_bytes().to_vec());
        }
        if let Some(login) = past.login {
            query.push(" AND login = ").push_bind(login.as_str().to_owned());
        }
        if let Some(since) = past.since {
            query.push(" AND opened >= ").push_bind(seconds(since));
            // So that older ones are not even looked at.
            query
                .push(" AND id >= ")
                .push_bind(first_of(UnixTime(since.0.saturating_sub(APART_S))));
        }
        if let Some(before) = past.before {
            query.push(" AND id < ").push_bind(before.as_bytes().to_vec());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(count));
        let rows = query.build().fetch_all(&mut *conn).await.map_err(&doing)?;
        rows.iter().map(record).collect()
    }
}

/// The least id of that second: version 7 begins with milliseconds since 1970 (RFC 9562 §5.7).
fn first_of(at: UnixTime) -> Vec<u8> {
    let ms = at.0.saturating_mul(1000).min((1 << 48) - 1);
    let mut id = vec![0; 16];
    for (place, byte) in id.iter_mut().zip(ms.to_be_bytes().iter().skip(2)) {
        *place = *byte;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_first_id_is_before_each_that_is_made_in_it() {
        assert_eq!(first_of(UnixTime(0)), [0; 16]);
        let now = belay_tunnel::clock::now();
        let id = uuid::Uuid::now_v7();
        assert!(first_of(now) <= id.as_bytes().to_vec());
        assert!(first_of(UnixTime(now.0 + 2)) > id.as_bytes().to_vec());
        assert_eq!(first_of(UnixTime(u64::MAX)).first_chunk(), Some(&[0xff; 6]));
    }
}
