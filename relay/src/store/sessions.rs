//! Sessions from their grant to their end, over every stream they have.
//!
//! Its law: a session's row and the event that says what became of it are one transaction; a
//! session is closed once, whoever says so first; what is closed stays closed. A row outlives the
//! relay's process, so a session does. What it is not: it does not know which sessions have a
//! stream now (that is the registry's).

use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::names::Login;
use belay_proto::time::UnixTime;
use belay_proto::wire::open::Join;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{column, count, device_id, parse, seconds, session_id, time, user_id};
use super::writer::{Fails, Tx};
use super::{Change, Event, EventKind, Store, StoreError};

macro_rules! columns {
    () => {
        "id, user_id, device, login, kind, actions, opened, ends, closed, why, attachments, stream,
         bytes_up, bytes_down, killed, break_glass, joins, joins_terminal, joins_read_only"
    };
}

/// What [`record`] reads.
pub(super) const COLUMNS: &str = columns!();

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM sessions ", $rest)
    };
}

/// One session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// As which account there.
    pub login: Login,
    /// What it carries ([`belay_proto::wire::open::kind`]).
    pub kind: String,
    /// What was granted, by [`belay_proto::policy::Action::token`].
    pub actions: Vec<String>,
    /// When it was granted.
    pub opened: UnixTime,
    /// Its last second.
    pub ends: UnixTime,
    /// Why it is over, once it is.
    pub over: Option<Over>,
    /// How many attachments it has had.
    pub attachments: u64,
    /// The number of its present stream: how often another client took it over.
    pub stream: u32,
    /// What passed over those that have ended.
    pub passed: Passed,
    /// Who ended it for good and why, one line, when somebody did. It is over, or about to be.
    pub killed: Option<String>,
    /// Why its user broke the glass, when they did ([`belay_proto::policy::BreakGlass`]).
    pub break_glass: Option<String>,
    /// The terminal of another session that it joins.
    pub joins: Option<Join>,
}

/// How a session came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// When.
    pub at: UnixTime,
    /// One line for its user.
    pub why: String,
}

/// Bytes passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// To the device.
    pub up: u64,
    /// From it.
    pub down: u64,
}

/// How a session ends, or one stream of it.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Which.
    pub session: SessionId,
    /// What passed over the stream that ended.
    pub passed: Passed,
    /// One line for its user.
    pub why: String,
    /// For the record.
    pub event: Event,
}

/// Which open sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// A person's.
    User(UserId),
    /// A device's.
    Device(DeviceId),
    /// This one.
    One(SessionId),
    /// Those that join another.
    Joining,
    /// Those that had to end before this.
    DueBefore(UnixTime),
}

/// A session was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSessionError {
    /// The device has [`DEVICE_SESSIONS`], attached or not.
    #[error("the device has all the sessions it takes")]
    DeviceFull,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for OpenSessionError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl Store {
    /// Opens a session, with its first stream, and records it; before that, that somebody breaks the
    /// glass for it, when they do.
    ///
    /// # Errors
    /// [`OpenSessionError`]: the device must not hear of it.
    pub async fn open_session(
        &self,
        new: SessionRecord,
        event: Event,
    ) -> Result<(), OpenSessionError> {
        self.write(move |tx| Box::pin(async move { tx.open_session(&new, &event).await })).await
    }

    /// The same of a session that joins another; `joined` is what stands in the record of that one.
    ///
    /// # Errors
    /// As [`Self::open_session`].
    pub async fn join_session(
        &self,
        new: SessionRecord,
        event: Event,
        joined: Event,
    ) -> Result<(), OpenSessionError> {
        self.write(move |tx| {
            Box::pin(async move {
                tx.open_session(&new, &event).await?;
                Ok(tx.append(&joined).await?)
            })
        })
        .await
    }

    /// The session with this id, open or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        by_id(&mut conn, id).await
    }

    /// Records that a session gets another stream. `false` when it is not open any more: it must
    /// not get one, and nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError`]: it must not get one.
    pub async fn resume_session(&self, id: SessionId, event: Event) -> Result<bool, StoreError> {
        self.write(move |tx| Box::pin(async move { tx.resume_session(id, &event).await })).await
    }

    /// Records that another client takes a session over; the number of its stream from now on.
    /// `None` when it is not open any more: nobody may take it, and nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError`]: nobody may take it.
    pub async fn take_over_session(
        &self,
        id: SessionId,
        event: Event,
    ) -> Result<Option<u32>, StoreError> {
        self.write(move |tx| Box::pin(async move { tx.take_over_session(id, &event).await })).await
    }

    /// The device did not give the session this stream: the one before it is the present one
    /// again, unless there is a later one by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_back_session(&self, id: SessionId, stream: u32) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.give_back_session(id, stream).await })).await
    }

    /// Records that a session lost its stream. One that was closed meanwhile only gets its bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn detach_session(&self, ending: Ending) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.detach_session(&ending).await })).await
    }

    /// Closes a session and records it. Says whether it was open: one that was closed before only
    /// gets the bytes, and one that is unknown nothing.
    ///
    /// # Errors
    /// [`StoreError`]; it is still open then.
    pub async fn close_session(&self, ending: Ending) -> Result<bool, StoreError> {
        self.write(move |tx| Box::pin(async move { tx.close_session(&ending).await })).await
    }

    /// Records that somebody ends a session for good, and why: `line` is what is told of it from now
    /// on. Says whether it did: one that is over, or was killed before, stays as it is, and nothing
    /// is recorded. Whoever holds it hears of it by [`Change::SessionKilled`], and closes it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has happened then.
    pub async fn kill_session(
        &self,
        id: SessionId,
        line: String,
        event: Event,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| Box::pin(async move { tx.kill_session(id, &line, &event).await }))
            .await
    }

    /// Records that a session was refused. If it had been opened already, because the refusal is
    /// the device's, it is closed with that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refuse_session(
        &self,
        id: SessionId,
        why: String,
        event: Event,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                tx.shut(id, event.at, &why).await?;
                tx.append(&event).await
            })
        })
        .await
    }

    /// Open sessions, oldest first. Takes about 300 bytes of memory a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_sessions(&self, whose: Whose) -> Result<Vec<SessionRecord>, StoreError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        open_of(&mut conn, whose).await
    }
}

