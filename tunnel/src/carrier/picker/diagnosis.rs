//! One line out of many attempts: what the network did, and what to change.
//!
//! Its law: the cause nearest to a remedy is named, not the last that happened.

use super::{Attempt, How, Kind, Trouble};
use crate::address::RelayAddress;

/// No carrier could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct Unreached {
    /// One word, stable.
    pub token: &'static str,
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: &'static str,
    /// Whether trying again cannot help until somebody has changed something.
    pub lasting: bool,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
}

fn failures(attempts: &[Attempt], kind: Kind) -> impl Iterator<Item = (Trouble, &Attempt)> {
    attempts.iter().filter(move |attempt| attempt.kind == kind).filter_map(|attempt| match &attempt
        .how
    {
        How::Failed(trouble, _) => Some((*trouble, attempt)),
        How::Won | How::Overtaken => None,
    })
}

impl Unreached {
    /// Whether an attempt failed so.
    pub fn finds(&self, trouble: Trouble) -> bool {
        self.attempts.iter().any(|attempt| attempt.trouble() == Some(trouble))
    }

    pub(crate) fn new(relay: &RelayAddress, attempts: Vec<Attempt>) -> Self {
        let quic = |trouble| failures(&attempts, Kind::Quic).find(|(t, _)| *t == trouble);
        let web = |trouble| failures(&attempts, Kind::WebSocket).find(|(t, _)| *t == trouble);
        let any = |trouble| quic(trouble).or_else(|| web(trouble)).map(|(_, attempt)| attempt);
        let why = |attempt: &Attempt| match &attempt.how {
            How::Failed(_, why) => why.clone(),
            How::Won | How::Overtaken => String::new(),
        };
        let (token, cause, remedy, lasting) = if any(Trouble::NotAccepted).is_some() {
            (
                "foreign-certificate",
                format!("{relay} does not accept this certificate: it is not one of its own"),
                "run: belay login, or enrol the device again",
                true,
            )
        } else if quic(Trouble::NotTheRelay).is_some() {
            (
                "foreign-certificate",
                format!("{relay} does not show a certificate of the CA it was enrolled with"),
                "somebody may be in between, or the relay was made anew: ask for a new code",
                true,
            )
        } else if web(Trouble::NotTheRelay).is_some() {
            (
                "tls-intercepted",
                format!(
                    "somebody answers TLS in the place of {relay}, and UDP does not get through"
                ),
                "let the network pass UDP to the relay, or except it from TLS inspection",
                true,
            )
        } else if let Some(attempt) = any(Trouble::ProxyLogin) {
            (
                "proxy-login",
                format!("{} ({})", why(attempt), attempt.to),
                crate::proxy::LOGIN_REMEDY,
                true,
            )
        } else if let Some(attempt) = any(Trouble::Proxy) {
            (
                "proxy",
                format!("no way through the proxy {}: {}", attempt.to, why(attempt)),
                crate::proxy::REMEDY,
                false,
            )
        } else if let Some(attempt) = any(Trouble::NotFound) {
            (
                "relay-not-found",
                why(attempt),
                "check the name, and this machine's network and DNS",
                false,
            )
        } else if any(Trouble::Busy).is_some() {
            (
                "relay-busy",
                format!("{relay} takes no more connections now"),
                "try again in a moment",
                false,
            )
        } else if let Some((_, attempt)) = web(Trouble::Upgrade) {
            (
                "not-a-relay",
                format!("{relay} speaks HTTPS and takes no line: {}", why(attempt)),
                "check that the address is a Belay relay's, and that the relay is not older",
                false,
            )
        } else if web(Trouble::ConnectionRefused).is_some() {
            (
                "relay-unreachable",
                format!("{relay} refuses TCP connections and does not answer on UDP"),
                "check that the relay runs, and its port",
                false,
            )
        } else if any(Trouble::NoRoute).is_some() {
            (
                "relay-unreachable",
                format!("this machine has no route to {relay}"),
                "check this machine's network",
                false,
            )
        } else if let Some(attempt) = any(Trouble::Other) {
            (
                "relay-unreachable",
                format!("no line to {relay}: {}", why(attempt)),
                "run the doctor command for every attempt",
                false,
            )
        } else {
            (
                "relay-unreachable",
                format!("{relay} does not answer, {}", tried(&attempts)),
                "check that the relay runs and that no firewall blocks it",
                false,
            )
        };
        Self { token, cause, remedy, lasting, attempts }
    }
}

