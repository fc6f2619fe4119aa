//! Devices: looking them up and changing them.

use std::collections::BTreeMap;

use belay_proto::api::{DeviceChange, DeviceStatus};
use belay_proto::ids::DeviceId;
use belay_proto::limits::MAX_LABELS;
use belay_proto::names::{DeviceName, LabelKey, LabelValue};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::clones::{self, CloneAlarm};
use super::rows::{Digest, column, device_id, digest, parse, time};
use super::writer::{Fails, Tx};
use super::{Actor, Change, EventKind, Store, StoreError};

/// One device as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Id.
    pub id: DeviceId,
    /// Name. Unique among devices that are not decommissioned.
    pub name: DeviceName,
    /// Standing.
    pub status: DeviceStatus,
    /// Labels.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// When it enrolled.
    pub enrolled: UnixTime,
    /// SHA-256 over its key's SubjectPublicKeyInfo.
    pub key_digest: Digest,
    /// The key of a renewal whose certificate has not been used yet.
    pub next_key_digest: Option<Digest>,
    /// Its SSH host public key, OpenSSH one-line form.
    pub ssh_host_key: String,
    /// Device-supplied, printable.
    pub hostname: String,
    /// Device-supplied, printable.
    pub platform: String,
    /// Device-supplied, printable.
    pub software: String,
    /// When it last answered on a line that is over, or came up on the one it holds.
    pub last_seen: Option<UnixTime>,
    /// Why its last line ended.
    pub last_end: Option<String>,
    /// Last second of its newest certificate.
    pub certificate_ends: UnixTime,
    /// Its key was seen on two machines, and nobody has decided yet.
    pub clone: Option<CloneAlarm>,
}

impl DeviceRecord {
    /// Whether this is the device's key, or the one it is renewing to.
    pub fn has_key(&self, digest: &Digest) -> bool {
        self.key_digest == *digest || self.next_key_digest.as_ref() == Some(digest)
    }
}

/// A device was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceChangeError {
    /// There is none of that name or id.
    #[error("there is no device \"{0}\"")]
    Unknown(String),
    /// It is gone for good.
    #[error("device \"{0}\" is decommissioned, and stays so")]
    Gone(DeviceName),
    /// Another device has the name.
    #[error("another device is named \"{0}\"")]
    NameTaken(DeviceName),
    /// The name reads as a device's id.
    #[error("\"{0}\" reads as a device's id and cannot be a name")]
    NameIsId(DeviceName),
    /// More labels than a device may have.
    #[error("a device has at most {MAX_LABELS} labels")]
    TooManyLabels,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for DeviceChangeError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&DeviceChangeError> for Refused {
    fn from(error: &DeviceChangeError) -> Self {
        let (code, remedy) = match error {
            DeviceChangeError::Unknown(_) => (Code::UnknownDevice, "belay devices lists them"),
            DeviceChangeError::Gone(_) => (Code::Decommissioned, "enrol it again with a new token"),
            DeviceChangeError::NameTaken(_) => {
                (Code::Name, "choose another name, or rename or decommission that device")
            }
            DeviceChangeError::NameIsId(_) => (Code::Name, "choose another name"),
            DeviceChangeError::TooManyLabels => (Code::BadRequest, "take some off first"),
            DeviceChangeError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// The device with this id, whatever its standing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_by_id(&self, id: DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        by_id(&mut conn, id).await
    }

    /// The device with this id or, among those not decommissioned, this name. When none is live,
    /// the newest decommissioned one of that name, so that a refusal can say what became of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_by_name_or_id(
        &self,
        text: &str,
    ) -> Result<Option<DeviceRecord>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        by_name_or_id(&mut conn, text).await
    }

    /// All devices but the decommissioned, by name. Takes about 1 KiB of memory a device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.name, d.status, d.enrolled, d.key_digest, d.next_key_digest,
                    d.ssh_host_key, d.hostname, d.platform, d.software, d.last_seen, d.last_end,
                    d.certificate_ends, d.clone_since, d.clone_source, d.clone_kept, d.clone_refused,
                    l.name AS label_name, l.value AS label_value
             FROM devices d LEFT JOIN device_labels l ON l.device_id = d.id
             WHERE d.status <> 'decommissioned' ORDER BY d.name",
        )
        .fetch_all(self.readers())
        .await
        .map_err(doing())?;
        fold(&rows)
    }

    /// The names of all devices, of the decommissioned too: what they did is still to be told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_names(&self) -> Result<BTreeMap<DeviceId, DeviceName>, StoreError> {
        let rows = sqlx::query("SELECT id, name FROM devices")
            .fetch_all(self.readers())
            .await
            .map_err(doing())?;
        let named = |row| {
            let name = parse(column(row, "name")?, "a device's name")?;
            Ok((device_id(column(row, "id")?)?, name))
        };
        rows.iter().map(named).collect()
    }

    /// Changes a device, named by id or name, and records it.
    ///
    /// # Errors
    /// [`DeviceChangeError`]; nothing is changed then.
    pub async fn change_device(
        &self,
        device: &str,
        change: DeviceChange,
        by: Actor,
    ) -> Result<DeviceRecord, DeviceChangeError> {
        let device = device.to_owned();
        self.write(move |tx| Box::pin(async move { tx.change_device(device, change, by).await }))
            .await
    }
}

