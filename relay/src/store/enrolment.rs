//! Taking a device in: the token's use, the name and the record are one operation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use belay_proto::api::DeviceStatus;
use belay_proto::ids::DeviceId;
use belay_proto::names::{DeviceName, LabelKey, LabelValue};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use uuid::Uuid;

use super::devices::reads_as_id;
use super::rows::{Digest, column, device_id, json, parse, seconds, time};
use super::tokens::{NamePattern, short};
use super::writer::{Fails, Tx};
use super::{Event, EventKind, Store, StoreError};
use crate::span::plain;

/// How the new device's name comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameWish {
    /// Somebody chose it: this or none.
    Exactly(DeviceName),
    /// Derived from the host name: this, or with `-2`, `-3`, … behind it.
    Like(DeviceName),
}

/// A device that wants in, everything about it already checked but its token.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Of the token's secret.
    pub token: Digest,
    /// Of its key.
    pub key_digest: Digest,
    /// Its name.
    pub wish: NameWish,
    /// OpenSSH one-line form.
    pub ssh_host_key: String,
    /// Device-supplied, printable.
    pub hostname: String,
    /// Device-supplied, printable.
    pub platform: String,
    /// Device-supplied, printable.
    pub software: String,
    /// The relay's wall clock.
    pub now: UnixTime,
    /// Last second of the certificate it will get.
    pub certificate_ends: UnixTime,
    /// Where it asks from.
    pub source: SocketAddr,
    /// More for the record.
    pub note: String,
}

/// A device that is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// It was in already, by the same key and the same token: its first answer was lost.
    pub again: bool,
}