fn tried(attempts: &[Attempt]) -> &'static str {
    let of = |kind| attempts.iter().any(|attempt| attempt.kind == kind);
    match (of(Kind::Quic), of(Kind::WebSocket)) {
        (true, false) => "on UDP",
        (false, true) => "on TCP",
        (true, true) | (false, false) => "neither on UDP nor on TCP",
    }
}

/// What a line over the fallback says about the network: the cause and what to change. `None` when
/// there is nothing to say.
pub fn remark(attempts: &[Attempt]) -> Option<(&'static str, &'static str)> {
    let won = attempts.iter().find(|attempt| attempt.how == How::Won)?;
    if won.kind == Kind::Quic || attempts.iter().all(|attempt| attempt.kind != Kind::Quic) {
        return None;
    }
    let refused = failures(attempts, Kind::Quic).any(|(trouble, _)| {
        !matches!(trouble, Trouble::Silent | Trouble::NotFound | Trouble::NoRoute)
    });
    Some(if refused {
        ("QUIC was answered and failed; the line goes over TCP", "look at the attempt's cause")
    } else {
        (
            "UDP does not get through; the line goes over TCP, slower on a lossy network",
            "let the network pass UDP to the relay's port",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Duration;

    fn failed(kind: Kind, trouble: Trouble) -> Attempt {
        let how = How::Failed(trouble, "why".into());
        Attempt { kind, to: "there".into(), took: Duration::from_secs(1), how }
    }

    #[test]
    fn the_cause_nearest_to_a_remedy_is_named() {
        let relay = "relay.test:443".parse().unwrap();
        for (quic, web, token) in [
            (Trouble::Silent, Trouble::Silent, "relay-unreachable"),
            (Trouble::Silent, Trouble::ConnectionRefused, "relay-unreachable"),
            (Trouble::Silent, Trouble::NotTheRelay, "tls-intercepted"),
            (Trouble::NotTheRelay, Trouble::NotTheRelay, "foreign-certificate"),
            (Trouble::Silent, Trouble::NotAccepted, "foreign-certificate"),
            (Trouble::NotFound, Trouble::ProxyLogin, "proxy-login"),
            (Trouble::NotFound, Trouble::Proxy, "proxy"),
            (Trouble::Silent, Trouble::Upgrade, "not-a-relay"),
            (Trouble::Busy, Trouble::Silent, "relay-busy"),
        ] {
            let attempts = vec![failed(Kind::Quic, quic), failed(Kind::WebSocket, web)];
            let unreached = Unreached::new(&relay, attempts);
            assert_eq!(unreached.token, token, "{quic:?} {web:?}: {unreached}");
            assert!(!unreached.to_string().contains('\n'));
        }
        let only = Unreached::new(&relay, vec![failed(Kind::Quic, Trouble::Silent)]);
        assert!(only.cause.contains("on UDP"), "{only}");
    }

    #[test]
    fn a_fallback_that_won_over_a_silent_quic_is_remarked() {
        let won = |kind| Attempt { how: How::Won, ..failed(kind, Trouble::Other) };
        let overtaken = Attempt { how: How::Overtaken, ..failed(Kind::Quic, Trouble::Other) };
        assert_eq!(remark(&[won(Kind::Quic)]), None);
        assert_eq!(remark(&[won(Kind::WebSocket)]), None, "QUIC was not wanted");
        assert!(remark(&[won(Kind::WebSocket), overtaken]).unwrap().0.starts_with("UDP"));
        let failed = failed(Kind::Quic, Trouble::Other);
        assert!(remark(&[won(Kind::WebSocket), failed]).unwrap().0.starts_with("QUIC"));
    }
}
