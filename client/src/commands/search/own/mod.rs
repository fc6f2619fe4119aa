//! An index of one's own, over recordings that are sealed: the relay cannot read them, an auditor with a
//! key can, here.
//!
//! Its law: it is derived, from recordings whose signatures were checked and whose ends are those in the
//! audit log, and what was deleted there is gone from it at the next search; nothing of it is readable
//! without the secret key (`file`). It is a file for each recording, replaced whole or not at all, so that a
//! search that is broken off loses nothing.
//!
//! `bring` fills it, `look` looks through it.

mod bring;
mod file;
mod look;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use belay_proto::api::{MAX_SEALED_PAGE, SealedPage, SealedRecording, SealedRequest, path};
use belay_proto::ids::SessionId;
use belay_tunnel::private_file;
use belay_tunnel::transcript::Block;
use hyper::Method;

use self::bring::Brought;
use self::file::{HEAD, Head, Seal};
use crate::api::Api;
use crate::commands::play::open::Keys;
use crate::failure::Failure;
use crate::home::{Home, Login};
use crate::output;
use crate::run::Context;

pub(super) use look::{Asked, Looked};

/// In the home.
const DIR: &str = "search";

/// What is no file of the index is left alone for so long: another search may be writing it.
const FOREIGN_FOR: Duration = Duration::from_secs(3600);

/// The index of one auditor.
pub(super) struct Index {
    dir: PathBuf,
    seal: Seal,
    keys: Arc<Keys>,
}

/// What is known of a recording without opening its file.
struct Known {
    head: Head,
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("home", format!("cannot {what} {}: {error}", path.display()))
        .remedy("make room, or the directory writable, and try again; it may be deleted")
}

impl Index {
    /// Of whoever has the secret keys of this file.
    ///
    /// # Errors
    /// When there is no key in it, or the directory cannot be made.
    pub(super) fn open(home: &Home, identity: &Path) -> Result<Self, Failure> {
        let keys = Keys::read(identity)?;
        let seal = Seal::of(&keys)?;
        let dir = home.dir().join(DIR).join(&seal.name);
        private_file::make_dir(&dir).map_err(|error| cannot("make", &dir, &error))?;
        Ok(Self { dir, seal, keys: Arc::new(keys) })
    }

    /// Brings what is new, and looks through all of it.
    ///
    /// # Errors
    /// When the relay refuses to say which are sealed, its audit log is not the one known before, or a file
    /// cannot be read or written here.
    pub(super) async fn search(
        self,
        context: &Context,
        login: &Login,
        asked: Asked,
    ) -> Result<Looked, Failure> {
        let api = Api::of(login)?;
        let listed = listed(&api).await?;
        let brought = self.bring((context, &api), &login.ca()?, &listed).await?;
        let Brought { waiting, why, missing } = brought;
        if let Some(why) = why {
            output::note(format!("belay: {waiting} sealed recordings could not be read: {why}"));
        }
        let looked = tokio::task::spawn_blocking(move || self.look(&listed, &asked)).await;
        let mut looked = looked
            .map_err(|error| Failure::new("internal", format!("a search failed: {error}")))??;
        looked.waiting += waiting;
        looked.missing = missing;
        Ok(looked)
    }

    fn path(&self, session: SessionId) -> PathBuf {
        self.dir.join(session.to_string())
    }

    /// All that is in it. What is no file of it is removed in time: a write that was broken off leaves one.
    fn known(&self) -> Result<BTreeMap<SessionId, Known>, Failure> {
        let read = |error: std::io::Error| cannot("read", &self.dir, &error);
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let session = name.and_then(|name| name.parse::<SessionId>().ok());
            let mut bytes = [0; HEAD];
            let head = fs::File::open(&path)
                .and_then(|mut file| file.read_exact(&mut bytes))
                .ok()
                .and_then(|()| Head::read(&bytes));
            match (session, head) {
                (Some(session), Some(head)) => {
                    known.insert(session, Known { head });
                }
                _ if is_old(&path) => gone(&path)?,
                _ => {}
            }
        }
        Ok(known)
    }

    fn put(&self, session: SessionId, head: Head, blocks: &[Block]) -> Result<(), Failure> {
        let path = self.path(session);
        private_file::replace(&path, &self.seal.file(session, head, blocks)?)
            .map_err(|error| cannot("write", &path, &error))
    }

    fn remove(&self, session: SessionId) -> Result<(), Failure> {
        gone(&self.path(session))
    }
}

/// Removes a file; that another search did is no failure.
fn gone(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(cannot("remove", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > FOREIGN_FOR)
}

/// All recordings that are sealed, in the order of their ids.
async fn listed(api: &Api) -> Result<Vec<SealedRecording>, Failure> {
    let mut all: Vec<SealedRecording> = Vec::new();
    loop {
        let after = all.last().map(|last| last.session);
        let request = SealedRequest { after, count: MAX_SEALED_PAGE };
        let page: SealedPage = api.send(Method::POST, path::SEARCH_SEALED, &request).await?;
        let on = page.recordings.first().is_some_and(|first| Some(first.session) > after);
        all.extend(page.recordings);
        if !page.more || !on {
            return Ok(all);
        }
    }
}
