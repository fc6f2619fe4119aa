//! One-time login codes: how a person sets their password. And the sweep of what is long over.

use std::net::SocketAddr;
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_proto::ids::UserId;
use belay_proto::names::UserName;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use tokio_util::sync::CancellationToken;

use super::rows::{Digest, column, seconds, time};
use super::users::{PasswordHash, UserRecord, by_name, record};
use super::writer::{Fails, Tx};
use super::{Actor, Event, EventKind, Store, StoreError, UserError};
use crate::span::{date, plain};

/// Ended tokens and codes are kept this long, so that whoever comes late is told so.
const KEPT_AFTER_END: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often to remove them.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A code to be made.
#[derive(Debug, Clone)]
pub struct LoginCode {
    /// Of its secret.
    pub digest: Digest,
    /// Last second it is good for.
    pub expires: UnixTime,
}

/// A code does not let anybody in.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// No such code.
    #[error("this relay knows no such login code")]
    Unknown,
    /// Too late.
    #[error("this login code ended {} ago", plain(*.0))]
    Expired(Duration),
    /// Used once, or replaced by a newer one.
    #[error("this login code was used already, or a newer one has replaced it")]
    Used,
    /// Its person is disabled.
    #[error("your account is disabled")]
    Disabled(UserId),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fails for CodeError {
    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

impl From<&CodeError> for Refused {
    fn from(error: &CodeError) -> Self {
        const NEW_CODE: &str = "ask an administrator for a new one";
        let (code, remedy) = match error {
            CodeError::Unknown => (Code::WrongSecret, NEW_CODE),
            CodeError::Expired(_) => (Code::TokenExpired, NEW_CODE),
            CodeError::Used => (
                Code::TokenUsedUp,
                "if you used it, log in with your name and password; otherwise tell an \
                 administrator at once and ask for a new one",
            ),
            CodeError::Disabled(_) => (Code::UserDisabled, "ask an administrator"),
            CodeError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl Store {
    /// Whose the code is, if it would let them in now. Uses nothing.
    ///
    /// # Errors
    /// [`CodeError`].
    pub async fn check_code(&self, code: Digest, now: UnixTime) -> Result<UserRecord, CodeError> {
        let mut conn = self.readers().acquire().await.map_err(doing())?;
        holder(&mut conn, &code, now).await
    }

    /// Uses the code up, sets the password, and records the login.
    ///
    /// # Errors
    /// [`CodeError`]; the password is what it was then.
    pub async fn redeem_code(
        &self,
        code: Digest,
        password: PasswordHash,
        now: UnixTime,
        source: SocketAddr,
    ) -> Result<UserRecord, CodeError> {
        self.write(move |tx| {
            Box::pin(async move { tx.redeem(&code, &password, now, source).await })
        })
        .await
    }

    /// Makes a new code for somebody, in place of any they hold, and records it.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn new_code(
        &self,
        name: UserName,
        code: LoginCode,
        by: Actor,
    ) -> Result<UserRecord, UserError> {
        self.write(move |tx| {
            Box::pin(async move {
                let user = by_name(&mut tx.conn, &name)
                    .await?
                    .ok_or_else(|| UserError::Unknown(name.clone()))?;
                tx.add_code(user.id, &name, &code, by).await?;
                Ok(user)
            })
        })
        .await
    }

    /// Sweeps once a day until cancelled.
    pub async fn keep_swept(&self, cancel: CancellationToken) {
        let daily = async {
            loop {
                if let Err(error) = self.sweep(clock::now()).await {
                    tracing::warn!(error = %one_line(&error), "ended tokens are not removed yet");
                }
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        };
        cancel.run_until_cancelled(daily).await;
    }

    /// Removes tokens and codes that ended a month ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self, now: UnixTime) -> Result<(), StoreError> {
        self.write(move |tx| Box::pin(async move { tx.sweep(now).await })).await
    }
}

impl Tx {
    pub(super) async fn add_code(
        &mut self,
        user: UserId,
        name: &UserName,
        code: &LoginCode,
        by: Actor,
    ) -> Result<(), StoreError> {
        let event = by.event(EventKind::CodeCreated);
        self.retire_codes(user, event.at).await?;
        sqlx::query(
            "INSERT INTO login_codes (digest, user_id, created, expires) VALUES ($1, $2, $3, $4)",
        )
        .bind(code.digest.as_slice())
        .bind(user.as_bytes().as_slice())
        .bind(seconds(event.at))
        .bind(seconds(code.expires))
        .execute(&mut self.conn)
        .await
        .map_err(doing())?;
        let detail = format!("for {name} ({user}), until {}{}", date(code.expires), by.describe());
        self.append(&event.detail(&detail)).await
    }

    async fn retire_codes(&mut self, user: UserId, now: UnixTime) -> Result<(), StoreError> {
        sqlx::query("UPDATE login_codes SET used = $2 WHERE user_id = $1 AND used IS NULL")
            .bind(user.as_bytes().as_slice())
            .bind(seconds(now))
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        Ok(())
    }

    async fn redeem(
        &mut self,
        code: &Digest,
        password: &PasswordHash,
        now: UnixTime,
        source: SocketAddr,
    ) -> Result<UserRecord, CodeError> {
        let user = holder(&mut self.conn, code, now).await?;
        self.retire_codes(user.id, now).await?;
        sqlx::query("UPDATE users SET password = $2 WHERE id = $1")
            .bind(user.id.as_bytes().as_slice())
            .bind(password.as_phc())
            .execute(&mut self.conn)
            .await
            .map_err(doing())?;
        let event = Event::new(EventKind::LoggedIn).user(user.id).source(source);
        self.append(&event.detail("by a one-time code; password set")).await?;
        Ok(user)
    }

    async fn sweep(&mut self, now: UnixTime) -> Result<(), StoreError> {
        let before = seconds(now.minus(KEPT_AFTER_END));
        for sql in
            ["DELETE FROM login_codes WHERE expires < $1", "DELETE FROM tokens WHERE expires < $1"]
        {
            sqlx::query(sql).bind(before).execute(&mut self.conn).await.map_err(doing())?;
        }
        Ok(())
    }
}

async fn holder(
    conn: &mut sqlx::sqlite::SqliteConnection,
    code: &Digest,
    now: UnixTime,
) -> Result<UserRecord, CodeError> {
    let row = sqlx::query(
        "SELECT c.expires, c.used, u.id, u.name, u.roles, u.disabled
         FROM login_codes c JOIN users u ON u.id = c.user_id WHERE c.digest = $1",
    )
    .bind(code.as_slice())
    .fetch_optional(conn)
    .await
    .map_err(doing())?
    .ok_or(CodeError::Unknown)?;
    if column::<Option<i64>>(&row, "used")?.is_some() {
        return Err(CodeError::Used);
    }
    let expires = time(column(&row, "expires")?)?;
    if now > expires {
        return Err(CodeError::Expired(now.distance(expires)));
    }
    let user = record(&row)?;
    if user.disabled { Err(CodeError::Disabled(user.id)) } else { Ok(user) }
}

fn doing() -> impl Fn(sqlx::Error) -> StoreError {
    StoreError::during("read or change login codes")
}
