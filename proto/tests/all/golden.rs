//! Frozen bytes. A device stays in the field for ten years: what version 1 wrote must be read by
//! every later build, and what this build writes must be what version 1 wrote.
//!
//! A new message gets a new file: `BELAY_NEW_GOLDEN=1` writes those that are missing. A file that
//! is there is never written again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use belay_proto::grant::{DOMAIN, signed_bytes};
use belay_proto::recording;
use belay_proto::refusal::{Code, Refused};
use belay_proto::token::{Fingerprint, Invitation, Purpose, Secret};
use belay_proto::version::{ALPN, OLDEST, PROTOCOL};
use belay_proto::wire::control::{Control, Hello};
use belay_proto::wire::frame::{decode_payload, encode_frame, payload_length};

use crate::{hex, samples};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn frozen(file: &str, what: &str, today: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{file}.hex"));
    if !path.exists() && std::env::var_os("BELAY_NEW_GOLDEN").is_some() {
        std::fs::write(&path, hex::write(what, today)).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hex::read(&text)
}

fn invitation() -> Invitation {
    Invitation {
        relay: "relay.example.com:443".into(),
        ca: Fingerprint::of_certificate(b"the deployment CA"),
        secret: Secret::from_bytes(std::array::from_fn(|i| i as u8)),
    }
}

/// Bytes of messages this build does not send: made by hand, as a newer peer would.
const FUTURE: [(&str, &str, &str); 4] = [
    (
        "future-hello",
        "Hello of a newer peer: fields 8 (map), 9 (array) and 300 (text) are unknown",
        "a5 00 09 01 01 08 a1 00 f5 09 82 01 61 78 19 012c 63 6e6577",
    ),
    ("future-control", "Control of which only the unknown field 23 is set", "a1 17 a1 00 01"),
    (
        "future-refused",
        "Control: goodbye with the unknown code 60000, its line and an unknown field 3",
        "a1 04 a3 00 19 ea60 01 63 736164 03 f6",
    ),
    (
        "null-fields",
        "Hello whose fields 3 and 6 are null, which means absent",
        "a3 00 01 03 f6 06 f6",
    ),
];

fn spaced(text: &str) -> Vec<u8> {
    hex::read(&text.replace(' ', ""))
}

#[test]
fn every_message_is_written_as_it_always_was() {
    for sample in samples::all() {
        let frozen = frozen(sample.file, sample.what, &sample.encoded);
        assert_eq!(sample.encoded, frozen, "{} is written differently now", sample.file);
    }
}

#[test]
fn every_frozen_message_reads_as_what_it_meant() {
    for sample in samples::all() {
        let frozen = frozen(sample.file, sample.what, &sample.encoded);
        (sample.reads)(&frozen).unwrap_or_else(|why| panic!("{}: {why}", sample.file));
    }
}

#[test]
fn a_field_of_a_later_version_changes_nothing() {
    // Key 4000 with a value of every type the decoder admits.
    let unknown = [
        "01",
        "20",
        "43010203",
        "63616263",
        "820102",
        "a2000101f5",
        "f4",
        "f6",
        "fb3ff0000000000000",
    ];
    for sample in samples::all() {
        for value in unknown {
            let mut newer = sample.encoded.clone();
            assert!((0xa0..0xb7).contains(&newer[0]), "{} is a map of few fields", sample.file);
            newer[0] += 1;
            newer.extend(hex::read(&format!("190fa0{value}")));
            (sample.reads)(&newer).unwrap_or_else(|why| panic!("{} + {value}: {why}", sample.file));
        }
    }
}

#[test]
fn messages_of_the_future_are_understood_as_far_as_they_can_be() {
    for (file, what, text) in FUTURE {
        assert_eq!(frozen(file, what, &spaced(text)), spaced(text), "{file}");
    }
    let hello: Hello = decode_payload(&spaced(FUTURE[0].2)).unwrap();
    assert_eq!(hello, Hello { newest: Some(9), oldest: Some(1), ..Hello::default() });
    let nothing: Control = decode_payload(&spaced(FUTURE[1].2)).unwrap();
    assert_eq!(nothing, Control::default());
    let goodbye: Control = decode_payload(&spaced(FUTURE[2].2)).unwrap();
    let refused = goodbye.goodbye.unwrap();
    assert_eq!((refused.code(), refused.to_string().as_str()), (Code::Other(60_000), "sad"));
    let absent: Hello = decode_payload(&spaced(FUTURE[3].2)).unwrap();
    assert_eq!(absent, Hello { newest: Some(1), ..Hello::default() });
}

#[test]
fn what_a_grant_signs_is_its_domain_and_its_bytes() {
    assert_eq!(DOMAIN, b"belay grant v1\0");
    let encoded = minicbor::to_vec(samples::grant()).unwrap();
    let today = signed_bytes(&encoded);
    assert_eq!(frozen("grant-signed-bytes", "What Ed25519 signs of grant.hex", &today), today);
}

#[test]
fn what_a_device_signs_of_a_segment_is_its_domain_and_its_bytes() {
    assert_eq!(recording::DOMAIN, b"belay recording v1\0");
    let encoded = minicbor::to_vec(samples::segment()).unwrap();
    let today = recording::signed_bytes(&encoded);
    let what = "What ECDSA signs of segment.hex";
    assert_eq!(frozen("segment-signed-bytes", what, &today), today);
    let today = recording::digest(&encoded);
    let what = "What the next segment names segment.hex by: SHA-256";
    assert_eq!(frozen("segment-digest", what, &today), today);
}

#[test]
fn the_frames_length_is_four_bytes_in_network_order() {
    let frame = encode_frame(&Control { ping: Some(7), ..Control::default() }).unwrap();
    assert_eq!(frame, [0, 0, 0, 3, 0xa1, 0, 7]);
    assert_eq!(payload_length([0, 0, 0, 3]).unwrap(), 3);
    assert_eq!((ALPN, PROTOCOL, OLDEST), (b"belay/1".as_slice(), 1, 1));
}

#[test]
fn invitations_of_the_first_release_are_still_read() {
    for (file, what, purpose) in [
        ("invitation-enrol", "Enrolment token: the text, byte for byte", Purpose::Enrol),
        ("invitation-login", "Login code: the text, byte for byte", Purpose::Login),
    ] {
        let today = invitation().to_text(purpose).unwrap();
        let frozen = String::from_utf8(frozen(file, what, today.as_bytes())).unwrap();
        assert_eq!(today, frozen, "{file} is written differently now");
        assert_eq!(Invitation::from_text(&frozen, purpose), Ok(invitation()), "{file}");
    }
}

/// The numbers programs in the field act on.
#[test]
fn a_refusals_number_never_changes_its_meaning() {
    let table: String =
        Code::ALL.iter().map(|code| format!("{} {}\n", code.number(), code.token())).collect();
    let frozen = frozen("codes", "Refusal codes: number and token, a line each", table.as_bytes());
    let frozen = String::from_utf8(frozen).unwrap();
    for (was, is) in frozen.lines().zip(table.lines()) {
        assert_eq!(was, is);
    }
    assert!(table.lines().count() >= frozen.lines().count(), "a code is gone");
    let bare = Refused::new(Code::Protocol, "", "");
    assert_eq!(minicbor::to_vec(bare).unwrap(), [0xa1, 0, 1]);
}

#[test]
fn no_frozen_file_is_left_untested() {
    let known: BTreeSet<String> = samples::all()
        .iter()
        .map(|sample| sample.file)
        .chain(FUTURE.iter().map(|(file, _, _)| *file))
        .chain(["grant-signed-bytes", "segment-signed-bytes", "segment-digest"])
        .chain(["invitation-enrol", "invitation-login", "codes"])
        .map(|file| format!("{file}.hex"))
        .chain(["api".to_owned()])
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(there.is_subset(&known), "{:?} have no test", there.difference(&known));
}
