#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::time::Duration;

use belay_proto::ids::DeviceId;
use belay_proto::recording::cast::{Code, Header, event};
use belay_proto::recording::file::{Head, append};
use belay_proto::recording::{Segment, VERSION, digest};
use belay_proto::time::UnixTime;
use belay_tunnel::pki::{CertificateAuthority, Identity, TlsKey};
use rustls_pki_types::CertificateDer;

use super::*;

/// A device that records, a segment at a time.
struct Recorder {
    ca: CertificateAuthority,
    key: TlsKey,
    device: DeviceId,
    before: [u8; 32],
    number: u64,
}

fn session() -> SessionId {
    "0197a3c2-7a30-7cc1-9d0e-000000000001".parse().unwrap()
}

impl Recorder {
    /// With the file's head.
    fn begin() -> (Self, Vec<u8>) {
        let now = UnixTime(1_800_000_000);
        let (ca, _) = CertificateAuthority::generate("relay.test", now).unwrap();
        let device: DeviceId = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap();
        let key = TlsKey::generate().unwrap();
        let life = Duration::from_secs(60);
        let certificate = ca.issue_for_key(&key, &Identity::Device(device), now, life).unwrap();
        let certificate = certificate.to_vec().into();
        let head = Head { version: VERSION, session: session(), certificate };
        let mut file = Vec::new();
        append(&minicbor::to_vec(&head).unwrap(), &mut file);
        (Self { ca, key, device, before: [0; 32], number: 0 }, file)
    }

    fn ca(&self) -> CertificateDer<'static> {
        self.ca.certificate().clone()
    }

    fn segment(&mut self, track: u32, text: &str, end: Option<End>) -> Vec<u8> {
        let segment = Segment {
            version: VERSION,
            session: session(),
            device: self.device,
            number: self.number,
            before: self.before.to_vec().into(),
            track,
            first_ms: 0,
            last_ms: 0,
            compressed: None,
            key: None,
            sealed: None,
            end,
            payload: text.as_bytes().to_vec().into(),
        };
        let (encoded, signed) = self.key.sign_segment(&segment).unwrap();
        (self.before, self.number) = (digest(&encoded), self.number + 1);
        let mut file = Vec::new();
        append(&signed, &mut file);
        file
    }
}

fn header(track: u32, kind: &str, command: Option<&str>) -> String {
    let mut out = String::new();
    let begun = UnixTime(1_800_000_000);
    let (columns, rows, term) = (20, 4, Some("xterm"));
    Header { columns, rows, term, begun, command, title: kind, track, kind }.write(&mut out);
    out
}

fn happened(code: Code, text: &str) -> String {
    let mut out = String::new();
    event(Duration::from_millis(10), code, text, &mut out);
    out
}

#[test]
fn whatever_way_the_bytes_come_the_same_is_seen_and_its_end_too() {
    let (mut recorder, mut file) = Recorder::begin();
    let one = header(1, "terminal", None) + &happened(Code::Output, "$ ");
    file.extend(recorder.segment(1, &one, None));
    file.extend(recorder.segment(2, &header(2, "command", Some("true")), None));
    let rest = happened(Code::Output, "exit\r\n") + &happened(Code::Exit, "0");
    file.extend(recorder.segment(1, &rest, Some(End::Whole)));
    let seen = |step: usize| {
        let mut follower = Follower::new(session(), recorder.ca(), None);
        let mut all = Vec::new();
        for bytes in file.chunks(step) {
            assert_eq!(follower.end(), None);
            all.extend(follower.take(bytes).unwrap());
        }
        assert_eq!(follower.end(), Some(End::Whole));
        format!("{all:?}")
    };
    let whole = seen(file.len());
    for part in ["Begun(1", "\"$ \"", "Begun(2", "\"exit\\r\\n\"", "code: 'x'"] {
        assert!(whole.contains(part), "{part} in {whole}");
    }
    for step in [1, 7, 100] {
        assert_eq!(seen(step), whole, "{step}");
    }
}

#[test]
fn what_the_device_did_not_sign_as_the_next_is_not_shown() {
    let (mut recorder, head) = Recorder::begin();
    let text = header(1, "terminal", None) + &happened(Code::Output, "shown");
    let first = recorder.segment(1, &text, None);
    let second = recorder.segment(1, &happened(Code::Output, "second"), None);
    let third = recorder.segment(1, &happened(Code::Output, "third"), None);
    let follow = |parts: &[&[u8]]| {
        let mut follower = Follower::new(session(), recorder.ca(), None);
        let all = parts.iter().try_for_each(|part| follower.take(part).map(|_| ()));
        all.map_err(|failure| failure.to_string())
    };
    follow(&[&head, &first, &second, &third]).unwrap();
    let mut changed = second.clone();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    assert!(follow(&[&head, &first, &changed]).is_err());
    assert!(follow(&[&head, &first, &third]).unwrap_err().contains("taken out or changed"));
    assert!(follow(&[&head, &second]).is_err());
    // Another deployment's device, another session, and what is no file at all.
    let (_, foreign) = Recorder::begin();
    assert!(follow(&[&foreign]).is_err());
    let never = "0197a3c2-7a30-7cc1-9d0e-000000000002".parse().unwrap();
    let mut other = Follower::new(never, recorder.ca(), None);
    assert!(other.take(&head).unwrap_err().to_string().contains("of session 0197a3c2"));
    assert!(follow(&[&vec![0xff; 200_000]]).unwrap_err().contains("no segment"));
}