/// A device was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No such token.
    #[error("this relay knows no such token")]
    UnknownToken,
    /// Too late.
    #[error("this token ended {} ago", plain(*.0))]
    Expired(Duration),
    /// Used as often as allowed.
    #[error("this token has no uses left")]
    UsedUp,
    /// The token does not allow the name.
    #[error("the token allows names like \"{pattern}\"; this device's would be \"{name}\"")]
    NotOfPattern {
        /// What the name would be.
        name: DeviceName,
        /// What the token allows.
        pattern: NamePattern,
    },
    /// Another device has it.
    #[error("another device is named \"{0}\"")]
    NameTaken(DeviceName),
    /// The name reads as an id.
    #[error("\"{0}\" reads as a device's id and cannot be a name")]
    NameIsId(DeviceName),
    /// The key is in the store already.
    #[error("this key is enrolled already, as device \"{0}\" ({status})", status = .1.token())]
    KeyKnown(DeviceName, DeviceStatus),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for EnrolError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&EnrolError> for Refused {
    fn from(error: &EnrolError) -> Self {
        const NEW_TOKEN: &str = "ask an administrator for a new one (belay token create)";
        let (code, remedy) = match error {
            EnrolError::UnknownToken => (Code::WrongSecret, NEW_TOKEN),
            EnrolError::Expired(_) => (Code::TokenExpired, NEW_TOKEN),
            EnrolError::UsedUp => (Code::TokenUsedUp, NEW_TOKEN),
            EnrolError::NotOfPattern { .. } => {
                (Code::Name, "give it a name that fits with --name, or use another token")
            }
            EnrolError::NameTaken(_) => (
                Code::Name,
                "choose another with --name, or have that device renamed or decommissioned",
            ),
            EnrolError::NameIsId(_) => (Code::Name, "choose another with --name"),
            EnrolError::KeyKnown(..) => (
                Code::BadRequest,
                "it needs no second enrolment; to make it a new device, remove its state first",
            ),
            EnrolError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// Takes a device in, uses the token once, and records it. The same key with the same token a
    /// second time is answered like the first and uses nothing: its answer may have been lost.
    ///
    /// # Errors
    /// [`EnrolError`]; the token is not used then.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Enrolled, EnrolError> {
        self.write(move |tx| Box::pin(async move { tx.enrol(&enrolment).await })).await
    }
}

struct Token {
    uses_left: i64,
    pattern: Option<NamePattern>,
    labels: BTreeMap<LabelKey, LabelValue>,
}

impl Tx {
    async fn enrol(&mut self, new: &Enrolment) -> Result<Enrolled, EnrolError> {
        let token = self.token(&new.token, new.now).await?;
        if let Some(device) = self.of_this_key(new).await? {
            return Ok(device);
        }
        if token.uses_left < 1 {
            return Err(EnrolError::UsedUp);
        }
        let name = self.name_for(&new.wish, token.pattern.as_ref()).await?;
        let id = DeviceId::from_uuid(Uuid::now_v7());
        self.insert(id, &name, new).await?;
        for (key, value) in &token.labels {
            self.set_label(id, key, value).await?;
        }
        sqlx::query("UPDATE tokens SET uses_left = uses_left - 1 WHERE digest = $1")
            .bind(new.token.as_slice())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        self.append(&event(id, &name, new, "")).await?;
        Ok(Enrolled { id, name, again: false })
    }

    async fn token(&mut self, digest: &Digest, now: UnixTime) -> Result<Token, EnrolError> {
        let row = sqlx::query(
            "SELECT expires, uses_left, name_pattern, labels FROM tokens WHERE digest = $1",
        )
        .bind(digest.as_slice())
        .fetch_optional(&mut self.conn)
        .await
        .map_err(doing())?
        .ok_or(EnrolError::UnknownToken)?;
        let expires = time(column(&row, "expires")?)?;
        if now > expires {
            return Err(EnrolError::Expired(now.distance(expires)));
        }
        let pattern: Option<&str> = column(&row, "name_pattern")?;
        Ok(Token {
            uses_left: column(&row, "uses_left")?,
            pattern: pattern.map(|text| parse(text, "a name pattern")).transpose()?,
            labels: json(column(&row, "labels")?, "a token's labels")?,
        })
    }

    async fn of_this_key(&mut self, new: &Enrolment) -> Result<Option<Enrolled>, EnrolError> {
        let row = sqlx::query(
            "SELECT id, token FROM devices WHERE key_digest = $1 OR next_key_digest = $1",
        )
        .bind(new.key_digest.as_slice())
        .fetch_optional(&mut self.conn)
        .await
        .map_err(doing())?;
        let Some(row) = row else { return Ok(None) };
        let token: &[u8] = column(&row, "token")?;
        let Some(known) = self.device(device_id(column(&row, "id")?)?).await? else {
            return Ok(None);
        };
        if token != new.token || known.status != DeviceStatus::Active {
            return Err(EnrolError::KeyKnown(known.name, known.status));
        }
        sqlx::query("UPDATE devices SET ssh_host_key = $2, certificate_ends = $3 WHERE id = $1")
            .bind(known.id.as_bytes().as_slice())
            .bind(&new.ssh_host_key)
            .bind(seconds(new.certificate_ends))
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        self.append(&event(known.id, &known.name, new, ", again by the same key")).await?;
        Ok(Some(Enrolled { id: known.id, name: known.name, again: true }))
    }

    async fn name_for(
        &mut self,
        wish: &NameWish,
        pattern: Option<&NamePattern>,
    ) -> Result<DeviceName, EnrolError> {
        let allowed = |name: &DeviceName| pattern.is_none_or(|pattern| pattern.allows(name));
        let only = pattern.and_then(NamePattern::only_name);
        let (name, derived) = match (wish, only) {
            (NameWish::Like(_), Some(only)) => (only, false),
            (NameWish::Like(name), None) => (name.clone(), true),
            (NameWish::Exactly(name), _) => (name.clone(), false),
        };
        if let (Some(pattern), false) = (pattern, allowed(&name)) {
            return Err(EnrolError::NotOfPattern { name, pattern: pattern.clone() });
        }
        if reads_as_id(&name) {
            return Err(EnrolError::NameIsId(name));
        }
        if !self.name_is_taken(&name).await? {
            return Ok(name);
        }
        if derived
            && let Some(free) = self.numbered(&name).await?
            && allowed(&free)
        {
            return Ok(free);
        }
        Err(EnrolError::NameTaken(name))
    }

    /// A free name `stem-N`. Looks at N = 2, 4, 8, … until one is free and then between that and
    /// the last taken: a few dozen look-ups where a fleet shares one host name, not thousands.
    async fn numbered(&mut self, name: &DeviceName) -> Result<Option<DeviceName>, StoreError> {
        const MOST: u32 = 1 << 24;
        let (mut taken, mut free) = (1, 2);
        while self.number_is_taken(name, free).await? {
            (taken, free) = (free, free * 2);
            if free > MOST {
                return Ok(None);
            }
        }
        while free - taken > 1 {
            let middle = taken + (free - taken) / 2;
            if self.number_is_taken(name, middle).await? {
                taken = middle;
            } else {
                free = middle;
            }
        }
        Ok(with_number(name, free))
    }

    async fn number_is_taken(&mut self, name: &DeviceName, n: u32) -> Result<bool, StoreError> {
        match with_number(name, n) {
            Some(name) => self.name_is_taken(&name).await,
            None => Ok(true),
        }
    }

    async fn insert(
        &mut self,
        id: DeviceId,
        name: &DeviceName,
        new: &Enrolment,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO devices (id, name, status, enrolled, token, key_digest, ssh_host_key,
                                  hostname, platform, software, certificate_ends)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(name.as_str())
        .bind(DeviceStatus::Active.token())
        .bind(seconds(new.now))
        .bind(new.token.as_slice())
        .bind(new.key_digest.as_slice())
        .bind(&new.ssh_host_key)
        .bind(&new.hostname)
        .bind(&new.platform)
        .bind(&new.software)
        .bind(seconds(new.certificate_ends))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(())
    }
}

fn event(id: DeviceId, name: &DeviceName, new: &Enrolment, more: &str) -> Event {
    let detail = format!("{name} by token {}{more}{}", short(&new.token), new.note);
    Event::new(EventKind::Enrolled).device(id).source(new.source).detail(&detail)
}

/// `stem-N`, the stem cut so that it stays a DNS label.
fn with_number(name: &DeviceName, n: u32) -> Option<DeviceName> {
    let tail = format!("-{n}");
    let stem: String = name.as_str().chars().take(63 - tail.len()).collect();
    format!("{}{tail}", stem.trim_end_matches('-')).parse().ok()
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("enrol a device")
}
