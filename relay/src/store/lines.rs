//! What is kept of a device's lines and certificates.

use std::net::SocketAddr;

use belay_proto::api::DeviceStatus;
use belay_proto::ids::DeviceId;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;

use belay_tunnel::carrier::quic::LineId;

use super::rows::{Digest, column, device_id, parse, seconds};
use super::writer::{Fails, Tx};
use super::{Event, EventKind, Store, StoreError};
use crate::span::date;

/// A device's line was admitted.
#[derive(Debug, Clone)]
pub struct LineUp {
    /// Whose.
    pub device: DeviceId,
    /// Of the key it proved. One it was renewing to becomes its only one.
    pub key_digest: Digest,
    /// When.
    pub at: UnixTime,
    /// Device-supplied, printable ([`crate::reported()`]).
    pub hostname: String,
    /// Device-supplied, printable.
    pub platform: String,
    /// Device-supplied, printable.
    pub software: String,
    /// Where it comes from.
    pub source: SocketAddr,
    /// The id the relay gave its connection, over QUIC.
    pub id: Option<LineId>,
    /// More for the record: carrier, epoch.
    pub detail: String,
}

/// A device's line ended.
#[derive(Debug, Clone)]
pub struct LineDown {
    /// Whose.
    pub device: DeviceId,
    /// When it last answered.
    pub last_seen: UnixTime,
    /// Why, as people will read it.
    pub reason: String,
    /// Where it came from.
    pub source: SocketAddr,
    /// The id the relay gave its connection, over QUIC.
    pub id: Option<LineId>,
}

/// A line that was up when the relay was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftLine {
    /// Whose.
    pub device: DeviceId,
    /// Where it was last.
    pub address: SocketAddr,
    /// The id the relay gave its connection.
    pub id: LineId,
}

/// A device asks for a new certificate.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Whose.
    pub device: DeviceId,
    /// Of the key the certificate is for.
    pub key_digest: Digest,
    /// Its SSH host key from now on, when it sent one.
    pub ssh_host_key: Option<String>,
    /// Last second of the new certificate.
    pub certificate_ends: UnixTime,
    /// Where it asks from.
    pub source: SocketAddr,
}

/// A certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// No such device.
    #[error("the relay does not know this device")]
    Unknown,
    /// Not in a standing to get one.
    #[error("this device is {}", .0.token())]
    Standing(DeviceStatus),
    /// The key belongs to another device.
    #[error("this key belongs to another device")]
    KeyOfAnother,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for RenewalError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&RenewalError> for Refused {
    fn from(error: &RenewalError) -> Self {
        let (code, remedy) = match error {
            RenewalError::Unknown => (Code::UnknownIdentity, "enrol it with a new token"),
            RenewalError::Standing(DeviceStatus::Decommissioned) => {
                (Code::Decommissioned, "enrol it with a new token and a new key")
            }
            RenewalError::Standing(_) => {
                (Code::Quarantined, "an administrator can make it active again")
            }
            RenewalError::KeyOfAnother => (Code::BadRequest, "make a key of its own"),
            RenewalError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// Keeps that a line is up, and records it.
    ///
    /// # Errors
    /// [`StoreError`]: the line must not be admitted.
    pub async fn note_line_up(&self, up: LineUp) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.line_up(&up).await })).await
    }

    /// Keeps where a line's device is now. Not recorded: devices move.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_line_moved(
        &self,
        device: DeviceId,
        id: LineId,
        address: SocketAddr,
    ) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.line_moved(device, id, address).await }))
            .await
    }

    /// The lines that were up when the relay was killed, and are not any more. Asked before there
    /// are others.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_left_lines(&self) -> Result<Vec<LeftLine>, StoreError> {
        self.write(|tx| Box::pin(async move { tx.take_left_lines().await })).await
    }

    /// Keeps when and why a line ended, and records it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_line_down(&self, down: LineDown) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.line_down(&down).await })).await
    }

    /// Keeps what a new certificate will be for, and records it; the certificate is handed out
    /// after this. Until the device has used a new key, both keys are its own: the answer may be
    /// lost.
    ///
    /// # Errors
    /// [`RenewalError`]: the certificate must not be handed out.
    pub async fn note_renewal(&self, renewal: Renewal) -> Result<(), RenewalError> {
        self.write(move |tx| Box::pin(async move { tx.renewal(&renewal).await })).await
    }
}

