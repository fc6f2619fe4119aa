//! Dialling: the first of the relay's addresses that answers.

use std::net::SocketAddr;
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::quic::{Dialler, QuicError, Role};
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
use belay_tunnel::address::RelayAddress;

/// The whole handshake. QUIC repeats its first packet after 1, 3 and 7 s.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Head start of an address over the next (RFC 8305 §5, Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses tried. A name with more is misconfigured.
const MAX_ADDRESSES: usize = 8;

/// TLS alerts with which a relay refuses our certificate (RFC 8446 §6.2): bad, revoked, expired,
/// unknown, unknown CA, decrypt error, required.
const CERTIFICATE_ALERTS: [u8; 7] = [42, 44, 45, 46, 48, 51, 116];

/// Dials.
///
/// # Errors
/// One line for each way to fail.
pub(super) async fn dial(
    relay: &RelayAddress,
    tls: &ClientConfig,
) -> Result<(Dialler, Carrier), Failure> {
    let addresses = relay.resolve().await.map_err(|e| {
        Failure::new("relay-not-found", e.to_string())
            .remedy("check the name, and this machine's network and DNS")
    })?;
    match timeout(DIAL_WITHIN, race(relay, tls, addresses)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(explain(relay, &error)),
        Err(_) => Err(no_answer(relay)),
    }
}

async fn race(
    relay: &RelayAddress,
    tls: &ClientConfig,
    addresses: Vec<SocketAddr>,
) -> Result<(Dialler, Carrier), QuicError> {
    if let [only] = addresses.as_slice() {
        return one(relay.host().to_owned(), tls.clone(), *only).await;
    }
    let mut attempts = JoinSet::new();
    for (i, address) in (0u32..).zip(addresses.into_iter().take(MAX_ADDRESSES)) {
        let (host, tls) = (relay.host().to_owned(), tls.clone());
        attempts.spawn(async move {
            sleep(HEAD_START * i).await;
            one(host, tls, address).await
        });
    }
    let mut last = None;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = Some(error),
            Err(panic) => {
                if let Ok(panic) = panic.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| QuicError::Name(relay.host().to_owned())))
}

async fn one(
    host: String,
    tls: ClientConfig,
    address: SocketAddr,
) -> Result<(Dialler, Carrier), QuicError> {
    let dialler = Dialler::new(Role::Client, tls, address)?;
    let carrier = dialler.dial(address, &host).await?;
    Ok((dialler, carrier))
}

fn no_answer(relay: &RelayAddress) -> Failure {
    Failure::new("relay-unreachable", format!("{relay} does not answer on UDP"))
        .remedy("check that the relay runs and that no firewall blocks UDP: run belay doctor")
}

fn explain(relay: &RelayAddress, error: &QuicError) -> Failure {
    if let QuicError::Handshake(_, carrier) = error {
        if carrier.is_timeout() {
            return no_answer(relay);
        }
        // Our own verdict on the relay and the relay's on us travel as the same alerts; only the
        // side differs, and the text of the error says which.
        let text = one_line(error);
        if carrier.alert().is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert)) {
            return if text.contains("UnknownIssuer") {
                Failure::new(
                    "foreign-certificate",
                    format!("{relay} does not show a certificate of the CA you logged in with"),
                )
                .remedy(
                    "somebody may be in between, or the relay was made anew: ask for a new code",
                )
            } else {
                Failure::new("foreign-certificate", format!("no line to {relay}: {text}"))
                    .remedy("run: belay login")
            };
        }
        return Failure::new("relay-unreachable", format!("no line to {relay}: {text}"))
            .remedy("run: belay doctor");
    }
    Failure::new("relay-unreachable", one_line(error)).remedy("check this machine's network")
}
