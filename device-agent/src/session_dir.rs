//! `STATE/sessions`: the doors of the sessions that run, and beside each what a later supervisor
//! has to know of it.
//!
//! Its law: only the agent's user can enter, so whoever reaches a door is the agent. The files are
//! about processes and worth nothing after a restart of the machine, so nothing here is synced.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use belay_proto::ids::{SessionId, UserId};
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::names::{Login, UserName};
use belay_proto::time::UnixTime;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::process_id::ProcessId;

/// Longest record: ids, names and the terminals of all channels.
const RECORD_MAX: u64 = 64 * 1024;

/// What is known of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) user_name: UserName,
    pub(crate) login: Login,
    pub(crate) kind: String,
    /// When it began, by the relay's clock.
    pub(crate) started: UnixTime,
    /// When it ends at the latest, by the relay's clock.
    pub(crate) ends: UnixTime,
    /// Its worker.
    pub(crate) process: ProcessId,
    /// Open terminals: path and process, as utmp knows them.
    #[serde(default)]
    pub(crate) terminals: Vec<(String, u32)>,
    /// What its grant obliges to.
    #[serde(default)]
    pub(crate) obligations: Vec<String>,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct SessionDir {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` a short way in: a socket's address has room for 108 bytes.
    handle: OwnedFd,
}

impl SessionDir {
    /// Opens it below a state directory, and makes it if need be.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("sessions");
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, handle })
    }

    /// The way to a session's door.
    pub(crate) fn door(&self, session: SessionId) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{session}.sock", self.handle.as_raw_fd()))
    }

    /// Makes a session's door.
    pub(crate) fn bind(&self, session: SessionId) -> io::Result<UnixListener> {
        self.remove(session)?;
        UnixListener::bind(self.door(session))
    }

    /// Writes what is to be known of a session: whole, or not at all.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let scratch = self.path.join(format!("{}.new", record.session));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&scratch, self.record_path(record.session))
    }

    /// Removes what belongs to a session.
    pub(crate) fn remove(&self, session: SessionId) -> io::Result<()> {
        for suffix in ["json", "sock", "new"] {
            match fs::remove_file(self.path.join(format!("{session}.{suffix}"))) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every session that has a record, in order of their ids, at most as many as a device has.
    pub(crate) fn records(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for session in self.named("json")? {
            match self.read(session) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(%session, %error, "a session's record is damaged"),
            }
        }
        records.sort_by_key(|record| record.session);
        records.truncate(DEVICE_SESSIONS);
        Ok(records)
    }

    /// Removes all that belongs to none of `sessions`.
    pub(crate) fn keep_only(&self, sessions: &[SessionId]) -> io::Result<()> {
        for suffix in ["json", "sock", "new"] {
            for session in self.named(suffix)? {
                if !sessions.contains(&session) {
                    self.remove(session)?;
                }
            }
        }
        Ok(())
    }

    fn named(&self, suffix: &str) -> io::Result<Vec<SessionId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = PathBuf::from(entry?.file_name());
            let stem = name.file_stem().and_then(|stem| stem.to_str());
            if name.extension().is_some_and(|extension| extension == suffix)
                && let Some(session) = stem.and_then(|stem| stem.parse().ok())
            {
                found.push(session);
            }
        }
        Ok(found)
    }

    fn read(&self, session: SessionId) -> io::Result<Record> {
        let path = self.record_path(session);
        if fs::metadata(&path)?.len() > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
        }
        let record: Record = serde_json::from_slice(&fs::read(&path)?)?;
        if record.session != session {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is another session's"));
        }
        Ok(record)
    }

    fn record_path(&self, session: SessionId) -> PathBuf {
        self.path.join(format!("{session}.json"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::net::UnixStream;

    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number))
    }

    fn record(number: u128) -> Record {
        Record {
            session: id(number),
            user: UserId::from_uuid(Uuid::from_u128(9)),
            user_name: "ada".parse().unwrap(),
            login: "root".parse().unwrap(),
            kind: "ssh".into(),
            started: UnixTime(1),
            ends: UnixTime(2),
            process: ProcessId::of(std::process::id()).unwrap(),
            terminals: vec![("/dev/pts/3".into(), 7)],
            obligations: vec!["record".into()],
        }
    }

    #[test]
    fn a_door_can_be_made_and_reached_however_long_its_path_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = SessionDir::open(&temp.path().join("d".repeat(120))).unwrap();
        let door = dir.bind(id(1)).unwrap();
        UnixStream::connect(dir.door(id(1))).unwrap();
        door.accept().unwrap();
        // A door that was left behind is no obstacle.
        drop(door);
        dir.bind(id(1)).unwrap();
    }

    #[test]
    fn only_its_owner_enters_also_when_it_was_open_before() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("sessions");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        SessionDir::open(temp.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn records_survive_and_damaged_ones_harm_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let dir = SessionDir::open(temp.path()).unwrap();
        for number in [2, 1] {
            dir.write(&record(number)).unwrap();
        }
        fs::write(dir.record_path(id(3)), "nonsense").unwrap();
        fs::copy(dir.record_path(id(1)), dir.record_path(id(4))).unwrap();
        assert_eq!(dir.records().unwrap(), [record(1), record(2)]);
        let _door = dir.bind(id(5)).unwrap();
        dir.keep_only(&[id(2)]).unwrap();
        assert_eq!(fs::read_dir(&dir.path).unwrap().count(), 1);
        assert_eq!(dir.records().unwrap(), [record(2)]);
    }
}
