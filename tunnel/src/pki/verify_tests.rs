#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::pki::{CertificateAuthority, TlsKey};
use belay_proto::ids::{DeviceId, UserId};
use std::time::Duration;
use uuid::Uuid;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn ca() -> CertificateAuthority {
    CertificateAuthority::generate("relay.test", NOW).unwrap().0
}

fn device() -> Identity {
    Identity::Device(DeviceId::from_uuid(Uuid::from_u128(1)))
}

fn relay() -> Identity {
    Identity::Relay { name: "relay.test".into() }
}

fn issue(ca: &CertificateAuthority, identity: &Identity) -> CertificateDer<'static> {
    let request = TlsKey::generate().unwrap().request_der().unwrap();
    ca.issue_for_request(&request, identity, NOW, DAY).unwrap()
}

fn at(now: UnixTime) -> PkiTime {
    PkiTime::since_unix_epoch(Duration::from_secs(now.0))
}

fn client(ca: &CertificateAuthority, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
    let verifier = ClientVerifier::required(ca.certificate().clone());
    verifier.verify_client_cert(leaf, &[], at(now)).is_ok()
}

fn server(
    ca: &CertificateAuthority,
    leaf: &CertificateDer<'_>,
    name: &str,
    now: UnixTime,
    floor: UnixTime,
) -> bool {
    let verifier = RelayVerifier::pinned(ca.certificate().clone(), floor);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(leaf, &[], &name, &[], at(now)).is_ok()
}

#[test]
fn a_certificate_says_what_was_issued() {
    let user = Identity::User {
        id: UserId::from_uuid(Uuid::from_u128(2)),
        name: "anna@example.com".parse().unwrap(),
    };
    for identity in [device(), user, relay()] {
        let peer = PeerCertificate::from_der(&issue(&ca(), &identity)).unwrap();
        assert_eq!(peer.identity, identity);
        assert_eq!(peer.not_before, UnixTime(NOW.0 - 300));
        assert_eq!(peer.not_after, NOW.plus(DAY));
    }
}

#[test]
fn only_our_own_ca_is_believed_whatever_the_date() {
    let (ours, theirs) = (ca(), ca());
    let leaf = issue(&ours, &device());
    for now in [UnixTime(0), NOW, NOW.plus(100 * DAY), UnixTime(4_102_444_800)] {
        assert!(client(&ours, &leaf, now));
        assert!(!client(&theirs, &leaf, now));
    }
}

#[test]
fn a_devices_certificate_is_no_relays_and_the_reverse() {
    let ca = ca();
    assert!(!server(&ca, &issue(&ca, &device()), "relay.test", NOW, UnixTime(0)));
    assert!(!client(&ca, &issue(&ca, &relay()), NOW));
}

#[test]
fn the_relay_must_have_the_name_that_was_dialled() {
    let ca = ca();
    let leaf = issue(&ca, &relay());
    assert!(server(&ca, &leaf, "relay.test", NOW, UnixTime(0)));
    assert!(!server(&ca, &leaf, "other.test", NOW, UnixTime(0)));
    let by_address = issue(&ca, &Identity::Relay { name: "192.0.2.7".into() });
    assert!(server(&ca, &by_address, "192.0.2.7", NOW, UnixTime(0)));
    assert!(!server(&ca, &by_address, "192.0.2.8", NOW, UnixTime(0)));
}

#[test]
fn a_relay_certificate_that_ended_before_the_last_known_time_is_refused() {
    let ca = ca();
    let leaf = issue(&ca, &relay());
    assert!(server(&ca, &leaf, "relay.test", UnixTime(0), NOW));
    assert!(!server(&ca, &leaf, "relay.test", UnixTime(0), NOW.plus(2 * DAY)));
}

#[test]
fn first_contact_believes_only_the_fingerprint() {
    let (ours, theirs) = (ca(), ca());
    let verifier = FirstContactVerifier::new(ours.fingerprint());
    let name = ServerName::try_from("relay.test").unwrap();
    let try_with = |shown: &CertificateAuthority, by: &CertificateAuthority| {
        let chain = [shown.certificate().clone()];
        verifier.verify_server_cert(&issue(by, &relay()), &chain, &name, &[], at(NOW)).is_ok()
    };
    assert!(!try_with(&theirs, &theirs), "another relay altogether");
    assert!(!try_with(&ours, &theirs), "our CA shown, but it did not issue the leaf");
    assert!(verifier.ca().is_none());
    assert!(try_with(&ours, &ours));
    assert_eq!(verifier.ca().as_ref(), Some(ours.certificate()));
}

#[test]
fn a_request_that_does_not_prove_its_key_is_refused() {
    let request = TlsKey::generate().unwrap().request_der().unwrap();
    for at in [request.len() - 1, request.len() / 2] {
        let mut bad = request.clone();
        *bad.get_mut(at).unwrap() ^= 1;
        assert!(ca().issue_for_request(&bad, &device(), NOW, DAY).is_err());
    }
    assert!(ca().issue_for_request(&[0; 5000], &device(), NOW, DAY).is_err());
}
