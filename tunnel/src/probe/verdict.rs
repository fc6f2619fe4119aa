//! What the tries mean, and what to change.

use super::Check;
use super::way::{Failing, Way, Working};
use crate::carrier::picker::Trouble;

const QUIC: &str = "quic";
const WEBSOCKET: &str = "websocket";

/// A datagram this large passes wherever an ordinary line of 1,500 bytes has one common tunnel in
/// it: IPv6's own least, less the headers of IPv6 and UDP.
const ORDINARY: u16 = 1_232;

/// The relay's name has no address here.
pub(super) fn no_name(why: String, proxied: bool) -> Check {
    if proxied {
        return Check::note("dns", why, "the proxy is asked for it instead; QUIC is not to be had");
    }
    Check::bad("dns", why, "check the name, and this machine's network and DNS")
}

/// Each carrier's own line, in the light of the other.
pub(super) fn on_the_ways(quic: &Way, socket: &Way, checks: &mut Vec<Check>) {
    let (quic_works, socket_works) = (works(quic), works(socket));
    match quic {
        Way::NotTried(why) => checks.push(Check::note(QUIC, why, "")),
        Way::Works(working) => {
            checks.push(Check::well(QUIC, up(working)));
            checks.extend(working.size.map(mtu));
        }
        Way::Fails(failing) => checks.push(no_quic(failing, socket_works)),
    }
    checks.push(match socket {
        Way::NotTried(why) => Check::note(WEBSOCKET, why, ""),
        Way::Works(working) => Check::well(WEBSOCKET, up(working)),
        Way::Fails(failing) => no_socket(failing, quic_works),
    });
}

const fn works(way: &Way) -> bool {
    matches!(way, Way::Works(_))
}

fn up(Working { to, took, round_trip, .. }: &Working) -> String {
    let ms = round_trip.as_secs_f64() * 1000.0;
    format!("{to} proved itself in {} ms, round trip {ms:.1} ms", took.as_millis())
}

fn mtu(size: u16) -> Check {
    let found = format!("QUIC datagrams of {size} bytes get through");
    if size < ORDINARY {
        let remedy = "a tunnel or modem on the way takes less than usual: check its MTU";
        return Check::note("mtu", found, remedy);
    }
    Check::well("mtu", found)
}

fn tried(failing: &Failing) -> String {
    let attempts = failing.unreached.attempts.iter().map(ToString::to_string);
    attempts.collect::<Vec<_>>().join("; ")
}

fn no_quic(failing: &Failing, socket_works: bool) -> Check {
    let unreached = &failing.unreached;
    let silent = unreached.attempts.iter().all(|attempt| {
        attempt.trouble().is_none_or(|t| matches!(t, Trouble::Silent | Trouble::NoRoute))
    });
    if socket_works && silent {
        return Check::note(
            QUIC,
            format!("UDP does not get through: {}", tried(failing)),
            "let the network pass UDP to the relay's port; until then lines go over TCP, slower \
             on a lossy network",
        );
    }
    if socket_works && unreached.finds(Trouble::NotFound) {
        return Check::note(QUIC, tried(failing), "let this machine find the relay's name");
    }
    Check::bad(QUIC, format!("{}: {}", unreached.cause, tried(failing)), unreached.remedy)
}

fn no_socket(failing: &Failing, quic_works: bool) -> Check {
    let unreached = &failing.unreached;
    if unreached.finds(Trouble::NotTheRelay) {
        let by = match &failing.instead {
            Some(issuer) => format!(", with a certificate issued by \"{issuer}\""),
            None => String::new(),
        };
        let remedy = "except the relay from TLS inspection, or let the network pass UDP to it";
        let what = format!("TLS is intercepted: somebody answers in the relay's place{by}");
        return Check::bad(WEBSOCKET, format!("{what}: {}", tried(failing)), remedy);
    }
    if unreached.finds(Trouble::ProxyLogin) || !quic_works {
        return Check::bad(
            WEBSOCKET,
            format!("{}: {}", unreached.cause, tried(failing)),
            unreached.remedy,
        );
    }
    Check::note(
        WEBSOCKET,
        format!("no way over TCP: {}", tried(failing)),
        format!("lines go over QUIC, and nothing is left when UDP fails: {}", unreached.remedy),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::carrier::picker::{Attempt, How, Kind, Unreached};
    use crate::probe::Verdict;

    fn fails(kind: Kind, trouble: Trouble) -> Way {
        let how = How::Failed(trouble, "because".into());
        let attempts = vec![Attempt { kind, to: "there".into(), took: Duration::ZERO, how }];
        let unreached = Unreached::new(&"relay.test".parse().unwrap(), attempts);
        Way::Fails(Failing { unreached, instead: Some("CN=Corp".into()) })
    }

    fn working(size: Option<u16>) -> Way {
        let took = Duration::from_millis(1);
        Way::Works(Working { to: "there".into(), took, round_trip: took, size })
    }

    fn told(quic: &Way, socket: &Way) -> Vec<Check> {
        let mut checks = Vec::new();
        on_the_ways(quic, socket, &mut checks);
        checks
    }

    #[test]
    fn what_works_is_well_and_small_datagrams_are_remarked() {
        assert!(
            told(&working(Some(1_472)), &working(None)).iter().all(|c| c.verdict == Verdict::Well)
        );
        let checks = told(&working(Some(1_200)), &working(None));
        assert_eq!((checks[1].name, checks[1].verdict), ("mtu", Verdict::Note));
    }

    #[test]
    fn a_blocked_udp_is_a_remark_while_tcp_works_and_an_error_when_it_does_not() {
        let blocked = fails(Kind::Quic, Trouble::Silent);
        let checks = told(&blocked, &working(None));
        assert_eq!(checks[0].verdict, Verdict::Note);
        assert!(checks[0].detail.starts_with("UDP does not get through"), "{checks:?}");
        let checks = told(&blocked, &fails(Kind::WebSocket, Trouble::Silent));
        assert!(checks.iter().all(|check| check.verdict == Verdict::Bad), "{checks:?}");
    }

    #[test]
    fn an_interception_and_a_wrong_proxy_login_are_errors_even_while_quic_works() {
        let checks = told(&working(None), &fails(Kind::WebSocket, Trouble::NotTheRelay));
        assert_eq!(checks[1].verdict, Verdict::Bad);
        assert!(checks[1].detail.contains("issued by \"CN=Corp\""), "{checks:?}");
        let checks = told(&working(None), &fails(Kind::WebSocket, Trouble::ProxyLogin));
        assert_eq!(checks[1].verdict, Verdict::Bad);
        let checks = told(&working(None), &fails(Kind::WebSocket, Trouble::ConnectionRefused));
        assert_eq!(checks[1].verdict, Verdict::Note);
    }
}