fn lines_of(only: Option<u32>, parts: &[(u32, String)]) -> Vec<String> {
    let (mut recorder, head) = Recorder::begin();
    let mut follower = Follower::new(session(), recorder.ca(), None);
    let mut lines = lines::Lines::new(only);
    let mut all = Vec::new();
    follower.take(&head).unwrap();
    for (track, text) in parts {
        for seen in follower.take(&recorder.segment(*track, text, None)).unwrap() {
            all.extend(lines.take(seen).unwrap());
        }
    }
    all.push("---- so far".to_owned());
    all.extend(lines.finish());
    all
}

#[test]
fn a_line_is_told_once_it_stands_and_once_only() {
    let output = |text: &str| (1, happened(Code::Output, text));
    let told = lines_of(
        None,
        &[
            (1, header(1, "terminal", None)),
            output("$ ec"),
            output("ho one\r\none\r\n"),
            // Wraps at 20 columns, and scrolls the four rows.
            output("a line that is longer than the screen\r\n2\r\n3\r\n4\r\n"),
            // What a program with the whole screen draws is no line.
            output("\x1b[?1049hnot a line\r\nno\r\n\x1b[?1049l"),
            output("5\x1b]0;title\x07\r\n$ last"),
        ],
    );
    assert!(told[0].starts_with("--- 1, terminal:") && told[0].ends_with(" shell"), "{told:?}");
    let expected = [
        "$ echo one",
        "one",
        "a line that is longer than the screen",
        "2",
        "3",
        "4",
        "5",
        "---- so far",
        "$ last",
    ];
    assert_eq!(told[1..], expected);
}

#[test]
fn each_track_has_its_heading_where_its_lines_begin_and_one_can_be_had_alone() {
    let parts = [
        (1, header(1, "command", Some("make"))),
        (2, header(2, "command", Some("ls"))),
        (1, happened(Code::Output, "compiling\nli")),
        (2, happened(Code::Output, "file\n")),
        (1, happened(Code::Error, "nking\n") + &happened(Code::Exit, "2")),
    ];
    let told = lines_of(None, &parts);
    let heads: Vec<_> = told.iter().filter(|line| line.starts_with("--- ")).collect();
    assert_eq!(heads.len(), 3, "{told:?}");
    assert!(told.contains(&"linking".to_owned()), "{told:?}");
    assert!(told.iter().any(|line| line.ends_with("exit status 2")), "{told:?}");
    let told = lines_of(Some(2), &parts);
    assert!(told.contains(&"file".to_owned()) && !told.iter().any(|line| line.contains("compil")));
}

#[test]
fn the_screen_shows_the_newest_terminal_until_another_is_chosen() {
    let (mut recorder, head) = Recorder::begin();
    let mut follower = Follower::new(session(), recorder.ca(), None);
    let mut screens = screens::Screens::new(None);
    let mut take = |screens: &mut screens::Screens, bytes: &[u8]| {
        for seen in follower.take(bytes).unwrap() {
            screens.take(seen).unwrap();
        }
    };
    take(&mut screens, &head);
    assert_eq!(screens.words(), "no terminal yet");
    for (track, text) in [(1, "first\x1b]52;c;eA==\x07"), (2, "second")] {
        let begun = header(track, "terminal", None) + &happened(Code::Output, text);
        take(&mut screens, &recorder.segment(track, &begun, None));
    }
    let shown = |screens: &screens::Screens| screens.rows((20, 4)).join("\n");
    assert!(shown(&screens).contains("second"), "{}", shown(&screens));
    assert_eq!(screens.words(), "terminal 2 (2 of 2)");
    let below = happened(Code::Output, "\r\n\r\n\r\nat the bottom");
    take(&mut screens, &recorder.segment(2, &below, None));
    assert!(shown(&screens).contains("second") && shown(&screens).contains("bottom"));
    assert_eq!(screens.rows((20, 2)).len(), 2);
    assert!(screens.rows((20, 2)).join("").contains("bottom"), "where the cursor is");
    take(&mut screens, &recorder.segment(2, &happened(Code::Exit, "0"), None));
    assert!(shown(&screens).contains("first") && !shown(&screens).contains("eA=="));
    screens.next();
    assert!(screens.words().starts_with("terminal 2, ended with 0"), "{}", screens.words());
    take(&mut screens, &recorder.segment(3, &header(3, "terminal", None), None));
    assert!(screens.words().starts_with("terminal 2"), "it was chosen");
}

#[test]
fn programs_are_told_in_json_that_acts_on_no_terminal() {
    let (mut recorder, head) = Recorder::begin();
    let mut follower = Follower::new(session(), recorder.ca(), None);
    follower.take(&head).unwrap();
    let text = header(1, "command", Some("true")) + &happened(Code::Output, "\u{9b}31m\u{1b}");
    let seen = follower.take(&recorder.segment(1, &text, None)).unwrap();
    let lines: Vec<_> = seen.iter().filter_map(|seen| json::line(seen, None)).collect();
    let read = |n: usize| serde_json::from_str::<serde_json::Value>(&lines[n]).unwrap();
    assert_eq!((&read(0)["kind"], &read(0)["command"]), (&"command".into(), &"true".into()));
    assert_eq!(read(1)["text"], "\u{9b}31m\u{1b}");
    assert!(lines.iter().all(|line| line.chars().all(|c| !c.is_control())), "{lines:?}");
    assert!(seen.iter().all(|seen| json::line(seen, Some(2)).is_none()));
}
