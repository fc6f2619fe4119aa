//! Reading what a login left, and whether it still opens anything.

use std::io;
use std::str::FromStr as _;

use belay_proto::ids::UserId;
use belay_proto::names::UserName;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use super::{File, Home, SshIdentity};
use crate::failure::Failure;
use crate::span;
use belay_tunnel::address::RelayAddress;

/// The layout of `login.json`. Another one means another version of this program.
pub(super) const LAYOUT: u32 = 1;

/// Longest `login.json`, in bytes: it holds a few names and keys.
const MAX_RECORD: u64 = 64 * 1024;

/// `login.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRecord {
    /// The layout.
    pub layout: u32,
    /// `relay.example.com:443`
    pub relay: String,
    /// Who the relay says this is.
    pub user: UserName,
    /// Their id.
    pub user_id: UserId,
    /// When the certificates end, by the relay's clock.
    pub expires: UnixTime,
    /// The relay's clock at the login.
    pub clock: UnixTime,
    /// Seconds to add to this machine's clock to get the relay's.
    pub clock_correction_s: i64,
    /// SSH host CA keys, OpenSSH one-line form.
    pub ssh_host_cas: Vec<String>,
}

/// A login that was found on disk.
#[derive(Debug, Clone)]
pub struct Login {
    home: Home,
    record: LoginRecord,
    relay: RelayAddress,
}

impl Home {
    /// The login, expired or not.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn login(&self) -> Result<Login, Failure> {
        let path = self.path(File::Login);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new("not-logged-in", "you are not logged in").remedy(
                    "ask an administrator for a login code and run: belay login --code CODE",
                ));
            }
            Err(error) => {
                return Err(Failure::new(
                    "home",
                    format!("cannot read {}: {error}", path.display()),
                ));
            }
        };
        self.check_private()?;
        let damaged = |what: String| {
            Failure::new("home-damaged", format!("{} {what}", path.display()))
                .remedy("run: belay login")
        };
        if length > MAX_RECORD {
            return Err(damaged(format!("has {length} bytes, which is no login")));
        }
        let record: LoginRecord = serde_json::from_str(&self.read(File::Login)?)
            .map_err(|e| damaged(format!("is damaged: {e}")))?;
        if record.layout != LAYOUT {
            return Err(damaged(format!(
                "is of layout {}; this program knows {LAYOUT}",
                record.layout
            )));
        }
        let relay = RelayAddress::from_str(&record.relay)
            .map_err(|e| damaged(format!("is damaged: {e}")))?;
        Ok(Login { home: self.clone(), record, relay })
    }

    /// The login, when it still opens something.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or its time is over.
    pub fn live_login(&self) -> Result<Login, Failure> {
        let login = self.login()?;
        login.check_time(clock::now())?;
        Ok(login)
    }

    /// The pinned CA, when there is one.
    ///
    /// # Errors
    /// When the file is there and damaged.
    pub fn pinned_ca(&self) -> Result<Option<CertificateDer<'static>>, Failure> {
        if !self.path(File::Ca).exists() {
            return Ok(None);
        }
        CertificateDer::from_pem_slice(self.read(File::Ca)?.as_bytes()).map(Some).map_err(|e| {
            Failure::new(
                "home-damaged",
                format!("{} holds no certificate: {e}", self.path(File::Ca).display()),
            )
            .remedy("get a new login code and run: belay login --code CODE")
        })
    }
}

impl Login {
    /// What `login.json` says.
    pub const fn record(&self) -> &LoginRecord {
        &self.record
    }

    /// The relay.
    pub const fn relay(&self) -> &RelayAddress {
        &self.relay
    }

    /// The relay's time now, as far as this machine can tell.
    pub fn relay_time(&self) -> UnixTime {
        clock::now().corrected(self.record.clock_correction_s)
    }

    fn check_time(&self, local: UnixTime) -> Result<(), Failure> {
        let now = local.corrected(self.record.clock_correction_s);
        if now < self.record.expires {
            return Ok(());
        }
        let ago = span::rough(self.record.expires.distance(now));
        Err(Failure::new("login-expired", format!("your login expired {ago} ago"))
            .remedy("run: belay login"))
    }

    /// The pinned CA.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn ca(&self) -> Result<CertificateDer<'static>, Failure> {
        self.home.pinned_ca()?.ok_or_else(|| {
            Failure::new("home-damaged", "the relay's CA is missing from the login")
                .remedy("get a new login code and run: belay login --code CODE")
        })
    }

    /// X.509 certificate and key.
    ///
    /// # Errors
    /// When they are missing or damaged.
    pub fn tls_identity(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
        let pem = zeroize::Zeroizing::new(self.home.read(File::Tls)?);
        let damaged = |e: rustls_pki_types::pem::Error| {
            Failure::new(
                "home-damaged",
                format!("{} is damaged: {e}", self.home.path(File::Tls).display()),
            )
            .remedy("run: belay login")
        };
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(damaged)?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(damaged)?;
        Ok((chain, key))
    }

    /// SSH key and certificate.
    ///
    /// # Errors
    /// When they are missing, damaged, or not of the same login.
    pub fn ssh_identity(&self) -> Result<SshIdentity, Failure> {
        SshIdentity::load(&self.home)
    }

    /// SSH host CA keys.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn ssh_host_cas(&self) -> Result<Vec<PublicKey>, Failure> {
        self.record
            .ssh_host_cas
            .iter()
            .map(|line| {
                PublicKey::from_openssh(line).map_err(|e| {
                    Failure::new("home-damaged", format!("an SSH host CA key is damaged: {e}"))
                        .remedy("run: belay login")
                })
            })
            .collect()
    }
}
