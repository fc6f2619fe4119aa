//! What the first release wrote into certificates and grants, read by today's code.
//!
//! A CA lives 30 years and a device 10: their formats are frozen like the wire's. The files of
//! `golden/v1` are never changed.

use std::time::Duration;

use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::time::UnixTime;
use belay_proto::wire::decode_payload;
use belay_tunnel::pki::{
    ClientVerifier, GrantSigner, GrantVerifier, Identity, PeerCertificate, certificate_to_pem,
};
use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime as PkiTime};

const CA: &str = include_str!("../golden/v1/ca.crt");
const USER: &str = include_str!("../golden/v1/user.crt");

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn every_identity_is_written_as_it_always_was() {
    let id = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e";
    let user = Identity::User {
        id: id.parse::<UserId>().unwrap(),
        name: "anna.berg@example.com".parse().unwrap(),
    };
    let relay = Identity::Relay { name: "relay.example.com".into() };
    for (identity, uri) in [
        (Identity::Device(id.parse::<DeviceId>().unwrap()), format!("belay://device/{id}")),
        (user, format!("belay://user/{id}/anna.berg@example.com")),
        (relay, "belay://relay/relay.example.com".to_owned()),
    ] {
        assert_eq!(identity.to_uri(), uri);
        assert_eq!(Identity::from_uri(&uri), Some(identity));
    }
}

#[test]
fn a_uri_that_is_nearly_one_of_ours_names_nobody() {
    for uri in [
        "",
        "belay:",
        "belay://",
        "belay://device",
        "belay://device/",
        "belay://device/0197a3c2",
        "belay://device/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e/more",
        "belay://user/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e",
        "belay://user/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e/",
        "belay://user/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e/Anna",
        "belay://user/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e/anna/root",
        "belay://administrator/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e",
        "BELAY://device/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e",
        " belay://device/0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e",
    ] {
        assert_eq!(Identity::from_uri(uri), None, "{uri:?}");
    }
}

#[test]
fn a_certificate_of_the_first_release_still_names_its_holder() {
    let user = certificate(USER);
    let peer = PeerCertificate::from_der(&user).unwrap();
    let id = "01a2031a-aaa6-7698-8e34-a75b79e74170".parse().unwrap();
    assert_eq!(peer.identity, Identity::User { id, name: "erik".parse().unwrap() });
    assert_eq!(peer.not_after.0 - peer.not_before.0, 12 * 3600 + 300);
    assert_eq!(certificate_to_pem(&user), USER);

    // Its chain holds long after its own end: dates are judged at `Hello`.
    let verifier = ClientVerifier::required(certificate(CA));
    let later = PkiTime::since_unix_epoch(Duration::from_secs(peer.not_after.0 + 86_400));
    assert!(verifier.verify_client_cert(&user, &[], later).is_ok());
    let other = ClientVerifier::required(user.clone());
    assert!(other.verify_client_cert(&user, &[], later).is_err());
}

/// Key and signature made by another Ed25519 implementation (RFC 8032 is deterministic).
#[test]
fn a_grant_is_signed_and_verified_as_it_always_was() {
    let key = unhex(include_str!("../golden/v1/grant-key.hex"));
    let public = unhex(include_str!("../golden/v1/grant-key-public.hex"));
    let frozen = unhex(include_str!("../golden/v1/grant-signed.hex"));
    let grant = unhex(include_str!("../../../proto/tests/golden/v1/grant.hex"));
    let grant: Grant = decode_payload(&grant).unwrap();

    let signer = GrantSigner::from_pkcs8(&key).unwrap();
    assert_eq!(signer.public_key().as_slice(), public);
    assert_eq!(signer.sign(&grant).unwrap(), frozen);

    let verifier = GrantVerifier::new([&public]).unwrap();
    let verified = SignedGrant::verify(&frozen, &verifier, grant.device, grant.issued).unwrap();
    assert_eq!(*verified, grant);
    let late = UnixTime(grant.open_by.0 + 1);
    assert!(SignedGrant::verify(&frozen, &verifier, grant.device, late).is_err());
    let mut other = public;
    other[0] ^= 1;
    let other = GrantVerifier::new([&other]).unwrap();
    assert!(SignedGrant::verify(&frozen, &other, grant.device, grant.issued).is_err());
}
