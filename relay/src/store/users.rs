//! People: who may log in, and with what roles.

use std::fmt;

use belay_proto::api::UserChange;
use belay_proto::ids::UserId;
use belay_proto::names::UserName;
use belay_proto::policy::Role;
use belay_proto::refusal::{Code, Refused};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use super::codes::LoginCode;
use super::rows::{column, json, parse, seconds, to_json, user_id};
use super::writer::{Fails, Tx};
use super::{Actor, Change, EventKind, Store, StoreError};

/// One person as the store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Id.
    pub id: UserId,
    /// Name.
    pub name: UserName,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Disabled people open nothing.
    pub disabled: bool,
}

/// A password, hashed: a PHC string.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps what the hasher made.
    pub const fn from_phc(text: String) -> Self {
        Self(text)
    }

    /// The PHC string.
    pub fn as_phc(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// A person was not added or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none of that name.
    #[error("there is no user \"{0}\"")]
    Unknown(UserName),
    /// The name is taken.
    #[error("there is a user \"{0}\" already")]
    NameTaken(UserName),
    /// Nobody could manage the relay after that.
    #[error("\"{0}\" is the last administrator who is not disabled")]
    LastAdministrator(UserName),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for UserError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&UserError> for Refused {
    fn from(error: &UserError) -> Self {
        let (code, remedy) = match error {
            UserError::Unknown(_) => (Code::UnknownIdentity, "check the name"),
            UserError::NameTaken(_) => (Code::Name, "choose another name"),
            UserError::LastAdministrator(_) => {
                (Code::NotAllowed, "make somebody else an administrator first")
            }
            UserError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// The person with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        let row = sqlx::query("SELECT id, name, roles, disabled FROM users WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(doing())?;
        row.as_ref().map(record).transpose()
    }

    /// The person of this name, with their password's hash when they have set one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_for_login(
        &self,
        name: &UserName,
    ) -> Result<Option<(UserRecord, Option<PasswordHash>)>, StoreError> {
        let row =
            sqlx::query("SELECT id, name, roles, disabled, password FROM users WHERE name = $1")
                .bind(name.as_str())
                .fetch_optional(self.readers())
                .await
                .map_err(doing())?;
        let Some(row) = row else { return Ok(None) };
        let password: Option<String> = column(&row, "password")?;
        Ok(Some((record(&row)?, password.map(PasswordHash))))
    }

    /// Everybody, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        let rows = sqlx::query("SELECT id, name, roles, disabled FROM users ORDER BY name")
            .fetch_all(self.readers())
            .await
            .map_err(doing())?;
        rows.iter().map(record).collect()
    }

    /// Adds a person with a way in, and records both.
    ///
    /// # Errors
    /// [`UserError`]; nobody is added then.
    pub async fn add_user(
        &self,
        name: UserName,
        roles: Vec<Role>,
        code: LoginCode,
        by: Actor,
    ) -> Result<UserId, UserError> {
        self.write(move |tx| Box::pin(async move { tx.add_user(&name, &roles, &code, by).await }))
            .await
    }

    /// Changes a person, makes them a new code when there is one in `code`, and records it.
    ///
    /// # Errors
    /// [`UserError`]; nothing is changed then.
    pub async fn change_user(
        &self,
        name: UserName,
        change: UserChange,
        code: Option<LoginCode>,
        by: Actor,
    ) -> Result<UserRecord, UserError> {
        self.write(move |tx| {
            Box::pin(async move { tx.change_user(name, change, code.as_ref(), by).await })
        })
        .await
    }
}

impl Tx {
    async fn add_user(
        &mut self,
        name: &UserName,
        roles: &[Role],
        code: &LoginCode,
        by: Actor,
    ) -> Result<UserId, UserError> {
        if by_name(&mut self.conn, name).await?.is_some() {
            return Err(UserError::NameTaken(name.clone()));
        }
        let id = UserId::from_uuid(Uuid::now_v7());
        let event = by.event(EventKind::UserAdded);
        let roles = to_json(&roles, "roles")?;
        sqlx::query("INSERT INTO users (id, name, roles, created) VALUES ($1, $2, $3, $4)")
            .bind(id.as_bytes().as_slice())
            .bind(name.as_str())
            .bind(&roles)
            .bind(seconds(event.at))
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        let detail = format!("{name} ({id}) with {roles}{}", by.describe());
        self.append(&event.detail(&detail)).await?;
        self.add_code(id, name, code, by).await?;
        Ok(id)
    }

    async fn change_user(
        &mut self,
        name: UserName,
        change: UserChange,
        code: Option<&LoginCode>,
        by: Actor,
    ) -> Result<UserRecord, UserError> {
        let old = by_name(&mut self.conn, &name)
            .await?
            .ok_or_else(|| UserError::Unknown(name.clone()))?;
        let new = UserRecord {
            roles: change.roles.unwrap_or_else(|| old.roles.clone()),
            disabled: change.disabled.unwrap_or(old.disabled),
            ..old.clone()
        };
        if is_working_admin(&old) && !is_working_admin(&new) && !self.another_admin(&old).await? {
            return Err(UserError::LastAdministrator(name));
        }
        if new != old {
            let roles = to_json(&new.roles, "roles")?;
            sqlx::query("UPDATE users SET roles = $2, disabled = $3 WHERE id = $1")
                .bind(new.id.as_bytes().as_slice())
                .bind(&roles)
                .bind(i64::from(new.disabled))
                .execute(&mut self.conn)
                .await
                .map_err(doing())?;
            let standing = if new.disabled { "disabled" } else { "enabled" };
            let detail = format!("{name} ({}) {standing} with {roles}", new.id);
            self.append(&by.event(EventKind::UserChanged).detail(&detail)).await?;
        }
        if new.disabled && !old.disabled {
            self.announce(Change::UserDisabled(new.id));
        }
        if new.roles != old.roles {
            self.announce(Change::UserRoles(new.id));
        }
        if let Some(code) = code {
            self.add_code(new.id, &name, code, by).await?;
        }
        Ok(new)
    }

    async fn another_admin(&mut self, but: &UserRecord) -> Result<bool, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, roles, disabled FROM users WHERE disabled = 0 AND id <> $1",
        )
        .bind(but.id.as_bytes().as_slice())
        .fetch_all(&mut self.conn)
        .await
        .map_err(doing())?;
        for row in &rows {
            if is_working_admin(&record(row)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_working_admin(user: &UserRecord) -> bool {
    !user.disabled && user.roles.contains(&Role::Administrator)
}

pub(super) async fn by_name(
    conn: &mut SqliteConnection,
    name: &UserName,
) -> Result<Option<UserRecord>, StoreError> {
    let row = sqlx::query("SELECT id, name, roles, disabled FROM users WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(conn)
        .await
        .map_err(doing())?;
    row.as_ref().map(record).transpose()
}

pub(super) fn record(row: &SqliteRow) -> Result<UserRecord, StoreError> {
    Ok(UserRecord {
        id: user_id(column(row, "id")?)?,
        name: parse(column(row, "name")?, "a user's name")?,
        roles: json(column(row, "roles")?, "roles")?,
        disabled: column::<i64>(row, "disabled")? != 0,
    })
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change users")
}
