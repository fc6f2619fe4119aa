//! The audit log to other systems: a file, syslog, a webhook, a collector of OpenTelemetry.
//!
//! Its law: every entry goes to each of them, in order, at least once; an export's place is on the
//! disk, and behind what its receiver has acknowledged, never before. One that is down is tried
//! again and holds nothing up: the log itself is the queue, so nothing else is kept for it. What it is
//! not: it reads the log with nobody's rights but the relay's own, which the configuration gives away.
//!
//! `config` is what may be said of it, `follow` one export's life, `entry` what an entry is for others;
//! `file`, `syslog`, `webhook` and `otlp` are the ways out.

pub mod config;
mod entry;
mod file;
mod follow;
mod otlp;
mod syslog;
mod webhook;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use belay_proto::audit::VerifierKey;
use zeroize::Zeroizing;

use self::config::{Export, To};
pub use self::follow::Follower;
use crate::outbound::{Peer, PostError, SetUpError};

/// Longest secret read, in bytes.
const MAX_SECRET: u64 = 4096;

/// An export cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its secret cannot be read.
    #[error("export {0}: cannot read the secret in {1}")]
    Secret(String, PathBuf, #[source] io::Error),
    /// Others can read its secret.
    #[error("export {0}: everybody can read the secret in {1}; run: chmod o= {1}")]
    Open(String, PathBuf),
    /// Its secret is none.
    #[error("export {0}: the secret in {1} must be {2}")]
    Weak(String, PathBuf, &'static str),
    /// Its file cannot be added to.
    #[error("export {0}: cannot add to {1}")]
    File(String, PathBuf, #[source] io::Error),
    /// TLS.
    #[error("export {0}")]
    SetUp(String, #[source] SetUpError),
}

/// Entries on their way out, one after the other.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose log they are of.
    pub log: VerifierKey,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// The entries, each the line whose bytes are the leaf.
    pub lines: Vec<String>,
}

impl Batch {
    /// JSON lines.
    fn text(&self) -> String {
        let mut text = String::with_capacity(self.lines.iter().map(|line| line.len() + 1).sum());
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// A batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// A file, a socket.
    #[error("cannot write to {0}")]
    Write(String, #[source] io::Error),
    /// An exchange of HTTP.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The receiver said no.
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    /// What is to be sent cannot be made.
    #[error("an entry cannot be put in the receiver's form")]
    Form(#[source] serde_json::Error),
}

/// A way out.
enum Sink {
    File(file::Sink),
    Syslog(syslog::Sink),
    Webhook(Box<webhook::Sink>),
    Otlp(otlp::Sink),
}

impl Sink {
    fn prepare(export: &Export, host: &str) -> Result<Self, PrepareError> {
        let name = || export.name.clone();
        let peer = |url: &crate::outbound::Url, ca: &Option<PathBuf>| {
            let peer = Peer::new(url.clone(), ca.as_deref());
            peer.map_err(|error| PrepareError::SetUp(name(), error))
        };
        Ok(match &export.to {
            To::File(path) => {
                let sink = file::Sink::new(path);
                sink.map(Self::File).map_err(|e| PrepareError::File(name(), path.clone(), e))?
            }
            To::Syslog { transport, facility } => {
                Self::Syslog(syslog::Sink::new(transport.clone(), *facility, host))
            }
            To::Webhook { url, secret_file, ca_file } => {
                let secret = secret(export, secret_file)?;
                let key = webhook::Key::read(&secret).ok_or_else(|| {
                    PrepareError::Weak(name(), secret_file.clone(), webhook::Key::RULE)
                })?;
                Self::Webhook(Box::new(webhook::Sink::new(peer(url, ca_file)?, key)))
            }
            To::Otlp { url, token_file, ca_file } => {
                let token = token_file.as_deref().map(|file| {
                    otlp::bearer(&secret(export, file)?).ok_or_else(|| {
                        PrepareError::Weak(name(), file.to_owned(), "printable, in one line")
                    })
                });
                Self::Otlp(otlp::Sink::new(peer(url, ca_file)?, token.transpose()?, host))
            }
        })
    }

    /// Returns once the receiver has it.
    async fn deliver(&mut self, batch: &Batch) -> Result<(), DeliverError> {
        match self {
            Self::File(sink) => sink.deliver(batch).await,
            Self::Syslog(sink) => sink.deliver(batch).await,
            Self::Webhook(sink) => sink.deliver(batch).await,
            Self::Otlp(sink) => sink.deliver(batch).await,
        }
    }

    /// Whether a batch that is sent again, even by another process, must be the same one: its
    /// receiver knows it by its first and last entry.
    const fn repeats_the_same(&self) -> bool {
        matches!(self, Self::Webhook(_))
    }
}

/// Reads all secrets and authorities and tries all files, before anything is bound.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(exports: &[Export], host: &str) -> Result<Vec<Follower>, PrepareError> {
    let follower = |export: &Export| Ok(Follower::new(export, Sink::prepare(export, host)?));
    exports.iter().map(follower).collect()
}

fn secret(export: &Export, file: &Path) -> Result<Zeroizing<Vec<u8>>, PrepareError> {
    let cannot = |error| PrepareError::Secret(export.name.clone(), file.to_owned(), error);
    let meta = fs::metadata(file).map_err(cannot)?;
    if meta.permissions().mode() & 0o007 != 0 {
        return Err(PrepareError::Open(export.name.clone(), file.to_owned()));
    }
    if !meta.is_file() || meta.len() > MAX_SECRET {
        return Err(cannot(io::Error::other("it is no file of at most 4 KiB")));
    }
    let mut secret = Zeroizing::new(fs::read(file).map_err(cannot)?);
    while secret.last().is_some_and(u8::is_ascii_whitespace) {
        secret.pop();
    }
    Ok(secret)
}
