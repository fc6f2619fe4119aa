//! What `belay` keeps between two commands: who logged in where, until when, with which keys.
//!
//! One directory, mode 0700, its files mode 0600, each replaced whole or not at all. It is
//! `$BELAY_HOME`, or `--home DIR`, or `belay` in the platform's state directory
//! (`~/.local/state/belay`, or `$XDG_STATE_HOME/belay`; on Windows the roaming data directory).
//!
//! | file | what it holds |
//! |---|---|
//! | `login.json` | relay, person, expiry, the relay's clock; written last at a login |
//! | `ca.pem` | the relay's CA, pinned at the first login |
//! | `tls.pem` | X.509 key and certificate |
//! | `id_ed25519`, `.pub`, `-cert.pub` | SSH key and certificate, as OpenSSH keeps them |
//! | `known_hosts` | the SSH host CA for `*.belay` |
//! | `audit.json` | the keys of audit logs and what was verified of them last |
//! | `search/` | the index of sealed recordings that were searched, encrypted: a directory for each set of keys |
//! | `ssh_config` | the block of `belay ssh-config --install` |
//!
//! A login has keys of its own; the ones before are overwritten.

mod login;
mod store;

use std::fs;
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy as _, choose_base_strategy};

use crate::failure::Failure;

pub use login::{Login, LoginRecord};
pub use store::{NewLogin, SshIdentity};

/// The variable that names the directory.
pub const VARIABLE: &str = "BELAY_HOME";

/// The client's own directory.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
    is_default: bool,
}

/// A file of the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `login.json`
    Login,
    /// `ca.pem`
    Ca,
    /// `tls.pem`
    Tls,
    /// `id_ed25519`
    SshKey,
    /// `id_ed25519.pub`
    SshPublicKey,
    /// `id_ed25519-cert.pub`
    SshCertificate,
    /// `known_hosts`
    KnownHosts,
    /// `ssh_config`
    SshConfig,
    /// `audit.json`
    AuditLog,
}

impl File {
    const fn name(self) -> &'static str {
        match self {
            Self::Login => "login.json",
            Self::Ca => "ca.pem",
            Self::Tls => "tls.pem",
            Self::SshKey => "id_ed25519",
            Self::SshPublicKey => "id_ed25519.pub",
            Self::SshCertificate => "id_ed25519-cert.pub",
            Self::KnownHosts => "known_hosts",
            Self::SshConfig => "ssh_config",
            Self::AuditLog => "audit.json",
        }
    }
}

impl Home {
    /// The directory asked for, or the platform's own place.
    ///
    /// # Errors
    /// When there is neither.
    pub fn locate(asked: Option<&Path>) -> Result<Self, Failure> {
        let default = choose_base_strategy()
            .map(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("belay"));
        match (asked, default) {
            (Some(dir), default) => {
                let dir = std::path::absolute(dir).map_err(|e| {
                    Failure::new("home", format!("cannot use {}: {e}", dir.display()))
                        .remedy(format!("set {VARIABLE} to a directory"))
                })?;
                let is_default = default.is_ok_and(|default| default == dir);
                Ok(Self { dir, is_default })
            }
            (None, Ok(dir)) => Ok(Self { dir, is_default: true }),
            (None, Err(_)) => Err(Failure::new("home", "this account has no home directory")
                .remedy(format!("set {VARIABLE} to a directory of your own"))),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is where `belay` looks without being told.
    pub const fn is_default(&self) -> bool {
        self.is_default
    }

    /// Where a file of it is.
    pub fn path(&self, file: File) -> PathBuf {
        self.dir.join(file.name())
    }

    pub(crate) fn read(&self, file: File) -> Result<String, Failure> {
        let path = self.path(file);
        fs::read_to_string(&path).map_err(|e| {
            Failure::new("home", format!("cannot read {}: {e}", path.display()))
                .remedy("run: belay login")
        })
    }

    /// Replaces one file, private to its owner.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, file: File, content: &[u8]) -> Result<(), Failure> {
        let path = self.path(file);
        belay_tunnel::private_file::replace(&path, content).map_err(|e| {
            Failure::new("home", format!("cannot write {}: {e}", path.display()))
                .remedy("make room, or the directory writable, and try again")
        })
    }

    /// Makes the directory, private to its owner.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(&self) -> Result<(), Failure> {
        belay_tunnel::private_file::make_dir(&self.dir)
            .and_then(|()| private::close(&self.dir))
            .map_err(|e| {
                Failure::new("home", format!("cannot make {}: {e}", self.dir.display()))
                    .remedy(format!("set {VARIABLE} to a directory of your own"))
            })
    }

    /// Refuses a directory that others on this machine may read.
    ///
    /// # Errors
    /// When its mode gives others any right.
    pub fn check_private(&self) -> Result<(), Failure> {
        match private::open_to_others(&self.dir) {
            Some(mode) => Err(Failure::new(
                "home-open",
                format!("{} is open to others (mode {mode:o})", self.dir.display()),
            )
            .remedy(format!("run: chmod 700 {}", self.dir.display()))),
            None => Ok(()),
        }
    }
}

#[cfg(unix)]
mod private {
    //! Owner-only directories, by mode bits.

    use std::fs::{self, Permissions};
    use std::io;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    pub(super) fn close(dir: &Path) -> io::Result<()> {
        fs::set_permissions(dir, Permissions::from_mode(0o700))
    }

    pub(super) fn open_to_others(dir: &Path) -> Option<u32> {
        let mode = fs::metadata(dir).ok()?.permissions().mode() & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }
}

#[cfg(not(unix))]
mod private {
    //! Elsewhere a profile's own directories are private by inheritance.

    use std::io;
    use std::path::Path;

    pub(super) fn close(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn open_to_others(_: &Path) -> Option<u32> {
        None
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
