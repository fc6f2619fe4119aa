//! What a device keeps: its keys, its certificates, and whom it trusts. One directory, mode 0700.
//!
//! Each file is replaced whole or not at all, so a power cut leaves the old or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use belay_proto::ids::{DeviceId, RunId};
use belay_proto::names::DeviceName;
use belay_proto::time::UnixTime;
use belay_proto::wire::control::Run;
use belay_tunnel::address::{BadAddress, RelayAddress};
use belay_tunnel::pki::{GrantKeyError, GrantVerifier, KeyError, TlsKey};
use belay_tunnel::private_file;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where the agent keeps its state when nothing else is said.
pub fn default_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/belay-agent");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home.join(".local/state"), PathBuf::from)
        .join("belay-agent")
}

/// The state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It has not enrolled.
    #[error("this device is not enrolled ({0} is missing); run: belay-agent enroll TOKEN")]
    NotEnrolled(PathBuf),
    /// It has.
    #[error(
        "this device is enrolled already ({0} exists); to enrol it anew, decommission it at the \
         relay and move that directory away"
    )]
    Enrolled(PathBuf),
    /// The file system.
    #[error("cannot {doing} {path}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{0} is damaged; restore it, or enrol this device anew")]
    Damaged(PathBuf),
    /// A key file.
    #[error("cannot use {0}")]
    Key(PathBuf, #[source] KeyError),
    /// A pinned key.
    #[error("cannot use the pinned grant keys")]
    Grant(#[from] GrantKeyError),
    /// The relay's address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// Another agent runs.
    #[error("another agent runs with {0}; stop it first")]
    Running(PathBuf),
}

/// What enrolment gave, in `enrolment.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolment {
    /// Identity for life.
    pub device: DeviceId,
    /// Name for now.
    pub name: DeviceName,
    /// `relay.example.com:443`
    pub relay: String,
    /// SSH user CAs to believe, OpenSSH one-line form.
    pub ssh_user_cas: Vec<String>,
    /// Grant keys to believe, Ed25519, hexadecimal.
    pub grant_keys: Vec<String>,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

const ENROLMENT: &str = "enrolment.json";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";
const HOST_KEY: &str = "ssh_host_ed25519_key";
const HOST_CERTIFICATE: &str = "ssh_host_ed25519_key-cert.pub";
const RELAY_TIME: &str = "relay-time";
const NETWORKS: &str = "networks.json";
const RUN: &str = "run";
const STATUS: &str = "status.json";
const LOCK: &str = "lock";

impl State {
    /// The state in this directory; nothing is touched yet.
    pub const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Refuses when there is an enrolment; makes the directory otherwise.
    ///
    /// # Errors
    /// [`StateError::Enrolled`], [`StateError::Io`].
    pub fn prepare(&self) -> Result<(), StateError> {
        private_file::make_dir(&self.dir).map_err(|source| self.io("make", "", source))?;
        let path = self.dir.join(ENROLMENT);
        if path.exists() { Err(StateError::Enrolled(path)) } else { Ok(()) }
    }

    /// Takes the directory for this process, until the file is dropped.
    ///
    /// # Errors
    /// [`StateError::Running`], [`StateError::Io`].
    pub fn lock(&self) -> Result<File, StateError> {
        let path = self.dir.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| self.io("open", LOCK, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::Running(self.dir.clone())),
            Err(fs::TryLockError::Error(source)) => Err(self.io("lock", LOCK, source)),
        }
    }

    /// What enrolment gave.
    ///
    /// # Errors
    /// [`StateError::NotEnrolled`], [`StateError::Damaged`].
    pub fn enrolment(&self) -> Result<Enrolment, StateError> {
        let text = self.read(ENROLMENT)?;
        serde_json::from_str(&text).map_err(|_| StateError::Damaged(self.dir.join(ENROLMENT)))
    }

    /// Writes what enrolment gave. The last file of an enrolment: with it, the device is enrolled.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_enrolment(&self, enrolment: &Enrolment) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(enrolment)
            .map_err(|_| StateError::Damaged(self.dir.join(ENROLMENT)))?;
        self.write(ENROLMENT, &text)
    }

    /// The key behind the device's identity.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn key(&self) -> Result<TlsKey, StateError> {
        let pem = Zeroizing::new(self.read(KEY)?);
        TlsKey::from_pem(&pem).map_err(|error| StateError::Key(self.dir.join(KEY), error))
    }

    /// The key of an enrolment that was begun and not finished, or a new one: whoever tries again
    /// after a lost answer asks for the same identity.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn key_for_enrolment(&self) -> Result<TlsKey, StateError> {
        if self.dir.join(KEY).exists() {
            return self.key();
        }
        let key = TlsKey::generate().map_err(|error| StateError::Key(self.dir.join(KEY), error))?;
        self.write(KEY, key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// The device's certificate, DER.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn certificate(&self) -> Result<CertificateDer<'static>, StateError> {
        self.read_certificate(CERTIFICATE)
    }

    /// Keeps a new certificate, PEM.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_certificate(&self, pem: &str) -> Result<(), StateError> {
        self.write(CERTIFICATE, pem.as_bytes())
    }

    /// The pinned CA, DER.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn ca(&self) -> Result<CertificateDer<'static>, StateError> {
        self.read_certificate(CA)
    }

    /// Pins the CA, PEM.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_ca(&self, pem: &str) -> Result<(), StateError> {
        self.write(CA, pem.as_bytes())
    }

    /// The SSH host key, OpenSSH private key file.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn host_key(&self) -> Result<Zeroizing<String>, StateError> {
        self.read(HOST_KEY).map(Zeroizing::new)
    }

    /// Whether there is an SSH host key.
    pub fn has_host_key(&self) -> bool {
        self.dir.join(HOST_KEY).exists()
    }

    /// Keeps the SSH host key.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_host_key(&self, key: &str) -> Result<(), StateError> {
        self.write(HOST_KEY, key.as_bytes())
    }

    /// The SSH host certificate, one line.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn host_certificate(&self) -> Result<String, StateError> {
        Ok(self.read(HOST_CERTIFICATE)?.trim().to_owned())
    }

    /// Keeps a new SSH host certificate.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_host_certificate(&self, line: &str) -> Result<(), StateError> {
        self.write(HOST_CERTIFICATE, format!("{}\n", line.trim()).as_bytes())
    }

    /// The last time an authenticated relay told us; 0 when none did.
    pub fn relay_time(&self) -> UnixTime {
        let text = fs::read_to_string(self.dir.join(RELAY_TIME)).unwrap_or_default();
        UnixTime(text.trim().parse().unwrap_or(0))
    }

    /// Keeps the relay's time, never backwards.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_relay_time(&self, time: UnixTime) -> Result<(), StateError> {
        if time <= self.relay_time() {
            return Ok(());
        }
        self.write(RELAY_TIME, time.0.to_string().as_bytes())
    }

    /// Begins another run of the agent: a new number, kept for the next one to know.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn begin_run(&self) -> Result<Run, StateError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| self.io("draw a number for", RUN, io::ErrorKind::Other.into()))?;
        let this = RunId::from_uuid(uuid::Builder::from_random_bytes(random).into_uuid());
        // One that is missing or damaged is none.
        let before = fs::read_to_string(self.dir.join(RUN)).ok();
        let before = before.and_then(|text| text.trim().parse().ok());
        self.write(RUN, format!("{this}\n").as_bytes())?;
        Ok(Run { this, before })
    }

    /// What is known of the networks this device was in.
    pub fn networks(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(NETWORKS)).ok()
    }

    /// Keeps what is known of networks.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_networks(&self, json: &[u8]) -> Result<(), StateError> {
        self.write(NETWORKS, json)
    }

    /// What `belay-agent status` shows: the running agent's last word.
    pub fn status(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(STATUS)).ok()
    }

    /// Leaves a word for `belay-agent status`.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn set_status(&self, json: &[u8]) -> Result<(), StateError> {
        self.write(STATUS, json)
    }

    fn read_certificate(&self, name: &str) -> Result<CertificateDer<'static>, StateError> {
        let pem = self.read(name)?;
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| StateError::Damaged(self.dir.join(name)))
    }

    fn read(&self, name: &str) -> Result<String, StateError> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                StateError::NotEnrolled(path)
            } else if source.kind() == io::ErrorKind::InvalidData {
                StateError::Damaged(path)
            } else {
                StateError::Io { doing: "read", path, source }
            }
        })
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        private_file::replace(&self.dir.join(name), content)
            .map_err(|source| self.io("write", name, source))
    }

    fn io(&self, doing: &'static str, name: &str, source: io::Error) -> StateError {
        StateError::Io { doing, path: self.dir.join(name), source }
    }
}

