//! Legal holds: what must not be deleted, whatever the rules say.
//!
//! Its law: a hold and its record are one transaction, and a deletion asks for holds inside the
//! transaction of its own record; so nothing is deleted after a hold was acknowledged. A hold is
//! released, never removed. What it is not: it deletes nothing.

use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::names::UserName;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{column, count, device_id, seconds, session_id, time, user_id};
use super::writer::{Fails, Tx};
use super::{Actor, EventKind, SessionRecord, Store, StoreError, devices, sessions, users};

/// Holds in force at a time: each is looked at for every deletion.
const MOST: i64 = 10_000;

/// Released holds that are listed.
const LISTED: i64 = 1000;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, session, device, user_id, reason, placed, placed_by, released, released_by,
                    release_reason
             FROM holds ",
            $rest
        )
    };
}

/// What is held: everything about it that there is and that will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One session.
    Session(SessionId),
    /// A device's sessions.
    Device(DeviceId),
    /// A person's sessions.
    User(UserId),
}

/// What is to be held, as a person names it.
#[derive(Debug, Clone)]
pub enum NewHold {
    /// One session.
    Session(SessionId),
    /// A device's sessions, by its name or id.
    Device(String),
    /// A person's sessions.
    User(UserName),
}

/// A hold as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// Its number.
    pub id: u64,
    /// What is held.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// Since when.
    pub placed: UnixTime,
    /// Who placed it.
    pub placed_by: UserId,
    /// When it ended, by whom and why, once it has.
    pub released: Option<(UnixTime, UserId, String)>,
}