impl Tx {
    async fn open_session(
        &mut self,
        new: &SessionRecord,
        event: &Event,
    ) -> Result<(), OpenSessionError> {
        let row = sqlx::query(
            "SELECT count(*) AS open FROM sessions WHERE closed IS NULL AND device = $1",
        )
        .bind(new.device.as_bytes().as_slice())
        .fetch_one(&mut self.conn)
        .await
        .map_err(doing())?;
        if column::<i64>(&row, "open")? >= count(DEVICE_SESSIONS as u64) {
            return Err(OpenSessionError::DeviceFull);
        }
        sqlx::query(
            "INSERT INTO sessions (id, user_id, device, login, kind, actions, opened, ends, break_glass,
                                   joins, joins_terminal, joins_read_only)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(new.id.as_bytes().as_slice())
        .bind(new.user.as_bytes().as_slice())
        .bind(new.device.as_bytes().as_slice())
        .bind(new.login.as_str())
        .bind(&new.kind)
        .bind(new.actions.join(" "))
        .bind(seconds(new.opened))
        .bind(seconds(new.ends))
        .bind(new.break_glass.as_deref())
        .bind(new.joins.as_ref().map(|join| join.session.as_bytes().to_vec()))
        .bind(new.joins.as_ref().and_then(|join| join.terminal).map(i64::from))
        .bind(new.joins.as_ref().map(|join| i64::from(!join.may_type())))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        if let Some(reason) = &new.break_glass {
            let alarm = Event { kind: EventKind::BreakGlass, detail: None, ..event.clone() };
            self.append(&alarm.detail(reason)).await?;
        }
        Ok(self.append(event).await?)
    }

    async fn resume_session(&mut self, id: SessionId, event: &Event) -> Result<bool, StoreError> {
        let resumed = sqlx::query(
            "UPDATE sessions SET attachments = attachments + 1 WHERE id = $1 AND closed IS NULL",
        )
        .bind(id.as_bytes().as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let open = resumed.rows_affected() > 0;
        if open {
            self.append(event).await?;
        }
        Ok(open)
    }

    async fn take_over_session(
        &mut self,
        id: SessionId,
        event: &Event,
    ) -> Result<Option<u32>, StoreError> {
        let taken = sqlx::query(
            "UPDATE sessions SET attachments = attachments + 1, stream = stream + 1
             WHERE id = $1 AND closed IS NULL",
        )
        .bind(id.as_bytes().as_slice())
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        if taken.rows_affected() == 0 {
            return Ok(None);
        }
        self.append(event).await?;
        Ok(by_id(&mut self.conn, id).await?.map(|session| session.stream))
    }

    async fn give_back_session(&mut self, id: SessionId, stream: u32) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE sessions SET attachments = attachments - 1, stream = stream - 1
             WHERE id = $1 AND stream = $2 AND stream > 0",
        )
        .bind(id.as_bytes().as_slice())
        .bind(i64::from(stream))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(())
    }

    async fn detach_session(&mut self, ending: &Ending) -> Result<(), StoreError> {
        self.add_bytes(ending.session, ending.passed).await?;
        let open = by_id(&mut self.conn, ending.session).await?;
        if open.is_some_and(|session| session.over.is_none()) {
            self.append(&ending.event).await?;
        }
        Ok(())
    }

    async fn close_session(&mut self, ending: &Ending) -> Result<bool, StoreError> {
        self.add_bytes(ending.session, ending.passed).await?;
        let closed = self.shut(ending.session, ending.event.at, &ending.why).await?;
        if closed {
            self.append(&ending.event).await?;
        }
        Ok(closed)
    }

    async fn kill_session(
        &mut self,
        id: SessionId,
        line: &str,
        event: &Event,
    ) -> Result<bool, StoreError> {
        let killed = sqlx::query(
            "UPDATE sessions SET killed = $2 WHERE id = $1 AND closed IS NULL AND killed IS NULL",
        )
        .bind(id.as_bytes().as_slice())
        .bind(line)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let was_open = killed.rows_affected() > 0;
        if was_open {
            self.append(event).await?;
            self.announce(Change::SessionKilled(id));
        }
        Ok(was_open)
    }

    async fn add_bytes(&mut self, id: SessionId, passed: Passed) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE sessions SET bytes_up = bytes_up + $2, bytes_down = bytes_down + $3
             WHERE id = $1",
        )
        .bind(id.as_bytes().as_slice())
        .bind(count(passed.up))
        .bind(count(passed.down))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(())
    }

    /// Marks it closed; `false` when it was, or is unknown.
    pub(super) async fn shut(
        &mut self,
        id: SessionId,
        at: UnixTime,
        why: &str,
    ) -> Result<bool, StoreError> {
        let shut = sqlx::query(
            "UPDATE sessions SET closed = $2, why = $3 WHERE id = $1 AND closed IS NULL",
        )
        .bind(id.as_bytes().as_slice())
        .bind(seconds(at))
        .bind(why)
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        Ok(shut.rows_affected() > 0)
    }
}

