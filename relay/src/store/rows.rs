//! From columns to types and back. What does not read strictly is not acted on.

use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::time::UnixTime;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::StoreError;

/// SHA-256 of a secret or of a key.
pub(super) type Digest = [u8; 32];

pub(super) fn seconds(at: UnixTime) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

pub(super) fn time(seconds: i64) -> Result<UnixTime, StoreError> {
    u64::try_from(seconds).map(UnixTime).map_err(|_| StoreError::Unreadable("a time"))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map_err(|_| StoreError::Unreadable("a digest"))
}

pub(super) fn device_id(bytes: &[u8]) -> Result<DeviceId, StoreError> {
    DeviceId::from_slice(bytes).ok_or(StoreError::Unreadable("a device's id"))
}

pub(super) fn user_id(bytes: &[u8]) -> Result<UserId, StoreError> {
    UserId::from_slice(bytes).ok_or(StoreError::Unreadable("a user's id"))
}

pub(super) fn session_id(bytes: &[u8]) -> Result<SessionId, StoreError> {
    SessionId::from_slice(bytes).ok_or(StoreError::Unreadable("a session's id"))
}

/// A count as a column; what no disk could hold is cut off.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Parses text by a type's own rule.
pub(super) fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Unreadable(what))
}

/// Reads JSON strictly.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    text: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable(what))
}

pub(super) fn to_json<T: serde::Serialize>(
    value: &T,
    what: &'static str,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Unreadable(what))
}

/// Reads one column.
pub(super) fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(name).map_err(|_| StoreError::Unreadable(name))
}
