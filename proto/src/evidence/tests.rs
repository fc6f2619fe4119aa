#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::api::LogProven;
use crate::audit::{
    Checkpoint, Digest, Entry, Frontier, Node, VerifierKey, leaf_hash, plan_consistency,
    plan_inclusion, seal,
};
use crate::grant::{Grant, SignedGrant, VERSION as GRANT_VERSION, VerifySignature};
use crate::ids::{DeviceId, SessionId, UserId};
use crate::recording::file::{Head, append};
use crate::recording::{End, Segment, SignedSegment, VERSION, digest, signed_bytes};
use crate::time::UnixTime;

/// Whoever knows the bytes: enough to see that all of them are covered.
struct Checksum;

impl VerifySignature for Checksum {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        signature == sum(message)
    }
}

fn sum(message: &[u8]) -> [u8; 64] {
    [sha256(message).0, sha256(b"more").0].concat().try_into().unwrap()
}

struct Fake;

impl Keys for Fake {
    type Device = Checksum;
    fn log(&self, _: &VerifierKey) -> impl VerifySignature {
        Checksum
    }
    fn grant(&self, _: &[u8; 32]) -> impl VerifySignature {
        Checksum
    }
    fn device(&self, certificate: &[u8], ca: &[u8]) -> Result<(DeviceId, Checksum), String> {
        let device = DeviceId::from_slice(certificate).filter(|_| ca == CA);
        device.map(|device| (device, Checksum)).ok_or_else(|| "no device's".to_owned())
    }
}

const CA: &[u8] = b"the CA";

fn id<T>(n: u128, of: impl Fn(Uuid) -> T) -> T {
    of(Uuid::from_u128(n))
}

pub(super) fn session(n: u128) -> SessionId {
    id(n, SessionId::from_uuid)
}

fn key() -> VerifierKey {
    VerifierKey::new("relay.test/belay-audit", [7; 32]).unwrap()
}

/// The file of a recording of a session, and its last segment's digest.
pub(super) fn recording(of: SessionId, count: u64) -> (Vec<u8>, [u8; 32]) {
    let device = id(9, DeviceId::from_uuid);
    let mut file = Vec::new();
    let head =
        Head { version: VERSION, session: of, certificate: device.as_bytes().to_vec().into() };
    append(&minicbor::to_vec(&head).unwrap(), &mut file);
    let mut before = [0; 32];
    for number in 0..count {
        let segment = Segment {
            version: VERSION,
            session: of,
            device,
            number,
            before: before.to_vec().into(),
            track: 0,
            first_ms: 1,
            last_ms: 2,
            compressed: None,
            sealed: None,
            key: None,
            end: (number + 1 == count).then_some(End::Whole),
            payload: format!("segment {number}").into_bytes().into(),
        };
        let encoded = minicbor::to_vec(&segment).unwrap();
        before = digest(&encoded);
        let signature = sum(&signed_bytes(&encoded)).to_vec();
        let signed = SignedSegment { segment: encoded.into(), signature: signature.into() };
        append(&minicbor::to_vec(&signed).unwrap(), &mut file);
    }
    (file, before)
}

fn grant(of: SessionId) -> Vec<u8> {
    let grant = Grant {
        version: GRANT_VERSION,
        session: of,
        device: id(9, DeviceId::from_uuid),
        user: id(8, UserId::from_uuid),
        user_name: "anna".parse().unwrap(),
        login: "root".parse().unwrap(),
        kind: "ssh".into(),
        actions: vec!["shell".into()],
        issued: UnixTime(1),
        open_by: UnixTime(2),
        ends: UnixTime(3),
        obligations: Some(vec!["record-required".into()]),
        resume: None,
        windows: None,
        anew: None,
        recipients: None,
        joins: None,
    };
    let encoded = minicbor::to_vec(&grant).unwrap();
    let signature = sum(&crate::grant::signed_bytes(&encoded)).to_vec();
    minicbor::to_vec(SignedGrant { grant: encoded.into(), signature: signature.into() }).unwrap()
}

fn entry(seq: u64, kind: &str, of: Option<SessionId>, detail: &str) -> Entry {
    Entry {
        seq,
        at: UnixTime(1_800_000_000 + seq),
        kind: kind.into(),
        user: Some(id(8, UserId::from_uuid)),
        user_name: Some("anna".into()),
        device: Some(id(9, DeviceId::from_uuid)),
        device_name: Some("pump-17".into()),
        session: of,
        login: Some("root".into()),
        code: None,
        detail: Some(detail.into()),
        source: None,
    }
}

/// A log, its tree, and the evidence of session 1 in it.
pub(super) struct World {
    entries: Vec<Entry>,
    tree: BTreeMap<Node, Digest>,
    pub(super) bundle: Bundle,
}

