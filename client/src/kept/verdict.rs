//! Which failures no waiting mends.

use crate::failure::Failure;

/// Whether the session is given up for it. An expired login is no such reason: whoever logs in
/// again, in another window, has the session back.
pub(super) fn is_final(failure: &Failure) -> bool {
    !matches!(
        failure.token(),
        "line-lost"
            | "device-gone"
            | "relay-unreachable"
            | "relay-not-found"
            | "relay-silent"
            | "relay-busy"
            // A hotel's network before somebody has signed in looks like each of these.
            | "tls-intercepted"
            | "not-a-relay"
            | "proxy"
            | "proxy-login"
            | "device-offline"
            | "device-silent"
            | "busy"
            | "relay-draining"
            | "store-unavailable"
            | "internal"
            | "login-expired"
            | "not-logged-in"
            | "certificate-expired"
            | "certificate-not-yet-valid"
            | "clock-wrong"
    )
}

#[cfg(test)]
mod tests {
    use belay_proto::refusal::Code;

    use super::*;

    #[test]
    fn a_network_that_is_down_is_waited_for_and_a_permission_that_is_gone_is_not() {
        let verdict = |token: &'static str| is_final(&Failure::new(token, "x"));
        for waited in
            [Code::Offline, Code::DeviceSilent, Code::Draining, Code::Store, Code::Expired]
        {
            assert!(!verdict(waited.token()), "{waited:?}");
        }
        // What the picker of carriers says, all but that it is another relay.
        for waited in ["relay-busy", "relay-unreachable", "relay-not-found", "tls-intercepted"] {
            assert!(!verdict(waited), "{waited}");
        }
        for ended in [
            Code::SessionOver,
            Code::UserDisabled,
            Code::NotAllowed,
            Code::Quarantined,
            Code::Decommissioned,
            Code::ForeignCertificate,
            Code::Version,
        ] {
            assert!(verdict(ended.token()), "{ended:?}");
        }
    }
}