/// A hold was not placed or released.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// There is no such session.
    #[error("the relay knows no session {0}")]
    NoSession(SessionId),
    /// There is no such device.
    #[error("there is no device \"{0}\"")]
    NoDevice(String),
    /// There is no such person.
    #[error("there is no user \"{0}\"")]
    NoUser(UserName),
    /// There is no such hold.
    #[error("there is no hold {0}")]
    Unknown(u64),
    /// It was released before.
    #[error("hold {0} is released already")]
    Released(u64),
    /// There are too many.
    #[error("{MOST} holds are in force, and there can be no more")]
    Full,
    /// Whoever holds the relay's machine has no name to put under it.
    #[error("a hold needs a person who places or releases it")]
    Nobody,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for HoldError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&HoldError> for Refused {
    fn from(error: &HoldError) -> Self {
        let (code, remedy) = match error {
            HoldError::NoSession(_) => (Code::BadRequest, "belay audit tail has sessions' ids"),
            HoldError::NoDevice(_) => (Code::UnknownDevice, "belay devices lists them"),
            HoldError::NoUser(_) => (Code::UnknownIdentity, "check the name"),
            HoldError::Unknown(_) | HoldError::Released(_) => {
                (Code::BadRequest, "belay hold list shows those in force")
            }
            HoldError::Full => (Code::Busy, "release some, or hold a device or a person"),
            HoldError::Nobody => (Code::NotAllowed, "use the belay command"),
            HoldError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// Places a hold and records it.
    ///
    /// # Errors
    /// [`HoldError`]; nothing is held then that was not.
    pub async fn place_hold(
        &self,
        wanted: NewHold,
        reason: String,
        by: Actor,
    ) -> Result<HoldRecord, HoldError> {
        self.write(move |tx| Box::pin(async move { tx.place_hold(wanted, &reason, by).await }))
            .await
    }

    /// Releases a hold and records it.
    ///
    /// # Errors
    /// [`HoldError`]; it is in force still.
    pub async fn release_hold(
        &self,
        id: u64,
        reason: String,
        by: Actor,
    ) -> Result<HoldRecord, HoldError> {
        self.write(move |tx| Box::pin(async move { tx.release_hold(id, &reason, by).await })).await
    }

    /// Holds in force, oldest first, and after them the newest 1,000 that were released.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds(&self) -> Result<Vec<HoldRecord>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        let mut holds = in_force(&mut conn).await?;
        let rows =
            sqlx::query(select!("WHERE released IS NOT NULL ORDER BY released DESC, id LIMIT $1"))
                .bind(LISTED)
                .fetch_all(&mut *conn)
                .await
                .map_err(doing())?;
        for row in &rows {
            holds.push(record(row)?);
        }
        Ok(holds)
    }
}

impl Tx {
    async fn place_hold(
        &mut self,
        wanted: NewHold,
        reason: &str,
        by: Actor,
    ) -> Result<HoldRecord, HoldError> {
        let Actor::User(who, _) = by else { return Err(HoldError::Nobody) };
        if in_force(&mut self.conn).await?.len() as i64 >= MOST {
            return Err(HoldError::Full);
        }
        let event = by.event(EventKind::HoldPlaced);
        let at = event.at;
        let (target, event, of) = match wanted {
            NewHold::Session(id) => {
                let session = sessions::by_id(&mut self.conn, id).await?;
                let session = session.ok_or(HoldError::NoSession(id))?;
                (Target::Session(id), event.session(id).device(session.device), "session".into())
            }
            NewHold::Device(text) => {
                let device = devices::by_name_or_id(&mut self.conn, &text).await?;
                let device = device.ok_or(HoldError::NoDevice(text))?;
                (Target::Device(device.id), event.device(device.id), "sessions on device".into())
            }
            NewHold::User(name) => {
                let user = users::by_name(&mut self.conn, &name).await?;
                let user = user.ok_or_else(|| HoldError::NoUser(name))?;
                (
                    Target::User(user.id),
                    event,
                    format!("sessions of user {} ({})", user.name, user.id),
                )
            }
        };
        let (session, device, user) = columns(&target);
        let placed = sqlx::query(
            "INSERT INTO holds (session, device, user_id, reason, placed, placed_by)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(session)
        .bind(device)
        .bind(user)
        .bind(reason)
        .bind(seconds(at))
        .bind(who.as_bytes().as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let id = u64::try_from(placed.last_insert_rowid()).unwrap_or_default();
        self.append(&event.detail(&format!("hold {id} on {of}: {reason}"))).await?;
        let reason = reason.to_owned();
        Ok(HoldRecord { id, target, reason, placed: at, placed_by: who, released: None })
    }

    async fn release_hold(
        &mut self,
        id: u64,
        reason: &str,
        by: Actor,
    ) -> Result<HoldRecord, HoldError> {
        let Actor::User(who, _) = by else { return Err(HoldError::Nobody) };
        let row = sqlx::query(select!("WHERE id = $1"))
            .bind(count(id))
            .fetch_optional(&mut self.conn)
            .await
            .map_err(doing())?;
        let hold = row.as_ref().map(record).transpose()?.ok_or(HoldError::Unknown(id))?;
        if hold.released.is_some() {
            return Err(HoldError::Released(id));
        }
        let event = by.event(EventKind::HoldReleased);
        let at = event.at;
        sqlx::query(
            "UPDATE holds SET released = $2, released_by = $3, release_reason = $4 WHERE id = $1",
        )
        .bind(count(id))
        .bind(seconds(at))
        .bind(who.as_bytes().as_slice())
        .bind(reason)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let event = match hold.target {
            Target::Session(id) => event.session(id),
            Target::Device(id) => event.device(id),
            Target::User(_) => event,
        };
        let detail = format!("hold {id}: {reason}; it was placed for: {}", hold.reason);
        self.append(&event.detail(&detail)).await?;
        Ok(HoldRecord { released: Some((at, who, reason.to_owned())), ..hold })
    }

    /// The hold that keeps what there is of a session, when one does.
    pub(super) async fn hold_on(
        &mut self,
        id: SessionId,
        session: Option<&SessionRecord>,
    ) -> Result<Option<HoldRecord>, StoreError> {
        let holds = in_force(&mut self.conn).await?;
        let keeps = |hold: &HoldRecord| match hold.target {
            Target::Session(held) => held == id,
            Target::Device(held) => session.is_some_and(|session| session.device == held),
            Target::User(held) => session.is_some_and(|session| session.user == held),
        };
        Ok(holds.into_iter().find(keeps))
    }
}

async fn in_force(conn: &mut SqliteConnection) -> Result<Vec<HoldRecord>, StoreError> {
    let rows = sqlx::query(select!("WHERE released IS NULL ORDER BY id"))
        .fetch_all(conn)
        .await
        .map_err(doing())?;
    rows.iter().map(record).collect()
}

type Columns<'t> = (Option<&'t [u8]>, Option<&'t [u8]>, Option<&'t [u8]>);

fn columns(target: &Target) -> Columns<'_> {
    match target {
        Target::Session(id) => (Some(id.as_bytes()), None, None),
        Target::Device(id) => (None, Some(id.as_bytes()), None),
        Target::User(id) => (None, None, Some(id.as_bytes())),
    }
}

fn record(row: &SqliteRow) -> Result<HoldRecord, StoreError> {
    let bytes = |name| column::<Option<Vec<u8>>>(row, name);
    let target = match (bytes("session")?, bytes("device")?, bytes("user_id")?) {
        (Some(id), None, None) => Target::Session(session_id(&id)?),
        (None, Some(id), None) => Target::Device(device_id(&id)?),
        (None, None, Some(id)) => Target::User(user_id(&id)?),
        _ => return Err(StoreError::Unreadable("a hold")),
    };
    let released: Option<i64> = column(row, "released")?;
    let released = match (released, bytes("released_by")?) {
        (Some(at), Some(by)) => {
            let why: Option<String> = column(row, "release_reason")?;
            Some((time(at)?, user_id(&by)?, why.unwrap_or_default()))
        }
        _ => None,
    };
    let id: i64 = column(row, "id")?;
    Ok(HoldRecord {
        id: u64::try_from(id).map_err(|_| StoreError::Unreadable("a hold's number"))?,
        target,
        reason: column(row, "reason")?,
        placed: time(column(row, "placed")?)?,
        placed_by: user_id(column(row, "placed_by")?)?,
        released,
    })
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change holds")
}