impl World {
    pub(super) fn proven(&self, seq: u64) -> LogProven {
        let index = usize::try_from(seq).unwrap() - 1;
        let plan = plan_inclusion(seq - 1, self.entries.len() as u64).unwrap();
        LogProven { entry: self.entries[index].encode(), hashes: plan.fill(&self.tree).unwrap() }
    }
}

fn note(size: u64, root: Digest) -> String {
    let checkpoint = Checkpoint { origin: key().name().into(), size, root };
    let text = checkpoint.text();
    checkpoint.seal(&key(), &sum(text.as_bytes()))
}

/// What an end in the log says of the recording of session 1.
pub(super) fn ended() -> String {
    let (_, head) = recording(session(1), 4);
    let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("last segment 3, SHA-256 {hex}")
}

/// A log in which `last` is the newest entry's text.
fn world_with(last: &str) -> World {
    let (one, ended) = (Some(session(1)), ended());
    let of_it = [
        ("recording-started", one, ""),
        ("recording-ended", Some(session(2)), ended.as_str()),
        ("recording-ended", one, &ended),
        ("session-closed", one, "it ended"),
    ];
    world_of(&of_it, last, true)
}

/// A log with this between the device's line and its end; the recording is there, or not.
pub(super) fn world_of(
    of_it: &[(&str, Option<SessionId>, &str)],
    last: &str,
    recorded: bool,
) -> World {
    let (one, other) = (Some(session(1)), Some(session(2)));
    let (recording, head) = recording(session(1), 4);
    let recording = if recorded { recording } else { Vec::new() };
    let grant = grant(session(1));
    let issued = Issued::new(&grant, [3; 32]).detail();
    let begin = [
        ("relay-started", None, ""),
        ("session-opened", other, "ssh: shell"),
        ("session-opened", one, "ssh: shell"),
        ("grant-issued", one, &issued),
        ("line-up", None, ""),
    ];
    let end = [
        ("line-down", None, ""),
        ("evidence-read", one, "a bundle of its evidence"),
        ("relay-stopped", None, last),
    ];
    let told = [&begin[..], of_it, &end].concat();
    let entries: Vec<Entry> =
        (1..).zip(told).map(|(seq, (kind, of, detail))| entry(seq, kind, of, detail)).collect();
    let (mut frontier, mut tree, mut before) = (Frontier::default(), BTreeMap::new(), None);
    for one in &entries {
        frontier.append(leaf_hash(one.encode().as_bytes()), |node, hash| {
            tree.insert(node, hash);
        });
        before = before.or((frontier.size() == 6).then(|| note(6, frontier.root())));
    }
    let (size, root) = (frontier.size(), frontier.root());
    let own = entries.iter().filter(|entry| entry.session == one);
    let listed: Vec<(u64, Digest)> =
        own.map(|entry| (entry.seq, leaf_hash(entry.encode().as_bytes()))).collect();
    let hashes: Vec<Digest> = listed.iter().map(|(_, hash)| *hash).collect();
    let facts = "{\"session\":1}".to_owned();
    let manifest = Manifest {
        origin: key().name().into(),
        session: session(1),
        made: UnixTime(1_800_000_100),
        size,
        root,
        entries: Listed::of(&hashes),
        grants: Listed::of(&[sha256(&grant)]),
        recording: recorded.then_some(Recorded {
            bytes: recording.len() as u64,
            last: 3,
            head: Digest(head),
        }),
        ca: sha256(CA),
        facts: sha256(facts.as_bytes()),
    };
    let text = manifest.text();
    let hashes = plan_consistency(6, size).unwrap().fill(&tree).unwrap();
    let bundle = Bundle {
        vkey: key().to_string(),
        manifest: seal(&text, &key(), &sum(text.as_bytes())),
        checkpoint: note(size, root),
        before: vec![Before { note: before.unwrap(), hashes }],
        facts,
        ca: CA.to_vec(),
        grants: vec![grant],
        listed: listed.clone(),
        entries: Vec::new(),
        recording,
    };
    let mut world = World { entries, tree, bundle };
    world.bundle.entries = listed.iter().map(|(seq, _)| world.proven(*seq)).collect();
    world
}

fn world() -> World {
    world_with("")
}

pub(super) fn judged(bundle: &Bundle, anchors: &Anchors) -> Report {
    examine(bundle, anchors, &Fake, |line| serde_json::from_str(line).ok())
}

pub(super) fn anchored() -> Anchors {
    Anchors { key: Some(key()), ca: Some(sha256(CA)), elsewhere: Vec::new() }
}

