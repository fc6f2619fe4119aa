#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use ssh_key::PrivateKey;
use ssh_key::certificate::Builder;
use ssh_key::private::Ed25519Keypair;

use super::*;

const NOW: u64 = 1_800_000_000;
const ID: &str = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn trust() -> HostTrust {
    HostTrust {
        cas: vec![key(1).public_key().clone()],
        names: vec!["pump-17".into(), ID.into()],
        now: UnixTime(NOW),
    }
}

fn certificate(change: impl FnOnce(&mut Builder)) -> Certificate {
    signed_by(&key(1), change)
}

fn signed_by(ca: &PrivateKey, change: impl FnOnce(&mut Builder)) -> Certificate {
    of_type(CertType::Host, ca, change)
}

fn of_type(kind: CertType, ca: &PrivateKey, change: impl FnOnce(&mut Builder)) -> Certificate {
    let host = key(7);
    let mut builder = Builder::new(vec![9; 16], host.public_key(), NOW - 60, NOW + 60).unwrap();
    builder.cert_type(kind).unwrap();
    change(&mut builder);
    builder.sign(ca).unwrap()
}

fn named(name: &str) -> impl FnOnce(&mut Builder) + '_ {
    move |builder| {
        builder.valid_principal(name).unwrap();
    }
}

fn judge(certificate: Certificate) -> Result<(), HostCertError> {
    trust().judge(&PublicKeyOrCertificate::Certificate(certificate))
}

#[test]
fn a_certificate_for_the_name_or_the_id_is_the_device() {
    for name in ["pump-17", "pump-17.belay", ID, &format!("{ID}.belay")] {
        assert_eq!(judge(certificate(named(name))), Ok(()), "{name}");
    }
    let several = certificate(|b| {
        b.valid_principal("old-name").unwrap();
        b.valid_principal(ID).unwrap();
    });
    assert_eq!(judge(several), Ok(()));
}

#[test]
fn a_bare_key_is_never_believed() {
    let bare = PublicKeyOrCertificate::from(key(7).public_key().clone());
    assert_eq!(trust().judge(&bare), Err(HostCertError::NoCertificate));
    let ca = PublicKeyOrCertificate::from(key(1).public_key().clone());
    assert_eq!(trust().judge(&ca), Err(HostCertError::NoCertificate));
}

#[test]
fn a_user_certificate_is_no_hosts() {
    let user = of_type(CertType::User, &key(1), named("pump-17"));
    assert_eq!(judge(user), Err(HostCertError::NotForAHost));
}

#[test]
fn another_ca_and_the_device_itself_sign_nothing_we_believe() {
    assert_eq!(judge(signed_by(&key(2), named("pump-17"))), Err(HostCertError::ForeignCa));
    assert_eq!(judge(signed_by(&key(7), named("pump-17"))), Err(HostCertError::ForeignCa));
    let nobody = HostTrust { cas: Vec::new(), ..trust() };
    let shown = PublicKeyOrCertificate::Certificate(certificate(named("pump-17")));
    assert_eq!(nobody.judge(&shown), Err(HostCertError::ForeignCa));
}

#[test]
fn a_certificate_altered_by_one_bit_is_refused() {
    let bytes = certificate(named("pump-17")).to_bytes().unwrap();
    let mut judged = 0;
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let Ok(read) = Certificate::from_bytes(&altered) else { continue };
        assert!(judge(read).is_err(), "byte {at}");
        judged += 1;
    }
    assert!(judged > 100, "only {judged} altered certificates could be read at all");
}

#[test]
fn time_is_judged_to_the_second_by_the_clock_that_is_given() {
    let at = |now: u64| {
        let shown = PublicKeyOrCertificate::Certificate(certificate(named("pump-17")));
        HostTrust { now: UnixTime(now), ..trust() }.judge(&shown)
    };
    assert_eq!(at(NOW - 60), Ok(()));
    assert_eq!(at(NOW - 61), Err(HostCertError::NotYet(1)));
    assert_eq!(at(NOW + 59), Ok(()));
    assert_eq!(at(NOW + 60), Err(HostCertError::Expired(0)));
    assert!(matches!(at(0), Err(HostCertError::NotYet(_))));
    assert!(matches!(at(u64::MAX), Err(HostCertError::Expired(_))));
}

#[test]
fn a_certificate_for_another_device_or_for_everybody_is_refused() {
    assert_eq!(
        judge(certificate(named("pump-18"))),
        Err(HostCertError::OtherHost("pump-18".into()))
    );
    for near in ["pump-17.example.com", "PUMP-17", "pump-1", "pump-17.belay.belay", "*.belay", "*"]
    {
        assert!(judge(certificate(named(near))).is_err(), "{near}");
    }
    let everybody = certificate(|b| {
        b.all_principals_valid().unwrap();
    });
    assert_eq!(judge(everybody), Err(HostCertError::NoPrincipals));
}

#[test]
fn an_unknown_condition_is_refused_and_an_unknown_extension_is_not() {
    let conditional = certificate(|b| {
        b.valid_principal("pump-17").unwrap();
        b.critical_option("source-address", "127.0.0.1").unwrap();
    });
    assert_eq!(judge(conditional), Err(HostCertError::CriticalOption("source-address".into())));
    let extended = certificate(|b| {
        b.valid_principal("pump-17").unwrap();
        b.extension("x@example.com", "").unwrap();
    });
    assert_eq!(judge(extended), Ok(()));
}
