//! A worker without a supervisor: one connection on standard input and output,
//! with the keys named on the command line.
//!
//! For other people's SSH test suites and for finding faults:
//! `ssh -o ProxyCommand='belay-agent worker --stdio …' x`. Only here do plain
//! keys open a session, so this mode refuses to run under a supervisor. It gives
//! nobody a right they lack: it serves the user who starts it, or, started by
//! root, the login root names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use nix::unistd::{Uid, User};
use russh::keys::ssh_key::PublicKey;
use russh::keys::{Certificate, PrivateKey};
use uuid::Uuid;

use super::gate::Actions;
use super::spawn::SUPERVISED;
use super::ssh::{Rekey, Terms};

/// Largest key or authorized-keys file read.
const FILE_MAX: u64 = 1024 * 1024;

/// Options of `worker --stdio`.
#[derive(Args, Clone, Debug, Default)]
pub struct StdioArgs {
    /// Serve one connection on standard input and output, with the keys below
    #[arg(long, requires = "host_key")]
    stdio: bool,
    /// Host key: an OpenSSH private key file
    #[arg(long, value_name = "FILE", requires = "stdio")]
    host_key: Option<PathBuf>,
    /// Host certificate for that key
    #[arg(long, value_name = "FILE", requires = "stdio")]
    host_cert: Option<PathBuf>,
    /// Trusted user authorities: public keys, one a line
    #[arg(long, value_name = "FILE", requires = "stdio")]
    user_ca: Option<PathBuf>,
    /// Keys that need no certificate: public keys, one a line
    #[arg(long, value_name = "FILE", requires = "stdio")]
    authorized_keys: Option<PathBuf>,
    /// The principal a certificate must name [default: the login]
    #[arg(long, value_name = "NAME", requires = "stdio")]
    user: Option<String>,
    /// The login to serve [default: whoever starts it]
    #[arg(long, value_name = "NAME", requires = "stdio")]
    login: Option<String>,
    /// Allow only this action; may be repeated [default: all]
    #[arg(long = "action", value_name = "ACTION", requires = "stdio",
          value_parser = clap::builder::PossibleValuesParser::new(Actions::TOKENS))]
    actions: Vec<String>,
    /// Seconds to add to this machine's clock
    #[arg(long, value_name = "SECONDS", requires = "stdio", allow_negative_numbers = true)]
    clock_correction: Option<i64>,
    /// End the session after this time
    #[arg(long, value_name = "SECONDS", requires = "stdio")]
    lasts: Option<i64>,
    /// Exchange keys anew after so many bytes either way [default: 1 GiB]
    #[arg(long, value_name = "BYTES", requires = "stdio")]
    rekey_bytes: Option<usize>,
    /// Exchange keys anew after this time [default: 3600]
    #[arg(long, value_name = "SECONDS", requires = "stdio")]
    rekey_seconds: Option<u64>,
    /// Take this variable from the client too; a trailing * matches the rest
    #[arg(long = "accept-env", value_name = "NAME", requires = "stdio")]
    accept_env: Vec<String>,
}

/// What the options amount to.
pub(super) struct Stdio {
    pub(super) terms: Terms,
    pub(super) host_key: PrivateKey,
    pub(super) host_certificate: Option<Certificate>,
    pub(super) clock_correction: i64,
    /// Seconds from the start.
    pub(super) lasts: Option<i64>,
}

impl StdioArgs {
    pub(super) fn wanted(&self) -> bool {
        self.stdio
    }

    fn rekey(&self) -> Rekey {
        let default = Rekey::default();
        Rekey {
            bytes: self.rekey_bytes.map_or(default.bytes, |bytes| bytes.min(default.bytes)),
            time: self.rekey_seconds.map_or(default.time, Duration::from_secs),
        }
    }

    pub(super) fn read(&self) -> anyhow::Result<Stdio> {
        ensure!(
            std::env::var_os(SUPERVISED).is_none(),
            "--stdio takes keys from the command line and does not run under a supervisor"
        );
        let Some(host_key) = &self.host_key else { bail!("--host-key is missing") };
        let login = match &self.login {
            Some(login) => login.clone(),
            None => {
                User::from_uid(Uid::current())?.context("whoever starts this has no account")?.name
            }
        };
        let actions: Vec<&str> = if self.actions.is_empty() {
            Actions::TOKENS.to_vec()
        } else {
            self.actions.iter().map(String::as_str).collect()
        };
        let private = PrivateKey::from_openssh(text(host_key)?)
            .with_context(|| format!("{} is not an OpenSSH private key", host_key.display()))?;
        Ok(Stdio {
            terms: Terms {
                session: Uuid::now_v7(),
                user: self.user.clone().unwrap_or_else(|| login.clone()),
                login,
                actions: Actions::from_tokens(&actions),
                authorities: keys(self.user_ca.as_deref())?,
                plain_keys: keys(self.authorized_keys.as_deref())?,
                expires_at: None,
                env: Vec::new(),
                rekey: self.rekey(),
                accept_env: self.accept_env.clone(),
            },
            host_key: private,
            host_certificate: self.host_cert.as_deref().map(certificate).transpose()?,
            clock_correction: self.clock_correction.unwrap_or_default(),
            lasts: self.lasts,
        })
    }
}

fn certificate(path: &Path) -> anyhow::Result<Certificate> {
    Certificate::from_openssh(text(path)?.trim())
        .with_context(|| format!("{} is not an OpenSSH certificate", path.display()))
}

fn keys(path: Option<&Path>) -> anyhow::Result<Vec<PublicKey>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    text(path)?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            PublicKey::from_openssh(line)
                .with_context(|| format!("{} has a line that is not a public key", path.display()))
        })
        .collect()
}

fn text(path: &Path) -> anyhow::Result<String> {
    let whose = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(whose)?.len();
    ensure!(size <= FILE_MAX, "{} is {size} bytes, too long for keys", whose());
    std::fs::read_to_string(path).with_context(whose)
}