impl Tx {
    async fn line_up(&mut self, up: &LineUp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE devices SET last_seen = $2, hostname = $3, platform = $4, software = $5
             WHERE id = $1",
        )
        .bind(up.device.as_bytes().as_slice())
        .bind(seconds(up.at))
        .bind(&up.hostname)
        .bind(&up.platform)
        .bind(&up.software)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        sqlx::query(
            "UPDATE devices SET key_digest = $2, next_key_digest = NULL
             WHERE id = $1 AND next_key_digest = $2",
        )
        .bind(up.device.as_bytes().as_slice())
        .bind(up.key_digest.as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        match up.id {
            Some(LineId(id)) => {
                sqlx::query(
                    "INSERT INTO lines (device, address, id) VALUES ($1, $2, $3)
                     ON CONFLICT (device) DO UPDATE SET address = excluded.address, id = excluded.id",
                )
                .bind(up.device.as_bytes().as_slice())
                .bind(up.source.to_string())
                .bind(id.as_slice().to_owned())
                .execute(&mut self.conn)
                .await
                .map_err(doing())?;
            }
            None => {
                sqlx::query("DELETE FROM lines WHERE device = $1")
                    .bind(up.device.as_bytes().as_slice())
                    .execute(&mut self.conn)
                    .await
                    .map_err(doing())?;
            }
        }
        let event = Event::new(EventKind::LineUp).device(up.device).source(up.source);
        self.append(&event.detail(&up.detail)).await
    }

    async fn line_moved(
        &mut self,
        device: DeviceId,
        LineId(id): LineId,
        address: SocketAddr,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE lines SET address = $3 WHERE device = $1 AND id = $2")
            .bind(device.as_bytes().as_slice())
            .bind(id.as_slice().to_owned())
            .bind(address.to_string())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        Ok(())
    }

    async fn take_left_lines(&mut self) -> Result<Vec<LeftLine>, StoreError> {
        let rows = sqlx::query("SELECT device, address, id FROM lines")
            .fetch_all(&mut self.conn)
            .await
            .map_err(doing())?;
        let mut left = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: &[u8] = column(row, "id")?;
            left.push(LeftLine {
                device: device_id(column(row, "device")?)?,
                address: parse(column(row, "address")?, "a line's address")?,
                id: LineId(id.try_into().map_err(|_| StoreError::Unreadable("a line's id"))?),
            });
        }
        sqlx::query(
            "UPDATE devices SET last_end = 'the relay was killed'
             WHERE id IN (SELECT device FROM lines)",
        )
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        sqlx::query("DELETE FROM lines").execute(&mut self.conn).await.map_err(doing())?;
        Ok(left)
    }

    async fn line_down(&mut self, down: &LineDown) -> Result<(), StoreError> {
        let event = Event::new(EventKind::LineDown)
            .device(down.device)
            .source(down.source)
            .detail(&down.reason);
        sqlx::query("UPDATE devices SET last_seen = $2, last_end = $3 WHERE id = $1")
            .bind(down.device.as_bytes().as_slice())
            .bind(seconds(down.last_seen))
            .bind(event.detail.as_deref())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        // By its own id: a late end of an older line is not the end of a newer one.
        if let Some(LineId(id)) = down.id {
            sqlx::query("DELETE FROM lines WHERE device = $1 AND id = $2")
                .bind(down.device.as_bytes().as_slice())
                .bind(id.as_slice().to_owned())
                .execute(&mut self.conn)
                .await
                .map_err(doing())?;
        }
        self.append(&event).await
    }

    async fn renewal(&mut self, new: &Renewal) -> Result<(), RenewalError> {
        let device = self.device(new.device).await?.ok_or(RenewalError::Unknown)?;
        if device.status != DeviceStatus::Active {
            return Err(RenewalError::Standing(device.status));
        }
        let holder =
            sqlx::query("SELECT id FROM devices WHERE key_digest = $1 OR next_key_digest = $1")
                .bind(new.key_digest.as_slice())
                .fetch_optional(&mut self.conn)
                .await
                .map_err(doing())?;
        if let Some(row) = holder
            && device_id(column(&row, "id")?)? != device.id
        {
            return Err(RenewalError::KeyOfAnother);
        }
        let next = (new.key_digest != device.key_digest).then_some(new.key_digest.as_slice());
        sqlx::query(
            "UPDATE devices SET next_key_digest = $2, certificate_ends = $3, ssh_host_key = $4
             WHERE id = $1",
        )
        .bind(device.id.as_bytes().as_slice())
        .bind(next)
        .bind(seconds(new.certificate_ends))
        .bind(new.ssh_host_key.as_ref().unwrap_or(&device.ssh_host_key))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let detail = format!(
            "until {}{}",
            date(new.certificate_ends),
            if next.is_some() { ", for a new key" } else { "" }
        );
        let event = Event::new(EventKind::Renewed).device(device.id).source(new.source);
        Ok(self.append(&event.detail(&detail)).await?)
    }
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("keep a device's state")
}