#[test]
fn what_is_as_it_was_signed_is_found_so() {
    let world = world();
    for anchors in [Anchors::default(), anchored()] {
        let report = judged(&world.bundle, &anchors);
        assert_eq!((report.findings, report.remarks), (vec![], vec![]));
        assert_eq!(report.entries.len(), 6);
        assert_eq!(report.recording.unwrap().state, "whole");
    }
    // A manifest reads as what it was written as, and is no checkpoint.
    let manifest = Manifest::open(&world.bundle.manifest, &key(), &Checksum).unwrap();
    assert_eq!(
        manifest.text(),
        world.bundle.manifest.split("\n\n").next().unwrap().to_owned() + "\n"
    );
    assert!(Checkpoint::open(&world.bundle.manifest, &key(), &Checksum).is_err());
    assert!(Manifest::open(&world.bundle.checkpoint, &key(), &Checksum).is_err());
}

/// What is done to a bundle, and what must be said of it.
type Tampering = (&'static str, fn(&mut World), &'static str);

const TAMPERINGS: &[Tampering] = &[
    (
        "one word of an entry",
        |world| {
            let entry = &mut world.bundle.entries[0].entry;
            *entry = entry.replace("anna", "olga");
        },
        "entry 3 was changed",
    ),
    ("an entry removed", |world| drop(world.bundle.entries.remove(3)), "entry 8 was removed"),
    ("the last entry removed", |world| drop(world.bundle.entries.pop()), "entry 11 was removed"),
    (
        "an entry and its place in the list removed",
        |world| {
            world.bundle.entries.remove(3);
            world.bundle.listed.remove(3);
        },
        "the list of the session's entries is not the one that was signed",
    ),
    ("entries reordered", |world| world.bundle.entries.swap(1, 3), "was moved"),
    (
        "another session's entry put in",
        |world| {
            let foreign = world.proven(7);
            world.bundle.entries.insert(3, foreign);
        },
        "put in behind entry 6",
    ),
    (
        "an entry that is in no log put in",
        |world| {
            let mut forged = world.proven(8);
            forged.entry = forged.entry.replace("\"seq\":8", "\"seq\":9");
            world.bundle.entries.insert(4, forged);
        },
        "entry 9 is not proven",
    ),
    (
        "an entry twice",
        |world| {
            let again = world.bundle.entries[2].clone();
            world.bundle.entries.push(again);
        },
        "entry 6 stands there twice",
    ),
    (
        "another log's checkpoint",
        |world| world.bundle.checkpoint = world_with("other").bundle.checkpoint,
        "the checkpoint is not the one",
    ),
    (
        "another log's checkpoint and list",
        |world| {
            let other = world_with("other").bundle;
            (world.bundle.checkpoint, world.bundle.manifest) = (other.checkpoint, other.manifest);
        },
        "entry 3 is not proven",
    ),
    (
        "the recording cut",
        |world| {
            world.bundle.recording = cut_after(&recording(session(1), 4).0, 3);
        },
        "the recording was cut: by the audit log its last segment is 3, and it goes to 1",
    ),
    (
        "a segment of another session",
        |world| {
            let (mine, theirs) = (recording(session(1), 4).0, recording(session(2), 4).0);
            world.bundle.recording = [cut_after(&mine, 3), rest_after(&theirs, 3)].concat();
        },
        "segment 2 belongs to session",
    ),
    (
        "another recording of the same session",
        |world| world.bundle.recording = recording(session(1), 5).0,
        "the recording: it is not the one that was signed",
    ),
    (
        "another session's recording",
        |world| world.bundle.recording = recording(session(2), 4).0,
        "the recording: it is of session",
    ),
    (
        "bytes behind the end",
        |world| world.bundle.recording.push(0),
        "1 bytes at its end are no segment",
    ),
    ("no recording", |world| world.bundle.recording.clear(), "the recording was removed"),
    ("no grant", |world| world.bundle.grants.clear(), "the grant that entry 4 names is not there"),
    (
        "another grant",
        |world| world.bundle.grants[0] = grant(session(2)),
        "grant 1 is not in the log",
    ),
    ("facts", |world| world.bundle.facts = "{}".into(), "the facts of the session were changed"),
    ("CA", |world| world.bundle.ca = b"another".to_vec(), "CA's certificate is not the one"),
    (
        "key",
        |world| {
            let other = VerifierKey::new("relay.test/belay-audit", [8; 32]).unwrap();
            world.bundle.vkey = other.to_string();
        },
        "the key was replaced",
    ),
];

/// The first `count` records.
fn cut_after(file: &[u8], count: usize) -> Vec<u8> {
    file[..file.len() - rest_after(file, count).len()].to_vec()
}

fn rest_after(file: &[u8], count: usize) -> Vec<u8> {
    let mut rest = file;
    for _ in 0..count {
        rest = crate::recording::file::split(rest).unwrap().1;
    }
    rest.to_vec()
}

