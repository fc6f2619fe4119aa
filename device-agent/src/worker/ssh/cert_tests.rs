#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{EcdsaCurve, rand_core::CryptoRng};

use super::*;

const NOW: u64 = 1_800_000_000;

fn rng() -> impl CryptoRng {
    russh::keys::key::safe_rng()
}

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rng(), algorithm).unwrap()
}

fn builder(subject: &PrivateKey, from: u64, to: u64) -> Builder {
    let mut builder = Builder::new_with_random_nonce(
        &mut rng(),
        subject.public_key().key_data().clone(),
        from,
        to,
    )
    .unwrap();
    builder.cert_type(CertType::User).unwrap().key_id("ada@laptop").unwrap().serial(7).unwrap();
    builder
}

struct World {
    authority: PrivateKey,
    subject: PrivateKey,
    authorities: Vec<PublicKey>,
}

impl World {
    fn new() -> Self {
        let authority = key(Algorithm::Ed25519);
        let authorities = vec![authority.public_key().clone()];
        Self { authority, subject: key(Algorithm::Ed25519), authorities }
    }

    fn good(&self) -> Builder {
        let mut builder = builder(&self.subject, NOW - 60, NOW + 60);
        builder.valid_principal("ada").unwrap();
        builder
    }

    fn judge(&self, builder: Builder) -> Result<Verified, Refusal> {
        self.judge_as("root", NOW, &builder.sign(&self.authority).unwrap())
    }

    fn judge_as(&self, login: &str, now: u64, cert: &Certificate) -> Result<Verified, Refusal> {
        let demand = Demand { authorities: &self.authorities, user: "ada", login: "root", now };
        check(cert, login, &demand)
    }
}

#[test]
fn a_good_certificate_is_verified_and_names_its_key() {
    let world = World::new();
    let verified = world.judge(world.good()).unwrap();
    let fingerprint = world.subject.public_key().fingerprint(HashAlg::Sha256).to_string();
    assert_eq!((verified.fingerprint, verified.serial), (fingerprint, 7));
    assert_eq!(verified.key_id, "ada@laptop");
}

#[test]
fn extensions_that_are_absent_restrict() {
    let world = World::new();
    let none = world.judge(world.good()).unwrap().rights;
    assert_eq!(none, Rights { terminal: false, forwarding: false, agent: false });
    let mut builder = world.good();
    for name in ["permit-pty", "permit-port-forwarding", "permit-agent-forwarding"] {
        builder.extension(name, "").unwrap();
    }
    assert_eq!(world.judge(builder).unwrap().rights, Rights::ALL);
}

#[test]
fn the_host_authority_a_foreign_one_and_a_users_own_key_are_not_trusted() {
    let world = World::new();
    for signer in [key(Algorithm::Ed25519), world.subject.clone()] {
        let cert = world.good().sign(&signer).unwrap();
        assert!(matches!(world.judge_as("root", NOW, &cert), Err(Refusal::Authority(_))));
    }
}

#[test]
fn no_authority_at_all_trusts_nobody() {
    let world = World::new();
    let cert = world.good().sign(&world.authority).unwrap();
    let demand = Demand { authorities: &[], user: "ada", login: "root", now: NOW };
    assert!(matches!(check(&cert, "root", &demand), Err(Refusal::Authority(_))));
}

#[test]
fn a_flipped_bit_anywhere_in_the_certificate_is_refused() {
    let world = World::new();
    let bytes = world.good().sign(&world.authority).unwrap().to_bytes().unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        if let Ok(cert) = Certificate::from_bytes(&bent) {
            assert!(world.judge_as("root", NOW, &cert).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_host_certificate_of_the_same_authority_is_refused() {
    let world = World::new();
    let subject = world.subject.public_key().key_data().clone();
    let mut host = Builder::new_with_random_nonce(&mut rng(), subject, NOW - 60, NOW + 60).unwrap();
    host.cert_type(CertType::Host).unwrap().valid_principal("ada").unwrap();
    assert_eq!(world.judge(host), Err(Refusal::NotUser));
}

#[test]
fn validity_is_a_half_open_window() {
    let world = World::new();
    let cert = world.good().sign(&world.authority).unwrap();
    let at = |now| world.judge_as("root", now, &cert);
    assert!(matches!(at(NOW - 61), Err(Refusal::NotYet(_))));
    assert!(at(NOW - 60).is_ok() && at(NOW + 59).is_ok());
    assert!(matches!(at(NOW + 60), Err(Refusal::Expired(_))));
    assert!(matches!(at(0), Err(Refusal::NotYet(_))));
    assert!(matches!(at(u64::MAX), Err(Refusal::Expired(_))));
}

#[test]
fn any_critical_option_is_refused() {
    let world = World::new();
    for (name, value) in [
        ("force-command", "true"),
        ("source-address", "0.0.0.0/0"),
        ("verify-required", ""),
        ("new@x", ""),
    ] {
        let mut builder = world.good();
        builder.critical_option(name, value).unwrap();
        assert_eq!(world.judge(builder), Err(Refusal::CriticalOption(name.into())));
    }
}

#[test]
fn an_unknown_extension_does_no_harm() {
    let world = World::new();
    let mut builder = world.good();
    builder.extension("new@example.com", "").unwrap();
    assert!(world.judge(builder).is_ok());
}

#[test]
fn principals_must_name_the_granted_user_exactly() {
    let world = World::new();
    let mut nobody = builder(&world.subject, NOW - 60, NOW + 60);
    nobody.all_principals_valid().unwrap();
    assert_eq!(world.judge(nobody), Err(Refusal::NoPrincipals));
    for name in ["bob", "Ada", "ada ", "ad", "adam", "root", "*"] {
        let mut builder = builder(&world.subject, NOW - 60, NOW + 60);
        builder.valid_principal(name).unwrap();
        assert!(matches!(world.judge(builder), Err(Refusal::User { .. })), "{name}");
    }
    let mut several = builder(&world.subject, NOW - 60, NOW + 60);
    several.valid_principal("bob").unwrap().valid_principal("ada").unwrap();
    assert!(world.judge(several).is_ok());
}

#[test]
fn another_login_than_the_granted_one_is_refused() {
    let world = World::new();
    let cert = world.good().sign(&world.authority).unwrap();
    for login in ["", "Root", "root ", "toor", "ada"] {
        assert!(matches!(world.judge_as(login, NOW, &cert), Err(Refusal::Login { .. })), "{login}");
    }
}

#[test]
fn ecdsa_keys_are_taken() {
    let world = World::new();
    let subject = key(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
    let mut builder = builder(&subject, NOW - 60, NOW + 60);
    builder.valid_principal("ada").unwrap();
    assert!(world.judge(builder).is_ok());
}

#[test]
fn a_refusal_shows_no_control_characters_of_the_peer() {
    let world = World::new();
    let mut builder = builder(&world.subject, NOW - 60, NOW + 60);
    builder.valid_principal("\u{1b}]0;x\u{7}\n").unwrap();
    let refusal = world.judge(builder).unwrap_err().to_string();
    assert!(!refusal.chars().any(char::is_control), "{refusal:?}");
}