impl SessionRecord {
    /// An event of this session, its user, device and login named.
    pub fn event(&self, kind: EventKind) -> Event {
        Event::new(kind)
            .user(self.user)
            .device(self.device)
            .session(self.id)
            .login(self.login.clone())
    }
}

pub(super) async fn by_id(
    conn: &mut SqliteConnection,
    id: SessionId,
) -> Result<Option<SessionRecord>, StoreError> {
    let row = sqlx::query(select!("WHERE id = $1"))
        .bind(id.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(doing())?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn open_of(
    conn: &mut SqliteConnection,
    whose: Whose,
) -> Result<Vec<SessionRecord>, StoreError> {
    let query = match &whose {
        Whose::All => sqlx::query(select!("WHERE closed IS NULL ORDER BY opened, id")),
        Whose::User(user) => {
            sqlx::query(select!("WHERE closed IS NULL AND user_id = $1 ORDER BY opened, id"))
                .bind(user.as_bytes().as_slice())
        }
        Whose::Device(device) => {
            sqlx::query(select!("WHERE closed IS NULL AND device = $1 ORDER BY opened, id"))
                .bind(device.as_bytes().as_slice())
        }
        Whose::One(id) => {
            sqlx::query(select!("WHERE closed IS NULL AND id = $1")).bind(id.as_bytes().as_slice())
        }
        Whose::Joining => {
            sqlx::query(select!("WHERE closed IS NULL AND joins IS NOT NULL ORDER BY opened, id"))
        }
        Whose::DueBefore(at) => {
            sqlx::query(select!("WHERE closed IS NULL AND ends < $1 ORDER BY opened, id"))
                .bind(seconds(*at))
        }
    };
    let rows = query.fetch_all(conn).await.map_err(doing())?;
    rows.iter().map(record).collect()
}

pub(super) fn record(row: &SqliteRow) -> Result<SessionRecord, StoreError> {
    let actions: &str = column(row, "actions")?;
    let closed: Option<i64> = column(row, "closed")?;
    let why: Option<String> = column(row, "why")?;
    let number = |name| {
        let value: i64 = column(row, name)?;
        u64::try_from(value).map_err(|_| StoreError::Unreadable(name))
    };
    Ok(SessionRecord {
        id: session_id(column(row, "id")?)?,
        user: user_id(column(row, "user_id")?)?,
        device: device_id(column(row, "device")?)?,
        login: parse(column(row, "login")?, "a session's login")?,
        kind: column(row, "kind")?,
        actions: actions.split_whitespace().map(str::to_owned).collect(),
        opened: time(column(row, "opened")?)?,
        ends: time(column(row, "ends")?)?,
        over: match closed {
            Some(at) => Some(Over { at: time(at)?, why: why.unwrap_or_default() }),
            None => None,
        },
        attachments: number("attachments")?,
        stream: u32::try_from(number("stream")?).map_err(|_| StoreError::Unreadable("stream"))?,
        passed: Passed { up: number("bytes_up")?, down: number("bytes_down")? },
        killed: column(row, "killed")?,
        break_glass: column(row, "break_glass")?,
        joins: joins(row)?,
    })
}

fn joins(row: &SqliteRow) -> Result<Option<Join>, StoreError> {
    let Some(session) = column::<Option<&[u8]>>(row, "joins")? else { return Ok(None) };
    let terminal = column::<Option<i64>>(row, "joins_terminal")?.map(u32::try_from).transpose();
    let read_only = column::<Option<i64>>(row, "joins_read_only")?;
    Ok(Some(Join {
        session: session_id(session)?,
        terminal: terminal.map_err(|_| StoreError::Unreadable("joins_terminal"))?,
        // What cannot be told may not type.
        read_only: (read_only != Some(0)).then_some(true),
    }))
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change sessions")
}
