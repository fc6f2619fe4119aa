#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::wire::{Code, Fields, STATUS, put_packet, put_string, put_u32, put_u64};
use super::*;

/// Sends requests and returns the answers as (kind, body after the id).
fn talk(requests: &[u8]) -> Vec<(u8, Vec<u8>)> {
    talk_and_tell(requests).0
}

/// The same, and what is told to the recording.
fn talk_and_tell(requests: &[u8]) -> (Vec<(u8, Vec<u8>)>, String) {
    let (mut out, mut told) = (Vec::new(), Vec::new());
    serve(Cursor::new(requests), &mut out, Ledger::new(Some(&mut told))).unwrap();
    let mut answers = Vec::new();
    let mut rest = out.as_slice();
    while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
        let (packet, tail) = tail.split_at(u32::from_be_bytes(*prefix) as usize);
        answers.push((packet[0], packet[5..].to_vec()));
        rest = tail;
    }
    (answers, String::from_utf8(told).unwrap())
}

fn request(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    put_packet(out, kind, 9, body);
}

fn code(answer: &(u8, Vec<u8>)) -> u32 {
    assert_eq!(answer.0, STATUS);
    Fields(&answer.1).u32().unwrap()
}

fn path(out: &mut Vec<u8>, path: &std::path::Path) {
    put_string(out, path.to_str().unwrap().as_bytes());
}

fn open(out: &mut Vec<u8>, file: &std::path::Path, flags: u32) {
    request(out, 3, |out| {
        path(out, file);
        put_u32(out, flags);
        put_u32(out, 4);
        put_u32(out, 0o104_640);
    });
}

#[test]
fn a_file_is_written_read_and_closed_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    let handle = 0u32.to_be_bytes();
    let mut requests = Vec::new();
    open(&mut requests, &file, 0x1a | 1);
    request(&mut requests, 6, |out| {
        put_string(out, &handle);
        put_u64(out, 3);
        put_string(out, b"abc");
    });
    for at in [0, 6] {
        request(&mut requests, 5, |out| {
            put_string(out, &handle);
            put_u64(out, at);
            put_u32(out, u32::MAX);
        });
    }
    request(&mut requests, 4, |out| put_string(out, &handle));
    request(&mut requests, 4, |out| put_string(out, &handle));
    let answers = talk(&requests);
    assert_eq!(answers[0].0, 102);
    assert_eq!(code(&answers[1]), Code::Ok as u32);
    assert_eq!(answers[2], (103, b"\0\0\0\x06\0\0\0abc".to_vec()));
    assert_eq!(code(&answers[3]), Code::Eof as u32);
    assert_eq!(code(&answers[4]), Code::Ok as u32);
    assert_eq!(code(&answers[5]), Code::Failure as u32);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7000, 0, "no set-id bit by opening");
}

#[test]
fn rename_does_not_replace_and_posix_rename_does() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, "a").unwrap();
    std::fs::write(&b, "b").unwrap();
    let mut requests = Vec::new();
    request(&mut requests, 18, |out| {
        path(out, &a);
        path(out, &b);
    });
    request(&mut requests, 200, |out| {
        put_string(out, b"posix-rename@openssh.com");
        path(out, &a);
        path(out, &b);
    });
    let answers = talk(&requests);
    assert_eq!(code(&answers[0]), Code::Failure as u32);
    assert_eq!(code(&answers[1]), Code::Ok as u32);
    assert_eq!(std::fs::read_to_string(&b).unwrap(), "a");
}

#[test]
fn a_fifo_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut requests = Vec::new();
    open(&mut requests, &fifo, 1);
    open(&mut requests, &fifo, 2);
    for answer in talk(&requests) {
        assert_eq!(code(&answer), Code::Failure as u32);
    }
}

#[test]
fn a_listing_has_every_entry_once_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..500 {
        std::fs::write(dir.path().join(format!("a file with a rather long name {n}")), "").unwrap();
    }
    let mut requests = Vec::new();
    request(&mut requests, 11, |out| path(out, dir.path()));
    for _ in 0..20 {
        request(&mut requests, 12, |out| put_string(out, &0u32.to_be_bytes()));
    }
    let answers = talk(&requests);
    let entries: u32 = answers
        .iter()
        .filter(|(kind, _)| *kind == 104)
        .map(|(_, body)| Fields(body).u32().unwrap())
        .sum();
    assert_eq!(entries, 502);
    assert_eq!(code(answers.last().unwrap()), Code::Eof as u32);
}

#[test]
fn handles_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut requests = Vec::new();
    for _ in 0..5_000 {
        request(&mut requests, 11, |out| path(out, dir.path()));
    }
    let answers = talk(&requests);
    assert_eq!(answers.len(), 5_000);
    assert_eq!(code(answers.last().unwrap()), Code::Failure as u32);
}

#[test]
fn an_oversize_or_empty_packet_ends_the_service() {
    for length in [0u32, 256 * 1024 + 1, u32::MAX] {
        let mut input = length.to_be_bytes().to_vec();
        input.extend([1; 64]);
        let ledger = Ledger::new(None::<Vec<u8>>);
        assert!(serve(Cursor::new(input), &mut Vec::new(), ledger).is_err());
    }
}

#[test]
fn a_largest_packet_is_served() {
    let mut requests = Vec::new();
    request(&mut requests, 7, |out| put_string(out, &vec![b'x'; wire::PACKET_MAX - 9]));
    assert_eq!(code(&talk(&requests)[0]), Code::BadMessage as u32, "name too long");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Kinds that change files are left out: the paths are random too.
    #[test]
    fn any_fields_are_survived(
        kind in prop_oneof![Just(4u8), Just(5), Just(6), Just(7), Just(8), Just(10), Just(12), Just(17), Just(19), 21..=255u8],
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut requests = Vec::new();
        request(&mut requests, kind, |out| out.extend(&body));
        prop_assert_eq!(talk(&requests).len(), 1);
    }
}

