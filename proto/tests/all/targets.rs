//! What the fuzz targets do with their bytes. The crate in `fuzz/` calls these same functions
//! under libFuzzer; `corpus` calls them here with every file the fuzzers kept.
//!
//! A target fails by panicking: on a panic of the code it calls, and when one of its own
//! statements about the result is not true.

use std::fmt::Debug;
use std::str::FromStr;

use belay_proto::api;
use belay_proto::audit::{self, Checkpoint, Difference, Entry, Review, VerifierKey};
use belay_proto::error_line::{self, printable};
use belay_proto::grant::{Grant, GrantError, SignedGrant, VerifySignature};
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::limits::{CERT_BACKDATE, MAX_FRAME, MAX_GRANT_ITEMS};
use belay_proto::names::{DeviceName, Label, LabelKey, LabelValue, Login, UserName};
use belay_proto::policy::{Role, Selector};
use belay_proto::refusal::Refused;
use belay_proto::time::UnixTime;
use belay_proto::token::{Invitation, Purpose, Secret};
use belay_proto::wire::control::{Control, Hello, HelloAnswer};
use belay_proto::wire::frame::{LENGTH_BYTES, decode_payload, encode_frame, payload_length};
use belay_proto::wire::open::{Deliver, DeliverAnswer, Open, OpenAnswer};
use minicbor::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One target.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub(crate) const ALL: [(&str, Target); 6] = [
    ("frame_control", frame_control),
    ("open_grant", open_grant),
    ("invitation", invitation),
    ("names", names),
    ("api", api),
    ("audit", audit),
];

/// A frame's length, and the messages of the control stream.
pub(crate) fn frame_control(data: &[u8]) {
    if let Some(prefix) = data.first_chunk::<LENGTH_BYTES>()
        && let Ok(length) = payload_length(*prefix)
    {
        assert!(length <= MAX_FRAME);
    }
    message::<Hello>(data);
    if let Some(answer) = message::<HelloAnswer>(data) {
        answer.refused.iter().for_each(one_line);
    }
    if let Some(control) = message::<Control>(data) {
        control.goodbye.iter().for_each(one_line);
        control.ended.iter().for_each(|ended| one_line(&ended.reason));
    }
}

/// The messages that open a session, and the grant's check.
pub(crate) fn open_grant(data: &[u8]) {
    message::<Open>(data);
    if let Some(answer) = message::<OpenAnswer>(data) {
        answer.refused.iter().for_each(one_line);
    }
    message::<Deliver>(data);
    message::<DeliverAnswer>(data);
    message::<SignedGrant>(data);
    verify(data);
    // Most inputs are no signed grant; as what is inside one they reach the checks behind the
    // signature.
    if let Some(grant) = message::<Grant>(data) {
        let signed = SignedGrant { grant: data.to_vec().into(), signature: vec![1].into() };
        let encoded = minicbor::to_vec(signed).expect("a Vec takes every byte");
        verify(&encoded);
        for now in [grant.issued, grant.open_by, grant.ends] {
            check_verified(&encoded, grant.device, now);
        }
    }
}

fn verify(encoded: &[u8]) {
    let no = SignedGrant::verify(
        encoded,
        &Signed(false),
        DeviceId::from_uuid(Default::default()),
        UnixTime(0),
    );
    assert!(
        matches!(no, Err(GrantError::Unreadable(_) | GrantError::Signature)),
        "nothing of a grant is looked at before its signature"
    );
    check_verified(encoded, DeviceId::from_uuid(Default::default()), UnixTime(1_795_348_800));
}

fn check_verified(encoded: &[u8], device: DeviceId, now: UnixTime) {
    let Ok(grant) = SignedGrant::verify(encoded, &Signed(true), device, now) else { return };
    assert_eq!(grant.device, device);
    let known =
        |named: &String| belay_proto::recording::obligation::KNOWN.contains(&named.as_str());
    assert!(grant.obligations.iter().flatten().all(known));
    assert!(grant.known_actions().count() <= MAX_GRANT_ITEMS);
    assert!(grant.issued <= now.plus(CERT_BACKDATE));
    assert!(now <= grant.open_by && grant.open_by <= grant.ends);
}

struct Signed(bool);

impl VerifySignature for Signed {
    fn verify(&self, _: &[u8], _: &[u8]) -> bool {
        self.0
    }
}

/// Enrolment tokens and login codes as people paste them.
pub(crate) fn invitation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for purpose in [Purpose::Enrol, Purpose::Login] {
        match Invitation::from_text(&text, purpose) {
            Ok(invitation) => {
                if let Ok(again) = invitation.to_text(purpose) {
                    assert_eq!(Invitation::from_text(&again, purpose), Ok(invitation));
                }
            }
            Err(error) => assert_eq!(error.to_string().lines().count(), 1),
        }
    }
    if let Some(secret) = Secret::from_hex(&text) {
        assert_eq!(secret.to_hex(), text.to_ascii_lowercase());
    }
}

