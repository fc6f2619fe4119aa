//! The key files. Made once, never overwritten, readable by their owner alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use belay_proto::time::UnixTime;
use belay_tunnel::pki::{
    AuthorityError, CertificateAuthority, GrantKeyError, GrantSigner, NoteKeyError,
};
use belay_tunnel::private_file;
use zeroize::Zeroizing;

use super::Authority;
use super::audit_key::AuditKey;
use super::ssh::{self, SshAuthority, SshError};

pub(super) const DIR: &str = "keys";
const CA_CERTIFICATE: &str = "deployment-ca.crt";
const CA_KEY: &str = "deployment-ca.key";
const SSH_USER_CA: &str = "ssh-user-ca";
const SSH_HOST_CA: &str = "ssh-host-ca";
const GRANT_KEY: &str = "grant.key";
const QUIC_RESET_KEY: &str = "quic-reset.key";

/// Bytes of the stateless-reset key.
pub(super) const RESET_KEY: usize = 32;

/// Longest key file read.
const MAX_FILE: u64 = 64 * 1024;

/// The key files could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There are some.
    #[error("{0} exists already; keys are never overwritten")]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A file could not be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// Others can read or replace it.
    #[error("{0} can be read or written by others; chmod it to 0600 (its directory to 0700)")]
    NotPrivate(PathBuf),
    /// A file holds something else.
    #[error("{0} holds no key")]
    NoKey(PathBuf),
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
    /// X.509.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    /// OpenSSH.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Grants.
    #[error(transparent)]
    Grant(#[from] GrantKeyError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] NoteKeyError),
}

pub(super) fn make(data: &Path, name: &str, now: UnixTime) -> Result<Authority, FilesError> {
    let dir = data.join(DIR);
    if dir.exists() {
        return Err(FilesError::Exists(dir));
    }
    private_file::make_dir(&dir).map_err(|e| FilesError::Write(dir.clone(), e))?;
    let write = |file: &str, content: &[u8]| {
        let path = dir.join(file);
        private_file::create(&path, content).map_err(|e| FilesError::Write(path, e))
    };
    let (ca, key) = CertificateAuthority::generate(name, now)?;
    write(CA_KEY, key.to_pem().as_bytes())?;
    write(CA_CERTIFICATE, ca.certificate_pem().as_bytes())?;
    write(SSH_USER_CA, ssh::generate("belay user CA")?.as_bytes())?;
    write(SSH_HOST_CA, ssh::generate("belay host CA")?.as_bytes())?;
    write(GRANT_KEY, &GrantSigner::generate()?)?;
    let mut reset = Zeroizing::new([0; RESET_KEY]);
    aws_lc_rs::rand::fill(reset.as_mut_slice()).map_err(|_| FilesError::Random)?;
    write(QUIC_RESET_KEY, reset.as_slice())?;
    AuditKey::make(data, name)?;
    // The directory's own name, for a power cut right after.
    let synced = fs::File::open(data).and_then(|data| data.sync_all());
    synced.map_err(|e| FilesError::Write(data.to_owned(), e))?;
    load(data, name)
}

pub(super) fn load(data: &Path, name: &str) -> Result<Authority, FilesError> {
    let dir = data.join(DIR);
    check_private(&dir)?;
    let text = |file: &str| {
        let path = dir.join(file);
        let bytes = read(&path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FilesError::NoKey(path))?;
        Ok::<_, FilesError>(Zeroizing::new(text.to_owned()))
    };
    Ok(Authority {
        name: name.to_owned(),
        deployment: CertificateAuthority::load(&text(CA_CERTIFICATE)?, &text(CA_KEY)?)?,
        ssh: SshAuthority::load(&text(SSH_USER_CA)?, &text(SSH_HOST_CA)?)?,
        grants: GrantSigner::from_pkcs8(&read(&dir.join(GRANT_KEY))?)?,
        quic_reset: reset_key(&dir.join(QUIC_RESET_KEY))?,
    })
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FilesError> {
    check_private(path)?;
    let size = fs::metadata(path).map_err(|e| FilesError::Read(path.to_owned(), e))?.len();
    if size > MAX_FILE {
        return Err(FilesError::NoKey(path.to_owned()));
    }
    fs::read(path).map(Zeroizing::new).map_err(|e| FilesError::Read(path.to_owned(), e))
}

fn reset_key(path: &Path) -> Result<Zeroizing<[u8; RESET_KEY]>, FilesError> {
    let bytes = read(path)?;
    let key = <[u8; RESET_KEY]>::try_from(bytes.as_slice());
    key.map(Zeroizing::new).map_err(|_| FilesError::NoKey(path.to_owned()))
}

fn check_private(path: &Path) -> Result<(), FilesError> {
    let meta = fs::metadata(path).map_err(|e| FilesError::Read(path.to_owned(), e))?;
    if meta.mode() & 0o077 == 0 { Ok(()) } else { Err(FilesError::NotPrivate(path.to_owned())) }
}