impl Enrolment {
    /// Where to dial.
    ///
    /// # Errors
    /// [`StateError::Address`].
    pub fn relay_address(&self) -> Result<RelayAddress, StateError> {
        Ok(self.relay.parse()?)
    }

    /// Whose grants to believe.
    ///
    /// # Errors
    /// [`StateError::Grant`].
    pub fn grant_verifier(&self) -> Result<GrantVerifier, StateError> {
        Ok(GrantVerifier::new(self.grant_keys.iter().map(|key| from_hex(key)))?)
    }
}

/// An odd or foreign character gives a key of the wrong length, which is refused as such.
fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map_while(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_run_has_a_number_of_its_own_and_knows_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        let first = state.begin_run().unwrap();
        let second = state.begin_run().unwrap();
        assert_eq!(first.before, None);
        assert_eq!(second.before, Some(first.this));
        assert_ne!(first.this, second.this);
        fs::write(dir.path().join(RUN), "damaged").unwrap();
        assert_eq!(state.begin_run().unwrap().before, None);
    }

    #[test]
    fn the_relays_time_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        assert_eq!(state.relay_time(), UnixTime(0));
        state.set_relay_time(UnixTime(100)).unwrap();
        state.set_relay_time(UnixTime(50)).unwrap();
        assert_eq!(state.relay_time(), UnixTime(100));
    }

    #[test]
    fn two_agents_do_not_share_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        let held = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::Running(_))));
        drop(held);
        assert!(state.lock().is_ok());
    }

    #[test]
    fn a_device_that_never_enrolled_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = State::at(dir.path().to_owned()).enrolment().unwrap_err();
        assert!(error.to_string().contains("belay-agent enroll"));
    }

    #[test]
    fn a_key_in_hexadecimal_reads_back() {
        assert_eq!(from_hex("00ff7f"), [0, 0xff, 0x7f]);
        assert_eq!(from_hex("00f").len(), 1);
        assert_eq!(from_hex("zz").len(), 0);
    }
}