#[test]
fn every_kind_of_tampering_is_found_and_named() {
    for (what, tamper, says) in TAMPERINGS {
        let mut world = world();
        tamper(&mut world);
        let findings: Vec<String> =
            judged(&world.bundle, &anchored()).findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(|found| found.contains(says)), "{what}: {findings:?}");
    }
}

/// Whoever has the log's key can sign another bundle; not one that fits what others have.
#[test]
fn a_log_that_was_cut_or_forked_does_not_fit_what_others_have() {
    let (one, other) = (world(), world_with("other"));
    let elsewhere = |note: &str| Anchors { elsewhere: vec![note.to_owned()], ..anchored() };
    let fork = judged(&one.bundle, &elsewhere(&other.bundle.checkpoint));
    assert_eq!(fork.findings, [Finding::Forked { size: 12 }]);
    // Of before: by the proof that is in the bundle.
    let before = &one.bundle.before[0].note;
    assert_eq!(judged(&one.bundle, &elsewhere(before)).findings, []);
    let rewritten = judged(&one.bundle, &elsewhere(&note(6, Digest([5; 32]))));
    assert_eq!(rewritten.findings, [Finding::OtherHistory { size: 6 }]);
    let unknown = judged(&one.bundle, &elsewhere(&note(99, Digest([5; 32]))));
    assert_eq!((unknown.findings, unknown.remarks), (vec![], vec![Remark::NotCompared(99)]));
    let mut forged = one.bundle.clone();
    forged.before[0].note = note(6, Digest([5; 32]));
    assert_eq!(judged(&forged, &anchored()).findings, [Finding::OtherHistory { size: 6 }]);
    let ca = Anchors { ca: Some(sha256(b"another")), ..anchored() };
    assert_eq!(judged(&one.bundle, &ca).findings, [Finding::OtherCa]);
    let key = VerifierKey::new("relay.test/belay-audit", [8; 32]).unwrap();
    let found = judged(&one.bundle, &Anchors { key: Some(key), ..anchored() }).findings;
    assert!(matches!(found[0], Finding::OtherKey { .. }), "{found:?}");
}

fn lines(bundle: &Bundle) -> Vec<Vec<u8>> {
    bundle.parts().map(|part| serde_json::to_vec(&part).unwrap()).collect()
}

fn read(lines: &[Vec<u8>]) -> Option<Bundle> {
    let mut bundle = Bundle::default();
    for (at, line) in lines.iter().enumerate() {
        bundle.take(serde_json::from_slice(line).ok()?, at == 0).ok()?;
    }
    Some(bundle)
}

#[test]
fn a_bundle_reads_as_what_was_written_and_nothing_stands_twice() {
    let bundle = world().bundle;
    let written = lines(&bundle);
    assert_eq!(read(&written).as_ref(), Some(&bundle));
    let once = ["vkey", "manifest", "checkpoint", "facts", "\"ca\"", "belay_evidence"];
    for word in once {
        let line = written.iter().find(|l| String::from_utf8_lossy(l).contains(word)).unwrap();
        let mut twice = written.clone();
        twice.push(line.clone());
        assert_eq!(read(&twice), None, "{word}");
    }
    assert_eq!(read(&written[1..]), None);
}

/// One bit changed, each there is in the file: it does not read, or reads the same, or is found.
#[test]
fn one_bit_changed_anywhere_is_found() {
    every_bit_of(&world().bundle);
}

pub(super) fn every_bit_of(bundle: &Bundle) {
    let mut lines = lines(bundle);
    for line in 0..lines.len() {
        for at in 0..lines[line].len() {
            for bit in 0..8 {
                lines[line][at] ^= 1 << bit;
                if let Some(read) = read(&lines)
                    && read != *bundle
                {
                    let findings = judged(&read, &anchored()).findings;
                    assert!(!findings.is_empty(), "line {line}, byte {at}, bit {bit}");
                }
                lines[line][at] ^= 1 << bit;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Lines left out, moved and repeated: found out, unless what reads is the same.
    #[test]
    fn lines_left_out_moved_or_repeated_are_found(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        what in 0..3,
    ) {
        let bundle = world().bundle;
        let mut lines = lines(&bundle);
        let line = lines[from.index(lines.len())].clone();
        if what != 2 {
            lines.remove(from.index(lines.len()));
        }
        if what != 0 {
            lines.insert(to.index(lines.len()), line);
        }
        if let Some(read) = read(&lines) && read != bundle {
            let report = judged(&read, &anchored());
            // A checkpoint of before is one more proof, which may be left out or stand twice.
            let aside = Bundle { before: bundle.before.clone(), ..read.clone() };
            prop_assert!(aside == bundle || !report.findings.is_empty(), "{read:?}");
        }
    }
}
