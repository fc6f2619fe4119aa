//! Dialling: whatever carrier works, and one line when none does.

use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::picker::{self, BadSetting, Unreached, Wanted};
use belay_tunnel::carrier::quic::Role;
use rustls::ClientConfig;

use crate::failure::Failure;

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

/// Dials.
///
/// # Errors
/// One line for each way to fail.
pub(super) async fn dial(relay: &RelayAddress, tls: &ClientConfig) -> Result<Carrier, Failure> {
    let wanted = Wanted::from_environment(relay.clone(), tls.clone(), Role::Client)?;
    Ok(picker::dial(&wanted).await?.carrier)
}