/// Everything people type that becomes a name, and text of a peer that is printed.
pub(crate) fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    name::<DeviceName>(&text);
    name::<UserName>(&text);
    name::<Login>(&text);
    name::<LabelKey>(&text);
    name::<LabelValue>(&text);
    name::<Label>(&text);
    name::<Selector>(&text);
    let ids = [
        text.parse::<DeviceId>().map(|id| id.to_string()),
        text.parse::<UserId>().map(|id| id.to_string()),
        text.parse::<SessionId>().map(|id| id.to_string()),
    ];
    for id in ids.into_iter().flatten() {
        assert!(id.len() == 36 && id.is_ascii());
    }
    let shown = printable(&text);
    assert!(shown.len() <= error_line::MAX && !shown.contains(char::is_control));
    assert_eq!(printable(&shown), shown, "what is printable stays as it is");
}

fn name<N: FromStr + ToString + PartialEq + Debug>(text: &str)
where
    N::Err: ToString,
{
    match text.parse::<N>() {
        Ok(name) => {
            let shown = name.to_string();
            assert!(shown.bytes().all(|b| b.is_ascii_graphic()), "{shown:?} acts on a terminal");
            assert!(shown.parse::<N>().is_ok_and(|again| again == name));
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1),
    }
}

/// The HTTPS interface's bodies.
pub(crate) fn api(data: &[u8]) {
    json::<api::EnrolRequest>(data);
    json::<api::LoginRequest>(data);
    json::<api::DeviceChange>(data);
    json::<api::TokenRequest>(data);
    json::<api::UserRequest>(data);
    json::<api::UserChange>(data);
    json::<Role>(data);
    // What a client reads from a relay it may not trust yet.
    json::<api::ApiError>(data);
    json::<api::EnrolAnswer>(data);
    json::<api::LoginAnswer>(data);
    json::<api::WhoAmI>(data);
    json::<Vec<api::Device>>(data);
    json::<api::TokenAnswer>(data);
    json::<api::UserAnswer>(data);
    json::<Vec<api::User>>(data);
    json::<api::UserChanged>(data);
    json::<api::LogEntriesRequest>(data);
    json::<api::LogConsistencyRequest>(data);
    json::<api::LogInclusionRequest>(data);
    json::<api::LogCheckpoint>(data);
    json::<api::LogEntries>(data);
    json::<api::LogProof>(data);
    json::<api::LogSessionRequest>(data);
    json::<api::LogSession>(data);
    json::<api::EvidenceRequest>(data);
    json::<api::Evidence>(data);
    json::<api::SearchRequest>(data);
    json::<api::SearchAnswer>(data);
    json::<belay_proto::evidence::Part>(data);
}

/// What an auditor is handed: keys, checkpoints, a copy of the log.
pub(crate) fn audit(data: &[u8]) {
    struct Anything;
    impl VerifySignature for Anything {
        fn verify(&self, _: &[u8], _: &[u8]) -> bool {
            true
        }
    }
    let text = String::from_utf8_lossy(data);
    let key = text.lines().find_map(|line| line.parse::<VerifierKey>().ok());
    if let Some(key) = &key {
        assert_eq!(key.to_string().parse::<VerifierKey>().as_ref(), Ok(key));
    }
    let key = key.unwrap_or_else(|| VerifierKey::new("relay.test/belay-audit", [7; 32]).unwrap());
    let mut review = Review::new(key.clone());
    for note in audit::notes(&text) {
        if let Ok(checkpoint) = Checkpoint::open(&note, &key, &Anything) {
            assert!(note.starts_with(&checkpoint.text()));
        }
        review.checkpoint(&note, &Anything);
    }
    for line in text.lines() {
        review.entry(line);
        if let Ok(entry) = serde_json::from_str::<Entry>(line) {
            let again = entry.encode();
            assert_eq!(audit::seq_of(&again), Some(entry.seq));
            assert_eq!(serde_json::from_str::<Entry>(&again).unwrap(), entry);
        }
    }
    let report = review.finish();
    assert!(report.findings.iter().all(|finding| finding.to_string().lines().count() == 1));
    // The bytes as a list that was the numbers from 0 once.
    let found: Vec<_> = data.iter().map(|byte| audit::leaf_hash(&[*byte])).collect();
    let signed: Vec<_> = (0..64).map(|byte| audit::leaf_hash(&[byte])).collect();
    let differences = audit::compare(&found, &signed);
    assert_eq!(differences.is_empty(), found == signed);
    let gone = signed.iter().filter(|hash| !found.contains(hash)).count() as u64;
    let named: u64 = differences
        .iter()
        .map(|difference| match difference {
            Difference::Changed(_) => 1,
            Difference::Removed(range) | Difference::Truncated(range) => range.end - range.start,
            Difference::Inserted { .. } | Difference::Moved { .. } | Difference::Twice(_) => 0,
        })
        .sum();
    assert_eq!(named, gone, "each one that is gone is named once");
}

fn message<M>(payload: &[u8]) -> Option<M>
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let read: M = decode_payload(payload).ok()?;
    let frame = encode_frame(&read).expect("what was read can be written");
    let (prefix, again) = frame.split_first_chunk::<LENGTH_BYTES>().expect("a length");
    assert_eq!(payload_length(*prefix).expect("a length within the limit"), again.len());
    let again: M = decode_payload(again).expect("what was written can be read");
    assert_eq!(again, read);
    Some(read)
}

fn one_line(refused: &Refused) {
    let line = refused.to_string();
    assert!(!line.is_empty() && !line.contains(char::is_control));
}

fn json<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let value = serde_json::to_value(&read).expect("what was read can be written");
    let again: T = serde_json::from_value(value.clone()).expect("what was written can be read");
    assert_eq!(serde_json::to_value(&again).expect("and written again"), value);
}
