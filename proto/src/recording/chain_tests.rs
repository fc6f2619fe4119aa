#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// Whoever knows the domain and the bytes: enough to see that both are covered.
struct Checksum;

impl VerifySignature for Checksum {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        digest(message) == signature
    }
}

fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

fn device(n: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(n))
}

fn sign(segment: &Segment) -> Vec<u8> {
    let encoded = minicbor::to_vec(segment).unwrap();
    let signature = digest(&signed_bytes(&encoded)).to_vec();
    minicbor::to_vec(SignedSegment { segment: encoded.into(), signature: signature.into() })
        .unwrap()
}

/// A recording of these numbers; the last one ends it.
fn recording(of: SessionId, numbers: &[u64]) -> Vec<Vec<u8>> {
    let mut before = [0; 32];
    let last = numbers.last().copied();
    numbers
        .iter()
        .map(|number| {
            let segment = Segment {
                version: VERSION,
                session: of,
                device: device(9),
                number: *number,
                before: before.to_vec().into(),
                track: 0,
                first_ms: 1,
                last_ms: 2,
                compressed: None,
                sealed: None,
                end: (Some(*number) == last).then_some(End::Whole),
                payload: format!("segment {number}").into_bytes().into(),
                key: None,
            };
            before = digest(&minicbor::to_vec(&segment).unwrap());
            sign(&segment)
        })
        .collect()
}

fn check(segments: &[Vec<u8>]) -> Result<Chain, ChainError> {
    let mut chain = Chain::new(session(1), device(9));
    for segment in segments {
        chain.take(segment, &Checksum)?;
    }
    Ok(chain)
}

#[test]
fn a_whole_recording_is_whole_and_says_what_the_device_could_not_keep() {
    let chain = check(&recording(session(1), &[0, 1, 2, 5, 6])).unwrap();
    assert_eq!(chain.end(), Some(End::Whole));
    assert_eq!(chain.segments(), 5);
    assert_eq!(chain.gaps(), [Gap { from: 3, to: 4 }]);
}

#[test]
fn every_way_to_touch_it_is_seen_and_named() {
    let whole = recording(session(1), &[0, 1, 2, 3]);
    let other = recording(session(2), &[0, 1, 2, 3]);

    let cut = check(&whole[..3]).unwrap();
    assert_eq!(cut.end(), None, "the end is missing");

    let mut out = whole.clone();
    out.remove(2);
    assert!(matches!(check(&out), Err(ChainError::Broken(3))));

    let mut first = whole.clone();
    first.remove(0);
    assert!(matches!(check(&first), Err(ChainError::Broken(1))));

    let mut turned = whole.clone();
    turned.swap(1, 2);
    assert!(matches!(check(&turned), Err(ChainError::Broken(2))));

    let mut twice = whole.clone();
    twice.insert(2, whole[1].clone());
    assert!(matches!(check(&twice), Err(ChainError::Order { expected: 2, found: 1 })));

    let mut swapped = whole.clone();
    swapped[2] = other[2].clone();
    assert!(matches!(check(&swapped), Err(ChainError::OtherSession { number: 2, .. })));

    let mut longer = whole.clone();
    longer.push(whole[3].clone());
    assert!(matches!(check(&longer), Err(ChainError::AfterEnd(3))));

    let foreign = check(&recording(session(1), &[0])).unwrap();
    let mut wrong = Chain { device: device(8), ..Chain::new(session(1), device(9)) };
    assert!(matches!(
        wrong.take(&recording(session(1), &[0])[0], &Checksum),
        Err(ChainError::OtherDevice { number: 0, .. })
    ));
    assert_eq!(foreign.segments(), 1);
}

#[test]
fn a_chain_is_taken_up_where_it_was_left() {
    let whole = recording(session(1), &[0, 1, 2]);
    let second: SignedSegment = decode_payload(&whole[1]).unwrap();
    let mut chain = Chain::after(&second.segment, 2).unwrap();
    assert_eq!(chain.next(), 2);
    chain.take(&whole[2], &Checksum).unwrap();
    assert_eq!((chain.segments(), chain.end()), (3, Some(End::Whole)));
}

proptest! {
    #[test]
    fn one_bit_changed_anywhere_is_found_in_its_segment(at in 0_usize..4, bit in 0_usize..8 * 200) {
        let mut segments = recording(session(1), &[0, 1, 2, 3]);
        let length = segments[at].len();
        segments[at][bit / 8 % length] ^= 1 << (bit % 8);
        let error = check(&segments).unwrap_err();
        let named = format!("segment {at}");
        prop_assert!(error.to_string().contains(&named), "{error}");
    }

    #[test]
    fn nonsense_is_refused_and_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut chain = Chain::new(session(1), device(9));
        prop_assert!(chain.take(&bytes, &Checksum).is_err());
        prop_assert_eq!(chain.next(), 0);
    }
}
