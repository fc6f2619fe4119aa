//! `belay-relay init` and `belay-relay code`: what is done on the relay's own machine, where
//! reading the data directory is all the authority there is.
//!
//! Its law: `init` never overwrites. The configuration is written last, so a directory with one is
//! a whole deployment, and an attempt that fails takes back what it made.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belay_proto::names::UserName;
use belay_proto::policy::Role;
use belay_proto::time::UnixTime;
use belay_proto::token::{Invitation, InvitationError, Purpose, Secret};
use belay_tunnel::address::RelayAddress;
use belay_tunnel::{clock, private_file};

use crate::ca::{Authority, FilesError};
use crate::config::{self, Config, ConfigError};
use crate::secret::{self, NoRandom};
use crate::store::{
    self, Actor, Event, EventKind, LoginCode, OpenError, Store, StoreError, UserError,
};

/// Life of a one-time login code.
pub const CODE_LIFE: Duration = Duration::from_secs(24 * 3600);

const KEYS: &str = "keys";

/// A deployment was not made, or a code not given.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A whole deployment is there.
    #[error(
        "{0} holds a deployment already; nothing was changed. Start it: belay-relay run --data {0}"
    )]
    Exists(String),
    /// Something else is there.
    #[error("{path} is in the way; nothing was changed. Choose an empty directory, or remove it if an earlier init was cut off", path = .0.display())]
    InTheWay(PathBuf),
    /// The directory cannot be used.
    #[error("cannot use {path}", path = .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// The configuration cannot be written or read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys cannot be made or read.
    #[error(transparent)]
    Keys(#[from] FilesError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The person cannot be added or found.
    #[error(transparent)]
    User(#[from] UserError),
    /// The code does not fit in a string.
    #[error(transparent)]
    Code(#[from] InvitationError),
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// A way in for one person. Shown once.
#[derive(Debug)]
pub struct WayIn {
    /// Whose.
    pub user: UserName,
    /// The login code.
    pub code: String,
    /// Its last second.
    pub expires: UnixTime,
    /// Where to use it.
    pub address: RelayAddress,
}

/// What a deployment is made with.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The data directory. Made when missing.
    pub data: PathBuf,
    /// Where devices and people will reach it.
    pub address: RelayAddress,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The first administrator.
    pub admin: UserName,
}

/// Makes keys, store, first administrator and configuration.
///
/// # Errors
/// [`InitError`]; nothing is left behind then.
pub async fn init(wanted: &Wanted) -> Result<WayIn, InitError> {
    let data = &wanted.data;
    if data.join(config::FILE).exists() {
        return Err(InitError::Exists(data.display().to_string()));
    }
    for name in [KEYS, store::FILE] {
        let path = data.join(name);
        if path.exists() {
            return Err(InitError::InTheWay(path));
        }
    }
    let made = !data.exists();
    private_file::make_dir(data).map_err(|e| InitError::Directory(data.clone(), e))?;
    let outcome = fill(wanted).await;
    if outcome.is_err() {
        clean_up(data, made);
    }
    outcome
}

async fn fill(wanted: &Wanted) -> Result<WayIn, InitError> {
    let now = clock::now();
    let authority = Authority::make(&wanted.data, wanted.address.host(), now)?;
    let store = Store::open(&wanted.data).await?;
    let added = first_administrator(wanted, &authority, &store, now).await;
    store.close().await;
    let way_in = added?;
    let text = config::template(&wanted.address, wanted.listen);
    let file = wanted.data.join(config::FILE);
    private_file::create(&file, text.as_bytes()).map_err(|e| InitError::Directory(file, e))?;
    Ok(way_in)
}

async fn first_administrator(
    wanted: &Wanted,
    authority: &Authority,
    store: &Store,
    now: UnixTime,
) -> Result<WayIn, InitError> {
    let (ca, key) = (authority.fingerprint(), store.log_key());
    let detail = format!("for {}, CA {ca}, audit log {key}", wanted.address);
    store.record(Event::new(EventKind::Initialised).detail(&detail)).await?;
    let (secret, code) = new_code(now)?;
    let name = wanted.admin.clone();
    store.add_user(name.clone(), vec![Role::Administrator], code.clone(), Actor::Machine).await?;
    way_in(name, &secret, &code, authority, &wanted.address)
}

/// Makes somebody a new one-time login code, as whoever holds the machine.
///
/// # Errors
/// [`InitError`].
pub async fn code(data: &Path, name: UserName) -> Result<WayIn, InitError> {
    let config = Config::load(data)?;
    let authority = Authority::load(data, config.address.host())?;
    let store = Store::open(data).await?;
    let (secret, code) = new_code(clock::now())?;
    let made = store.new_code(name.clone(), code.clone(), Actor::Machine).await;
    store.close().await;
    made?;
    way_in(name, &secret, &code, &authority, &config.address)
}

/// A new code's secret, and what the store keeps of it.
///
/// # Errors
/// [`NoRandom`].
pub(crate) fn new_code(now: UnixTime) -> Result<(Secret, LoginCode), NoRandom> {
    let secret = secret::generate()?;
    let digest = secret.digest();
    Ok((secret, LoginCode { digest, expires: now.plus(CODE_LIFE) }))
}

fn way_in(
    user: UserName,
    secret: &Secret,
    code: &LoginCode,
    authority: &Authority,
    address: &RelayAddress,
) -> Result<WayIn, InitError> {
    let invitation = Invitation {
        relay: address.to_string(),
        ca: authority.fingerprint(),
        secret: secret.clone(),
    };
    let text = invitation.to_text(Purpose::Login)?;
    Ok(WayIn { user, code: text, expires: code.expires, address: address.clone() })
}

fn clean_up(data: &Path, whole: bool) {
    let mut leftovers = vec![data.join(KEYS), data.join(config::FILE)];
    for end in ["", "-wal", "-shm"] {
        leftovers.push(data.join(format!("{}{end}", store::FILE)));
    }
    for path in leftovers {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }
    if whole && let Err(error) = fs::remove_dir(data) {
        tracing::warn!(path = %data.display(), %error, "cannot be removed");
    }
}