impl Tx {
    async fn change_device(
        &mut self,
        device: String,
        change: DeviceChange,
        by: Actor,
    ) -> Result<DeviceRecord, DeviceChangeError> {
        let old = by_name_or_id(&mut self.conn, &device)
            .await?
            .ok_or(DeviceChangeError::Unknown(device))?;
        if old.status == DeviceStatus::Decommissioned {
            return Err(DeviceChangeError::Gone(old.name));
        }
        let mut told = Vec::new();
        if let Some(name) = change.name.filter(|name| *name != old.name) {
            self.rename(old.id, &name).await?;
            told.push(format!("name {} -> {name}", old.name));
        }
        self.relabel(&old, &change.set_labels, &change.remove_labels, &mut told).await?;
        let reason = change.reason.map(|why| format!(": {why}")).unwrap_or_default();
        if !told.is_empty() {
            let detail = format!("{}{reason}", told.join(", "));
            self.append(&by.event(EventKind::DeviceChanged).device(old.id).detail(&detail)).await?;
            self.announce(Change::DeviceEdited(old.id));
        }
        if change.status.is_some() && old.clone.is_some() {
            let decided = format!("the alarm of two machines with one key was closed{reason}");
            self.close_alarm(old.id).await?;
            let event = by.event(EventKind::DeviceStatus).device(old.id);
            self.append(&event.detail(&decided)).await?;
        }
        if let Some(status) = change.status.filter(|status| *status != old.status) {
            sqlx::query("UPDATE devices SET status = $2 WHERE id = $1")
                .bind(old.id.as_bytes().as_slice())
                .bind(status.token())
                .execute(&mut self.conn)
                .await
                .map_err(doing())?;
            let detail = format!("{} -> {}{reason}", old.status.token(), status.token());
            self.append(&by.event(EventKind::DeviceStatus).device(old.id).detail(&detail)).await?;
            self.announce(Change::DeviceStatus(old.id, status));
        }
        let new = by_id(&mut self.conn, old.id).await?;
        new.ok_or_else(|| DeviceChangeError::Unknown(old.name.to_string()))
    }

    async fn rename(&mut self, id: DeviceId, name: &DeviceName) -> Result<(), DeviceChangeError> {
        if reads_as_id(name) {
            return Err(DeviceChangeError::NameIsId(name.clone()));
        }
        if self.name_is_taken(name).await? {
            return Err(DeviceChangeError::NameTaken(name.clone()));
        }
        self.log.forget_names();
        sqlx::query("UPDATE devices SET name = $2 WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .bind(name.as_str())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        Ok(())
    }

    async fn relabel(
        &mut self,
        old: &DeviceRecord,
        set: &BTreeMap<LabelKey, LabelValue>,
        remove: &std::collections::BTreeSet<LabelKey>,
        told: &mut Vec<String>,
    ) -> Result<(), DeviceChangeError> {
        let mut labels = old.labels.clone();
        for key in remove {
            if labels.remove(key).is_some() {
                told.push(format!("label {key} off"));
                sqlx::query("DELETE FROM device_labels WHERE device_id = $1 AND name = $2")
                    .bind(old.id.as_bytes().as_slice())
                    .bind(key.as_str())
                    .execute(&mut self.conn)
                    .await
                    .map_err(doing())?;
            }
        }
        for (key, value) in set {
            if labels.insert(key.clone(), value.clone()).as_ref() != Some(value) {
                told.push(format!("label {key}={value}"));
                self.set_label(old.id, key, value).await?;
            }
        }
        if labels.len() > MAX_LABELS {
            return Err(DeviceChangeError::TooManyLabels);
        }
        Ok(())
    }

    pub(super) async fn set_label(
        &mut self,
        device: DeviceId,
        key: &LabelKey,
        value: &LabelValue,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO device_labels (device_id, name, value) VALUES ($1, $2, $3)
             ON CONFLICT (device_id, name) DO UPDATE SET value = excluded.value",
        )
        .bind(device.as_bytes().as_slice())
        .bind(key.as_str())
        .bind(value.as_str())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(())
    }

