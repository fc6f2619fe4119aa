#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use uuid::Uuid;

/// Stands in for Ed25519: a signature is the message itself, reversed.
struct Reversed;

impl VerifySignature for Reversed {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        message.iter().rev().eq(signature.iter())
    }
}

fn device(n: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(n))
}

fn grant() -> Grant {
    Grant {
        version: VERSION,
        session: SessionId::from_uuid(Uuid::from_u128(9)),
        device: device(1),
        user: UserId::from_uuid(Uuid::from_u128(2)),
        user_name: "anna".parse().unwrap(),
        login: "root".parse().unwrap(),
        kind: "ssh".into(),
        actions: vec!["shell".into(), "not-yet-invented".into()],
        issued: UnixTime(1000),
        open_by: UnixTime(1060),
        ends: UnixTime(5000),
        obligations: None,
        resume: None,
        windows: None,
        anew: None,
        recipients: None,
        joins: None,
    }
}

fn sign(grant: &Grant) -> Vec<u8> {
    let encoded = minicbor::to_vec(grant).unwrap();
    let signature: Vec<u8> = signed_bytes(&encoded).into_iter().rev().collect();
    minicbor::to_vec(SignedGrant { grant: encoded.into(), signature: signature.into() }).unwrap()
}

fn verify(grant: &Grant, now: u64) -> Result<Verified<Grant>, GrantError> {
    SignedGrant::verify(&sign(grant), &Reversed, device(1), UnixTime(now))
}

#[test]
fn a_good_grant_opens_within_its_time_and_unknown_actions_allow_nothing() {
    let verified = verify(&grant(), 1010).unwrap();
    assert_eq!(verified.known_actions().collect::<Vec<_>>(), [Action::Shell]);
    assert!(verify(&grant(), 1060).is_ok());
    assert!(matches!(verify(&grant(), 1061), Err(GrantError::TooLate(1))));
    assert!(verify(&grant(), 700).is_ok(), "a clock that lags five minutes still opens");
    assert!(matches!(verify(&grant(), 699), Err(GrantError::NotYet(301))));
}

#[test]
fn one_changed_bit_anywhere_is_refused() {
    let good = sign(&grant());
    for byte in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            *bad.get_mut(byte).unwrap() ^= 1 << bit;
            assert!(
                SignedGrant::verify(&bad, &Reversed, device(1), UnixTime(1010)).is_err(),
                "byte {byte} bit {bit}"
            );
        }
    }
}

#[test]
fn another_device_another_version_an_obligation_and_times_out_of_order_are_refused() {
    let encoded = sign(&grant());
    let other = SignedGrant::verify(&encoded, &Reversed, device(2), UnixTime(1010));
    assert!(matches!(other, Err(GrantError::OtherDevice)));
    assert!(matches!(verify(&Grant { version: 2, ..grant() }, 1010), Err(GrantError::Version(2))));
    let obliged = Grant { obligations: Some(vec!["record".into(), "sing".into()]), ..grant() };
    assert!(matches!(verify(&obliged, 1010), Err(GrantError::Obligation(o)) if o == "sing"));
    let known = Grant { obligations: Some(vec!["record".into()]), ..grant() };
    assert!(verify(&known, 1010).is_ok());
    let backwards = Grant { ends: UnixTime(1001), ..grant() };
    assert!(matches!(verify(&backwards, 1010), Err(GrantError::Malformed)));
    let crowd = Grant { actions: vec!["shell".into(); MAX_GRANT_ITEMS + 1], ..grant() };
    assert!(matches!(verify(&crowd, 1010), Err(GrantError::Malformed)));
}

#[test]
fn whoever_joins_does_that_alone_and_nobody_else_joins() {
    let join = || Join {
        session: SessionId::from_uuid(Uuid::from_u128(8)),
        terminal: None,
        read_only: None,
    };
    let joins = Grant { actions: vec!["join".into()], joins: Some(join()), ..grant() };
    assert_eq!(verify(&joins, 1010).unwrap().known_actions().collect::<Vec<_>>(), [Action::Join]);
    for wrong in [
        Grant { actions: vec!["join".into(), "exec".into()], ..joins.clone() },
        Grant { joins: None, ..joins.clone() },
        Grant { joins: Some(join()), ..grant() },
    ] {
        assert!(matches!(verify(&wrong, 1010), Err(GrantError::Malformed)), "{wrong:?}");
    }
}