#[test]
fn each_file_that_moved_and_each_change_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (up, down, gone) =
        (dir.path().join("up"), dir.path().join("down"), dir.path().join("no/x"));
    std::fs::write(&down, "abc").unwrap();
    let mut requests = Vec::new();
    open(&mut requests, &up, 0x1a);
    open(&mut requests, &down, 1);
    for (at, data) in [(0, "ab"), (2, "c")] {
        request(&mut requests, 6, |out| {
            put_string(out, &0u32.to_be_bytes());
            put_u64(out, at);
            put_string(out, data.as_bytes());
        });
    }
    // The second reads its end.
    for at in [0, 3] {
        request(&mut requests, 5, |out| {
            put_string(out, &1u32.to_be_bytes());
            put_u64(out, at);
            put_u32(out, 1000);
        });
    }
    request(&mut requests, 4, |out| put_string(out, &0u32.to_be_bytes()));
    open(&mut requests, &gone, 1);
    request(&mut requests, 13, |out| path(out, &up));
    request(&mut requests, 18, |out| {
        path(out, &down);
        path(out, &up);
    });
    // The other one is not closed.
    let (_, told) = talk_and_tell(&requests);
    let facts: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str(line.strip_prefix('\u{1e}').unwrap()).unwrap())
        .collect();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(facts.len(), 5, "{told}");
    assert_eq!(facts[0]["path"], up.to_str().unwrap());
    assert_eq!((&facts[0]["direction"], &facts[0]["bytes"]), (&"to-device".into(), &3.into()));
    assert_eq!((&facts[0]["sha256"], &facts[0]["result"]), (&abc.into(), &"closed".into()));
    assert!(facts[1]["result"].as_str().unwrap().contains("No such file"), "{told}");
    assert_eq!((&facts[2]["how"], &facts[2]["result"]), (&"remove".into(), &"done".into()));
    assert_eq!((&facts[3]["how"], &facts[3]["to"]), (&"rename".into(), &facts[0]["path"]));
    assert_eq!((&facts[4]["direction"], &facts[4]["sha256"]), (&"from-device".into(), &abc.into()));
    assert_eq!(facts[4]["result"], "unfinished");
}

#[test]
fn what_went_wrong_with_a_file_is_told_and_one_without_a_byte_has_its_direction() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    let mut requests = Vec::new();
    open(&mut requests, std::path::Path::new("/dev/full"), 2);
    request(&mut requests, 6, |out| {
        put_string(out, &0u32.to_be_bytes());
        put_u64(out, 0);
        put_string(out, b"ab");
    });
    request(&mut requests, 4, |out| put_string(out, &0u32.to_be_bytes()));
    for (handle, flags) in [(1u32, 0x1a), (2, 1)] {
        open(&mut requests, &empty, flags);
        request(&mut requests, 4, |out| put_string(out, &handle.to_be_bytes()));
    }
    let (_, told) = talk_and_tell(&requests);
    let facts: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(&line[1..]).unwrap()).collect();
    assert!(facts[0]["result"].as_str().unwrap().contains("No space left"), "{told}");
    assert_eq!((&facts[0]["direction"], &facts[0]["bytes"]), (&"to-device".into(), &0.into()));
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (fact, direction) in facts[1..].iter().zip(["to-device", "from-device"]) {
        assert_eq!((&fact["direction"], &fact["bytes"]), (&direction.into(), &0.into()));
        assert_eq!((&fact["sha256"], &fact["result"]), (&nothing.into(), &"closed".into()));
    }
    assert_eq!(facts.len(), 3, "{told}");
}

#[test]
fn a_stream_that_makes_no_sense_leaves_no_file_untold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "abc").unwrap();
    for nonsense in [&[0, 0, 0, 0][..], &[0xff; 4], &[0, 0, 0, 1, 5]] {
        let mut requests = Vec::new();
        open(&mut requests, &file, 1);
        request(&mut requests, 5, |out| {
            put_string(out, &0u32.to_be_bytes());
            put_u64(out, 0);
            put_u32(out, 1000);
        });
        requests.extend(nonsense);
        let (mut out, mut told) = (Vec::new(), Vec::new());
        let ledger = Ledger::new(Some(&mut told));
        assert!(serve(Cursor::new(requests), &mut out, ledger).is_err());
        let fact: serde_json::Value = serde_json::from_slice(&told[1..]).unwrap();
        assert_eq!((&fact["path"], &fact["bytes"]), (&file.to_str().into(), &3.into()));
        assert_eq!(fact["result"], "unfinished");
    }
}

#[test]
fn a_change_by_handle_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "abc").unwrap();
    let mut requests = Vec::new();
    open(&mut requests, &file, 2);
    request(&mut requests, 11, |out| path(out, dir.path()));
    // The last one is not open.
    for handle in 0u32..3 {
        request(&mut requests, 10, |out| {
            put_string(out, &handle.to_be_bytes());
            put_u32(out, 4);
            put_u32(out, 0o4755);
        });
    }
    let (answers, told) = talk_and_tell(&requests);
    assert_eq!(code(&answers[3]), Code::Ok as u32);
    let facts: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(&line[1..]).unwrap()).collect();
    assert_eq!(facts.len(), 3, "{told}");
    for (fact, path) in facts.iter().zip([&file, &dir.path().to_owned()]) {
        assert_eq!((&fact["how"], &fact["path"]), (&"setstat".into(), &path.to_str().into()));
        assert_eq!(fact["result"], "done");
    }
}
