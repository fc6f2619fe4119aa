//! What is known of the NATs this device has been behind, kept over restarts.
//!
//! A network is told by this device's own address in it and by its gateway: both are read from the
//! kernel, nothing is sent. Two networks that look alike are one; what is known wrongly is noticed
//! by `proto::keeping` and corrected.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use belay_proto::keeping::Known;
use belay_proto::time::UnixTime;
use belay_tunnel::reach::Route;
use serde::{Deserialize, Serialize};

use crate::state::State;

/// Networks remembered; the one that was learnt of longest ago makes room.
const MOST: usize = 16;

/// What a NAT did not hold is tried again after this: routers are replaced.
const FORGET_FAILURE: Duration = Duration::from_secs(7 * 86_400);

/// The file, in the state directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Networks(BTreeMap<String, Entry>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    holds: u32,
    fails: Option<u32>,
    learnt: UnixTime,
}

/// The network towards a peer, as its name in the file; none when there is no way.
pub(super) fn towards(peer: SocketAddr) -> Option<String> {
    let own = Route::towards(peer).address()?;
    let gateway = if peer.is_ipv4() || peer.ip().to_canonical().is_ipv4() {
        let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        default_gateway(&table).map(|gateway| format!(" via {gateway}")).unwrap_or_default()
    } else {
        String::new()
    };
    Some(format!("{own}{gateway}"))
}

/// The kernel's table has addresses in hexadecimal, in the machine's own order of bytes (proc(5)).
fn default_gateway(table: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (to, via) = (columns.next()?, columns.next()?);
        let via = u32::from_str_radix(via, 16).ok()?;
        (to == "00000000" && via != 0).then(|| Ipv4Addr::from(via.to_ne_bytes()))
    })
}

/// What is known of the NAT on the way to a peer.
pub(crate) fn known_nat(state: &State, peer: SocketAddr) -> Option<Known> {
    recall(state, &towards(peer)?, belay_tunnel::clock::now())
}

/// What is known of this network.
pub(super) fn recall(state: &State, network: &str, now: UnixTime) -> Option<Known> {
    let entry = load(state).0.remove(network)?;
    let fails = entry.fails.filter(|_| entry.learnt.distance(now) < FORGET_FAILURE);
    Some(Known { holds: entry.holds, fails })
}

/// Keeps what was learnt of this network.
pub(super) fn remember(state: &State, network: &str, known: Known, now: UnixTime) {
    let mut networks = load(state);
    let entry = Entry { holds: known.holds, fails: known.fails, learnt: now };
    networks.0.insert(network.to_owned(), entry);
    while networks.0.len() > MOST {
        let oldest = networks.0.iter().min_by_key(|(_, entry)| entry.learnt);
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { return };
        networks.0.remove(&oldest);
    }
    let kept = serde_json::to_vec_pretty(&networks)
        .map_err(anyhow::Error::from)
        .and_then(|json| Ok(state.set_networks(&json)?));
    if let Err(error) = kept {
        tracing::warn!(%error, "cannot keep what is known of this network");
    }
}

fn load(state: &State) -> Networks {
    // One that is missing or damaged knows nothing.
    let text = state.networks().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn what_is_learnt_is_known_again_and_a_failure_is_forgotten_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        assert_eq!(recall(&state, "10.0.0.2", NOW), None);
        let known = Known { holds: 58, fails: Some(118) };
        remember(&state, "10.0.0.2", known, NOW);
        assert_eq!(recall(&state, "10.0.0.2", NOW), Some(known));
        let later = NOW.plus(FORGET_FAILURE);
        assert_eq!(recall(&state, "10.0.0.2", later), Some(Known { holds: 58, fails: None }));
        for n in 0..40 {
            let learnt = NOW.plus(Duration::from_secs(1 + n));
            remember(&state, &format!("10.0.1.{n}"), known, learnt);
        }
        assert_eq!(load(&state).0.len(), MOST);
        assert_eq!(recall(&state, "10.0.0.2", NOW), None, "the oldest made room");
        std::fs::write(dir.path().join("networks.json"), "damaged").unwrap();
        assert_eq!(recall(&state, "10.0.1.39", NOW), None);
    }

    #[test]
    fn the_gateway_is_read_from_the_kernels_table() {
        let own = u32::from_ne_bytes([192, 168, 7, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\neth0\t0007A8C0\t00000000\t0001\n\
             eth0\t00000000\t{own:08X}\t0003\n"
        );
        assert_eq!(default_gateway(&table), Some(Ipv4Addr::new(192, 168, 7, 1)));
        assert_eq!(default_gateway(""), None);
    }
}
