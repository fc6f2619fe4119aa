//! What the network does between here and the relay, for the two doctors: each way tried by itself,
//! each finding one line with what to change.
//!
//! Its law: it proves the relay by TLS and says no `Hello`, so that asking never takes a running
//! agent's line away; and it shows no password. `way` tries the carriers, `verdict` makes findings
//! of what came of them, `check` is a finding.

mod check;
mod verdict;
mod way;

pub use check::{Check, Verdict};

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::carrier::picker::{Kind, Wanted};
use crate::reach::Route;

/// As long as the picker waits for a name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(4);

/// Tries everything there is. Takes a few seconds, and up to half a minute where nothing answers.
pub async fn network(wanted: &Wanted) -> Vec<Check> {
    let (host, mut checks) = (wanted.relay.host(), Vec::new());
    let proxied = wanted.proxies.towards(host).is_some();
    let found = timeout(RESOLVE_WITHIN, wanted.relay.resolve()).await;
    let mut address = None;
    checks.push(match found {
        Ok(Ok(addresses)) => {
            address = addresses.first().copied();
            let shown: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
            Check::well("dns", format!("{host} is {}", shown.join(", ")))
        }
        Ok(Err(error)) => verdict::no_name(error.to_string(), proxied),
        Err(_) => verdict::no_name(format!("no answer for the name \"{host}\""), proxied),
    });
    if let Some(described) = wanted.proxies.described(host) {
        checks.push(Check::well("proxy", described));
    }
    let (quic, socket) =
        tokio::join!(way::tried(wanted, Kind::Quic), way::tried(wanted, Kind::WebSocket));
    verdict::on_the_ways(&quic, &socket, &mut checks);
    if let Some(local) = address.and_then(|address| Route::towards(address).address())
        && let Some(address) = address
    {
        checks.extend(nat(local, address.ip()));
    }
    checks
}

/// What can be told of address translation from this side alone.
fn nat(local: IpAddr, relay: IpAddr) -> Option<Check> {
    if relay.is_loopback() || !is_private(local) || is_private(relay) {
        return None;
    }
    Some(Check::well(
        "nat",
        format!(
            "this machine is {local}, translated on the way; a line says something at least every \
             20 s, which keeps a mapping that lives 30 s or more"
        ),
    ))
}

/// RFC 1918, RFC 6598, RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_translated_address_is_told_from_one_that_needs_no_translation() {
        for (local, relay, translated) in [
            ("10.77.1.2", "198.18.1.2", true),
            ("100.64.2.2", "198.18.1.2", true),
            ("198.18.3.2", "198.18.1.2", false),
            ("10.0.0.2", "10.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", false),
            ("fd00::2", "2001:db8::1", true),
        ] {
            let check = nat(local.parse().unwrap(), relay.parse().unwrap());
            assert_eq!(check.is_some(), translated, "{local} to {relay}");
        }
    }
}
