//! Letting a person in: a one-time code once, name and password after that, for the day's
//! certificates.
//!
//! Its law: an unknown name, a wrong password and a person without one cost the same time and get
//! the same answer; nobody can lock somebody else out (`known_sources`); every refusal is recorded.

mod known_sources;
mod password;

use std::net::SocketAddr;

use belay_proto::api::{LoginAnswer, LoginProof, LoginRequest};
use belay_proto::ids::UserId;
use belay_proto::limits::MAX_CLOCK_SKEW;
use belay_proto::names::UserName;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::token::Secret;
use belay_tunnel::clock;

use crate::api::Api;
use crate::ca::{self, Authority, IssueError};
use crate::config;
use crate::rate::{Each, Source, TooOften, Total};
use crate::span::plain;
use crate::store::{CodeError, Event, EventKind, UserRecord};
use known_sources::KnownSources;
pub use password::{PasswordError, Passwords};

/// What bounds attempts to log in.
pub struct Limits {
    per_source: Each<Source>,
    total: Total,
    per_user: Each<UserName>,
    known: KnownSources,
}

impl Limits {
    /// Full allowances.
    pub fn new(login: &config::Login) -> Self {
        Self {
            per_source: Each::new(login.attempts.per_source),
            total: Total::new(login.attempts.total),
            per_user: Each::new(login.per_user),
            known: KnownSources::default(),
        }
    }
}

/// A refusal, and whom it concerned when that is certain enough to record.
struct No(Refused, Option<UserId>);

impl<E> From<&E> for No
where
    for<'e> Refused: From<&'e E>,
{
    fn from(error: &E) -> Self {
        Self(Refused::from(error), None)
    }
}

impl From<&TooOften> for Refused {
    fn from(error: &TooOften) -> Self {
        Self::new(Code::Busy, error.to_string(), "").retry_after(error.0)
    }
}

/// Judges a login and issues the certificates.
///
/// # Errors
/// The refusal to send.
pub(crate) async fn login(
    api: &Api,
    peer: SocketAddr,
    request: LoginRequest,
) -> Result<LoginAnswer, Refused> {
    match attempt(api, peer, request).await {
        Ok(answer) => Ok(answer),
        Err(No(refused, user)) => {
            let mut event = Event::new(EventKind::LoginRefused).refused(&refused);
            if let Some(user) = user {
                event = event.user(user);
            }
            api.strangers.record(peer, event).await;
            Err(refused)
        }
    }
}

async fn attempt(api: &Api, peer: SocketAddr, request: LoginRequest) -> Result<LoginAnswer, No> {
    let source = Source::from(peer.ip());
    let limits = &api.login_limits;
    limits.per_source.take(&source).map_err(|e| No::from(&e))?;
    limits.total.take().map_err(|e| No::from(&e))?;
    let now = clock::now();
    check_clock(request.clock, now)?;
    let csr = ca::request_from_pem(&request.csr).map_err(|e| No::from(&IssueError::from(e)))?;
    Authority::check_ssh_key(&request.ssh_key).map_err(|e| No::from(&IssueError::from(e)))?;
    let user = match &request.proof {
        LoginProof::Code { secret, new_password } => {
            by_code(api, peer, secret, new_password, now).await?
        }
        LoginProof::Password { user, password } => by_password(api, peer, user, password).await?,
    };
    limits.known.remember(&user.name, source);
    let issued = api
        .authority
        .issue_user(user.id, &user.name, &csr, &request.ssh_key, now)
        .map_err(|e| No::from(&e))?;
    Ok(LoginAnswer {
        user: user.name,
        user_id: user.id,
        certificate: ca::certificate_to_pem(&issued.certificate),
        ssh_certificate: issued.ssh_certificate,
        ca: api.authority.ca_pem().to_owned(),
        ssh_host_cas: api.authority.ssh_host_cas(),
        expires: issued.expires,
        clock: now,
    })
}

/// A computer whose clock is off would find its new certificates expired or not yet valid.
fn check_clock(theirs: UnixTime, ours: UnixTime) -> Result<(), No> {
    let off = theirs.distance(ours);
    if off <= MAX_CLOCK_SKEW {
        return Ok(());
    }
    let way = if theirs > ours { "ahead" } else { "behind" };
    let cause = format!("this computer's clock is {} {way}", plain(off));
    Err(No(Refused::new(Code::Clock, cause, "set it, and log in again"), None))
}

async fn by_code(
    api: &Api,
    peer: SocketAddr,
    secret: &str,
    new_password: &str,
    now: UnixTime,
) -> Result<UserRecord, No> {
    let code = Secret::from_hex(secret).ok_or_else(|| No::from(&CodeError::Unknown))?.digest();
    let user = match api.store.check_code(code, now).await {
        Ok(user) => user,
        Err(error) => return Err(No::from(&error)),
    };
    password::check_rules(&user.name, new_password).map_err(|e| No::from(&e))?;
    let hash = api.passwords.hash(new_password).await.map_err(|e| No::from(&e))?;
    api.store.redeem_code(code, hash, now, peer).await.map_err(|e| No::from(&e))
}

async fn by_password(
    api: &Api,
    peer: SocketAddr,
    name: &str,
    password: &str,
) -> Result<UserRecord, No> {
    let source = Source::from(peer.ip());
    let name = name.parse::<UserName>().ok();
    if let Some(name) = &name
        && !api.login_limits.known.contains(name, source)
    {
        api.login_limits.per_user.take(name).map_err(|e| No::from(&e))?;
    }
    let found = match &name {
        Some(name) => api.store.user_for_login(name).await.map_err(|e| No::from(&e))?,
        None => None,
    };
    let (user, hash) = match found {
        Some((user, hash)) => (Some(user), hash),
        None => (None, None),
    };
    let right = api.passwords.verify(password, hash).await.map_err(|e| No::from(&e))?;
    let user = match (user, right) {
        (Some(user), true) => user,
        (user, _) => {
            let refused = Refused::new(
                Code::WrongSecret,
                "the name or the password is wrong",
                "try again; if you forgot it, ask an administrator for a login code",
            );
            return Err(No(refused, user.map(|user| user.id)));
        }
    };
    if user.disabled {
        let refused = Refused::from(&CodeError::Disabled(user.id));
        return Err(No(refused, Some(user.id)));
    }
    let event = Event::new(EventKind::LoggedIn).user(user.id).source(peer).detail("by password");
    api.store.record(event).await.map_err(|e| No::from(&e))?;
    Ok(user)
}
