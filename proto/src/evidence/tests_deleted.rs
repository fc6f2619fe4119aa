//! Bundles of sessions whose recording is not there: deleted, as the log proves, or taken away.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::tests::{World, anchored, ended, every_bit_of, judged, recording, session, world_of};
use super::*;

const WHY: &str = "before its time, by root: request 88";

/// What its tombstone says, of a recording that went to this segment.
fn stone(count: u64, state: &str) -> String {
    let (file, head) = recording(session(1), count);
    let (bytes, state) = (file.len() as u64, state.to_owned());
    Tombstone { last: Some((count - 1, head)), bytes, state, why: WHY.into() }.detail()
}

type Told<'a> = (&'a str, &'a str);

/// A session in whose log this stands, by kind and detail; there is no recording.
fn world(told: &[Told<'_>]) -> World {
    let of_it: Vec<_> =
        told.iter().map(|(kind, detail)| (*kind, Some(session(1)), *detail)).collect();
    world_of(&of_it, "", false)
}

fn said(world: &World) -> (Report, Vec<String>) {
    let report = judged(&world.bundle, &anchored());
    let findings = report.findings.iter().map(ToString::to_string).collect();
    (report, findings)
}

/// As a relay has it that deleted one by its rules.
fn deleted() -> World {
    world(&[
        ("recording-started", ""),
        ("recording-ended", &ended()),
        ("session-closed", "it ended"),
        ("recording-deleted", &stone(4, "whole")),
    ])
}

#[test]
fn a_recording_that_was_deleted_is_said_to_be_with_when_who_and_why_and_all_else_holds() {
    let (report, findings) = said(&deleted());
    assert_eq!((findings, report.remarks), (vec![], vec![]));
    let Deleted { entry, at, by, stone } = report.deleted.unwrap();
    assert_eq!((entry, at.0, by.as_deref()), (9, 1_800_000_009, Some("anna")));
    assert_eq!(
        (stone.last.unwrap().0, stone.state.as_str(), stone.why.as_str()),
        (3, "whole", WHY)
    );
    assert_eq!(report.recording, None);
    // One of which only a part ever came, and one that was cut by its recorder's death.
    for of in [self::stone(2, "unfinished"), self::stone(2, "cut")] {
        let told = [("recording-started", ""), ("session-closed", ""), ("recording-deleted", &of)];
        let (report, findings) = said(&world(&told));
        assert_eq!((findings, report.remarks), (vec![], vec![]), "{of}");
    }
    let late = world(&[
        ("recording-started", ""),
        ("session-closed", ""),
        ("recording-deleted", &self::stone(2, "unfinished")),
        ("recording-late", "from segment 2 on, not kept; x"),
    ]);
    assert_eq!(said(&late).0.remarks, [Remark::Late]);
}

#[test]
fn one_that_is_not_there_and_was_not_deleted_is_missing() {
    let end = ended();
    let cases: [(&[Told<'_>], &str); 3] = [
        (
            &[("recording-started", ""), ("recording-ended", &end), ("session-closed", "")],
            "by the audit log it ended with segment 3, and no tombstone",
        ),
        // Also while the session lasts.
        (&[("recording-started", ""), ("recording-ended", &end)], "it ended with segment 3"),
        (
            &[("recording-started", ""), ("session-closed", "")],
            "by entry 6 it was begun, there is nothing of it, and no tombstone",
        ),
    ];
    for (told, says) in cases {
        let (report, findings) = said(&world(told));
        assert!(findings.len() == 1 && findings[0].contains(says), "{findings:?}");
        assert_eq!(report.deleted, None);
    }
    // The log has nothing of one, and the grant says that there must be: its relay may have turned it away.
    let (never, findings) = said(&world(&[("session-closed", "")]));
    let nothing = Remark::NothingRecorded { required: true };
    assert_eq!((findings, never.remarks), (vec![], vec![nothing]));
    let (begun, findings) = said(&world(&[("recording-started", "")]));
    assert_eq!((findings, begun.remarks), (vec![], vec![Remark::NoRecording, Remark::Open]));
}

#[test]
fn a_tombstone_of_something_else_is_none_of_what_was_recorded() {
    let end = ended();
    let told = |detail: &str| {
        let told = [("recording-ended", end.as_str()), ("recording-deleted", detail)];
        said(&world(&told)).1
    };
    let head = [9; 32];
    let other =
        Tombstone { last: Some((3, head)), bytes: 1, state: "whole".into(), why: WHY.into() };
    for (detail, says) in [
        (stone(2, "unfinished"), "by the audit log its last segment is 3, and it goes to 1"),
        (stone(2, "whole"), "the audit log has another digest of its last segment, 3"),
        (other.detail(), "the audit log has another digest of its last segment, 3"),
        (
            "no whole segment, 0 bytes, unfinished; x".into(),
            "its last segment is 3, and it had none",
        ),
    ] {
        let findings = told(&detail);
        let found = findings.iter().any(|one| {
            one.starts_with("what was deleted, by entry 7, is not what had been recorded")
                && one.contains(says)
        });
        assert!(found, "{detail}: {findings:?}");
    }
    let findings = told("it is gone");
    assert!(findings.iter().any(|one| one.contains("words that cannot be read")), "{findings:?}");
    assert!(findings.iter().any(|one| one.contains("no tombstone says")), "{findings:?}");
}

type Tampering = (&'static str, fn(&mut World), &'static str);

const TAMPERINGS: &[Tampering] = &[
    ("the tombstone removed", |world| drop(world.bundle.entries.remove(5)), "entry 9 was removed"),
    (
        "the tombstone and its place in the list removed",
        |world| {
            world.bundle.entries.remove(5);
            world.bundle.listed.remove(5);
        },
        "the list of the session's entries is not the one that was signed",
    ),
    (
        "another reason",
        |world| {
            let stone = &mut world.bundle.entries[5].entry;
            *stone = stone.replace("request 88", "request 89");
        },
        "entry 9 was changed",
    ),
    (
        "a recording put in",
        |world| world.bundle.recording = recording(session(1), 4).0,
        "a recording was put in",
    ),
];

#[test]
fn every_kind_of_tampering_with_a_tombstone_is_found_and_named() {
    for (what, tamper, says) in TAMPERINGS {
        let mut world = deleted();
        assert!(world.bundle.entries[5].entry.contains("recording-deleted"));
        tamper(&mut world);
        let (_, findings) = said(&world);
        assert!(findings.iter().any(|found| found.contains(says)), "{what}: {findings:?}");
    }
}

#[test]
fn one_bit_changed_anywhere_in_one_without_a_recording_is_found() {
    every_bit_of(&deleted().bundle);
}

/// A bundle made before the deletion has the recording: taken out of it, it is missing.
#[test]
fn a_tombstone_does_not_excuse_what_the_relay_signed_as_there() {
    let (one, stone) = (Some(session(1)), stone(4, "whole"));
    let of_it = [("recording-started", one, ""), ("recording-deleted", one, stone.as_str())];
    let mut world = world_of(&of_it, "", true);
    let (report, findings) = said(&world);
    assert_eq!(findings, Vec::<String>::new(), "its file was there still");
    assert!(report.deleted.is_some() && report.recording.is_some());
    world.bundle.recording.clear();
    let (_, findings) = said(&world);
    assert!(findings.iter().any(|one| one.contains("the recording was removed")), "{findings:?}");
}