    pub(super) async fn name_is_taken(&mut self, name: &DeviceName) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT 1 AS one FROM devices WHERE name = $1 AND status <> 'decommissioned'",
        )
        .bind(name.as_str())
        .fetch_optional(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(row.is_some())
    }

    pub(super) async fn device(
        &mut self,
        id: DeviceId,
    ) -> Result<Option<DeviceRecord>, StoreError> {
        by_id(&mut self.conn, id).await
    }
}

/// Whether a look-up would take the name for an id: then it could stand for another device.
pub(super) fn reads_as_id(name: &DeviceName) -> bool {
    name.as_str().parse::<DeviceId>().is_ok()
}

pub(super) async fn by_name_or_id(
    conn: &mut SqliteConnection,
    text: &str,
) -> Result<Option<DeviceRecord>, StoreError> {
    if let Ok(id) = text.parse() {
        return by_id(conn, id).await;
    }
    let Ok(name) = text.parse::<DeviceName>() else { return Ok(None) };
    let row = sqlx::query(
        "SELECT id FROM devices WHERE name = $1
         ORDER BY CASE status WHEN 'decommissioned' THEN 1 ELSE 0 END, enrolled DESC LIMIT 1",
    )
    .bind(name.as_str())
    .fetch_optional(&mut *conn)
    .await
    .map_err(doing())?;
    match row {
        Some(row) => by_id(conn, device_id(column(&row, "id")?)?).await,
        None => Ok(None),
    }
}

async fn by_id(
    conn: &mut SqliteConnection,
    id: DeviceId,
) -> Result<Option<DeviceRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.id, d.name, d.status, d.enrolled, d.key_digest, d.next_key_digest,
                d.ssh_host_key, d.hostname, d.platform, d.software, d.last_seen, d.last_end,
                d.certificate_ends, d.clone_since, d.clone_source, d.clone_kept, d.clone_refused,
                l.name AS label_name, l.value AS label_value
         FROM devices d LEFT JOIN device_labels l ON l.device_id = d.id
         WHERE d.id = $1",
    )
    .bind(id.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .map_err(doing())?;
    Ok(fold(&rows)?.pop())
}

/// One row a label, in the order of devices, to one record a device.
fn fold(rows: &[SqliteRow]) -> Result<Vec<DeviceRecord>, StoreError> {
    let mut devices: Vec<DeviceRecord> = Vec::new();
    for row in rows {
        let id = device_id(column(row, "id")?)?;
        if devices.last().is_none_or(|last| last.id != id) {
            devices.push(record(row, id)?);
        }
        let label: Option<&str> = column(row, "label_name")?;
        if let (Some(key), Some(device)) = (label, devices.last_mut()) {
            let value: &str = column(row, "label_value")?;
            device.labels.insert(parse(key, "a label")?, parse(value, "a label")?);
        }
    }
    Ok(devices)
}

fn record(row: &SqliteRow, id: DeviceId) -> Result<DeviceRecord, StoreError> {
    let status: &str = column(row, "status")?;
    let next: Option<&[u8]> = column(row, "next_key_digest")?;
    let last_seen: Option<i64> = column(row, "last_seen")?;
    Ok(DeviceRecord {
        id,
        name: parse(column(row, "name")?, "a device's name")?,
        status: DeviceStatus::from_token(status)
            .ok_or(StoreError::Unreadable("a device's status"))?,
        labels: BTreeMap::new(),
        enrolled: time(column(row, "enrolled")?)?,
        key_digest: digest(column(row, "key_digest")?)?,
        next_key_digest: next.map(digest).transpose()?,
        ssh_host_key: column(row, "ssh_host_key")?,
        hostname: column(row, "hostname")?,
        platform: column(row, "platform")?,
        software: column(row, "software")?,
        last_seen: last_seen.map(time).transpose()?,
        last_end: column(row, "last_end")?,
        certificate_ends: time(column(row, "certificate_ends")?)?,
        clone: clones::alarm(row)?,
    })
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change devices")
}
