//! `belay-agent enroll TOKEN`: keys are made here, the token brings everything else.
//!
//! The token carries the CA's fingerprint, so the very first contact is authenticated.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use belay_proto::api::{self, ApiError, EnrolAnswer, EnrolRequest};
use belay_proto::error_line::printable;
use belay_proto::token::{Invitation, Purpose};
use belay_tunnel::address::RelayAddress;
use belay_tunnel::https::Https;
use belay_tunnel::pki::FirstContactVerifier;
use belay_tunnel::{clock, tls};
use hyper::Method;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::state::{Enrolment, State};

/// This agent, in messages and logs.
pub const SOFTWARE: &str = concat!("belay-agent/", env!("CARGO_PKG_VERSION"));

/// Enrols this machine. `name` is the name it would like; its host name otherwise.
///
/// # Errors
/// One line: what went wrong and what to do.
pub async fn enrol(state: &State, token: &str, name: Option<String>) -> anyhow::Result<Enrolment> {
    let invitation = Invitation::from_text(token, Purpose::Enrol)?;
    state.prepare()?;
    let _lock = state.lock()?;
    let relay: RelayAddress = invitation.relay.parse().context("the token names a bad relay")?;
    let key = state.key_for_enrolment()?;
    let host_key = host_key(state)?;
    let request = EnrolRequest {
        secret: invitation.secret.to_hex(),
        csr: key.request_pem()?,
        ssh_host_key: host_key.public_key().to_openssh().context("the SSH host key")?,
        name,
        hostname: hostname(),
        platform: platform(),
        software: SOFTWARE.to_owned(),
        clock: clock::now(),
    };
    let verifier = FirstContactVerifier::new(invitation.ca);
    let config = Arc::new(tls::client(verifier, None, &[b"http/1.1"])?);
    let body = serde_json::to_vec(&request)?;
    let https = Https::new(relay.clone(), config, SOFTWARE);
    let answer = https.exchange(Method::POST, api::path::ENROL, body).await?;
    if !answer.status.is_success() {
        match serde_json::from_slice::<ApiError>(&answer.body) {
            Ok(error) => bail!("{}; {}", printable(&error.cause), printable(&error.remedy)),
            Err(_) => bail!("{relay} answered {}; check that it is a Belay relay", answer.status),
        }
    }
    let answer: EnrolAnswer = serde_json::from_slice(&answer.body)
        .with_context(|| format!("{relay} answered something this agent cannot read"))?;
    keep(state, &relay, answer)
}

fn keep(state: &State, relay: &RelayAddress, answer: EnrolAnswer) -> anyhow::Result<Enrolment> {
    let enrolment = Enrolment {
        device: answer.device,
        name: answer.name,
        relay: relay.to_string(),
        ssh_user_cas: answer.ssh_user_cas,
        grant_keys: answer.grant_keys,
    };
    enrolment.grant_verifier()?;
    state.set_ca(&answer.ca)?;
    state.set_certificate(&answer.certificate)?;
    state.set_host_certificate(&answer.ssh_host_certificate)?;
    state.set_relay_time(answer.clock)?;
    state.set_enrolment(&enrolment)?;
    Ok(enrolment)
}

fn host_key(state: &State) -> anyhow::Result<PrivateKey> {
    if state.has_host_key() {
        return PrivateKey::from_openssh(state.host_key()?.as_str())
            .context("the SSH host key is damaged; remove it and try again");
    }
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice())
        .map_err(|_| anyhow!("the system gave no random numbers"))?;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    state.set_host_key(&key.to_openssh(LineEnding::LF)?)?;
    Ok(key)
}

/// The host name as the kernel has it; empty when it cannot be read.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `linux/aarch64`
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
