//! Dialling: whatever carrier works, and one line when none does.

use std::sync::Arc;

use belay_tunnel::carrier::picker::{BadSetting, History, Unreached, Wanted};
use belay_tunnel::carrier::quic::Role;
use belay_tunnel::pki::RelayVerifier;
use belay_tunnel::tls;

use crate::failure::Failure;
use crate::home::Login;

impl From<Unreached> for Failure {
    fn from(unreached: Unreached) -> Self {
        Self::new(unreached.token, unreached.cause).remedy(unreached.remedy)
    }
}

impl From<BadSetting> for Failure {
    fn from(error: BadSetting) -> Self {
        Self::new("bad-setting", error.to_string()).remedy("change it in this shell's environment")
    }
}

/// What to dial, as whom, over which carriers.
///
/// # Errors
/// When the login's files or the environment's settings cannot be used.
pub(crate) fn wanted(login: &Login, history: &Arc<History>) -> Result<Wanted, Failure> {
    let verifier = RelayVerifier::pinned(login.ca()?, login.record().clock);
    let tls = tls::client(verifier, Some(login.tls_identity()?), &[])
        .map_err(|e| Failure::new("home-damaged", e.to_string()).remedy("run: belay login"))?;
    let relay = login.relay().clone();
    Ok(Wanted::from_environment(relay, tls, Role::Client, Arc::clone(history))?)
}
