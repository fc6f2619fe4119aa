#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::time::Duration;

use belay_proto::ids::DeviceId;
use belay_proto::recording::cast::{Code, Fact, Header, event};
use belay_proto::recording::file::{Head, append, split};
use belay_proto::recording::{End, Segment, VERSION, digest};
use belay_proto::time::UnixTime;
use belay_tunnel::pki::{CertificateAuthority, Identity, TlsKey};
use belay_tunnel::recording::{Recipient, Sealer};
use rustls_pki_types::CertificateDer;

use super::*;

/// A deployment with one device, and what it records.
struct Deployment {
    ca: CertificateAuthority,
    key: TlsKey,
    certificate: CertificateDer<'static>,
    device: DeviceId,
}

fn deployment() -> Deployment {
    let now = UnixTime(1_800_000_000);
    let (ca, _) = CertificateAuthority::generate("relay.test", now).unwrap();
    let device: DeviceId = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap();
    let key = TlsKey::generate().unwrap();
    let life = Duration::from_secs(60);
    let certificate = ca.issue_for_key(&key, &Identity::Device(device), now, life).unwrap();
    Deployment { ca, key, certificate, device }
}

fn session() -> SessionId {
    "0197a3c2-7a30-7cc1-9d0e-000000000001".parse().unwrap()
}

impl Deployment {
    /// The file of a recording with these segments: track, and text.
    fn file(&self, parts: &[(u32, String)]) -> Vec<u8> {
        self.sealed(parts, None)
    }

    fn sealed(&self, parts: &[(u32, String)], sealer: Option<&Sealer>) -> Vec<u8> {
        let head = Head {
            version: VERSION,
            session: session(),
            certificate: self.certificate.to_vec().into(),
        };
        let mut file = Vec::new();
        append(&minicbor::to_vec(&head).unwrap(), &mut file);
        let mut before = [0; 32];
        for (number, (track, text)) in parts.iter().enumerate() {
            let mut payload = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
            if let Some(sealer) = sealer {
                sealer.seal(number as u64, *track, &mut payload).unwrap();
            }
            let segment = Segment {
                version: VERSION,
                session: session(),
                device: self.device,
                number: number as u64,
                before: before.to_vec().into(),
                track: *track,
                first_ms: 0,
                last_ms: 0,
                compressed: Some(true),
                sealed: sealer.is_some().then_some(true),
                end: (number + 1 == parts.len()).then_some(End::Whole),
                payload: payload.into(),
                key: sealer.filter(|_| number == 0).map(|one| one.wrapped().to_vec().into()),
            };
            let (encoded, signed) = self.key.sign_segment(&segment).unwrap();
            before = digest(&encoded);
            append(&signed, &mut file);
        }
        file
    }

    fn read(&self, parts: &[(u32, String)]) -> Vec<Track> {
        let file = self.file(parts);
        tracks(&proof::prove(&file, self.ca.certificate()).unwrap(), None).unwrap()
    }
}

fn header(track: u32, kind: &str, command: Option<&str>) -> String {
    let mut out = String::new();
    let begun = UnixTime(1_800_000_000);
    let (columns, rows, term) = (20, 4, Some("xterm"));
    Header { columns, rows, term, begun, command, title: kind, track, kind }.write(&mut out);
    out
}

fn events(events: &[(u64, Code, &str)]) -> String {
    let mut out = String::new();
    for (after, code, text) in events {
        event(Duration::from_millis(*after), *code, text, &mut out);
    }
    out
}

fn parts() -> Vec<(u32, String)> {
    vec![
        (0, header(0, "session", None)),
        (1, header(1, "terminal", None) + &events(&[(0, Code::Output, "$ ")])),
        (
            2,
            header(2, "command", Some("ls"))
                + &events(&[
                    (0, Code::Output, "a\nb\n"),
                    (1, Code::Error, "oh\n"),
                    (1, Code::Belay, &Fact::new("input").finish()),
                    (1, Code::Exit, "1"),
                ]),
        ),
        (
            1,
            events(&[
                (10_000, Code::Output, "ls\r\n"),
                (500, Code::Marker, "here"),
                (0, Code::Resize, "30x5"),
                (0, Code::Output, "\u{1b}[31mred\u{1b}[0m"),
            ]),
        ),
        (0, events(&[(0, Code::Belay, &Fact::new("ended").text("reason", "x").finish())])),
    ]
}

fn refusal(bytes: &[u8], ca: &CertificateAuthority) -> String {
    match proof::prove(bytes, ca.certificate()) {
        Ok(_) => panic!("taken for proven"),
        Err(failure) => failure.to_string(),
    }
}

#[test]
fn a_whole_recording_is_proven_and_read() {
    let deployment = deployment();
    let file = deployment.file(&parts());
    let proven = proof::prove(&file, deployment.ca.certificate()).unwrap();
    assert_eq!((proven.state(), proven.segments.len()), ("whole", 5));
    assert!(proven.remarks().is_empty());
    let tracks = tracks(&proven, None).unwrap();
    assert_eq!(tracks.len(), 3);
    assert_eq!(chosen(&tracks, None).unwrap().number, 1);
    assert_eq!(chosen(&tracks, Some(2)).unwrap().header.command.as_deref(), Some("ls"));
    assert!(chosen(&tracks, Some(9)).is_err());
    let shown = serde_json::to_value(summary(&proven, &tracks)).unwrap();
    assert_eq!(shown["tracks"][0]["facts"][0]["what"], "ended");
    assert_eq!(shown["tracks"][2]["exit"], "1");
}

#[test]
fn whatever_was_done_to_it_is_named_and_nothing_is_shown() {
    let deployment = deployment();
    let file = deployment.file(&parts());
    let ends: Vec<usize> = {
        let (mut ends, mut rest) = (vec![], file.as_slice());
        while let Some((_, after)) = split(rest) {
            rest = after;
            ends.push(file.len() - rest.len());
        }
        ends
    };
    // One bit, in the fourth segment.
    let mut changed = file.clone();
    changed[ends[3] + 40] ^= 1;
    assert!(refusal(&changed, &deployment.ca).contains("segment 3"));
    // The third taken out.
    let without = [&file[..ends[2]], &file[ends[3]..]].concat();
    assert!(refusal(&without, &deployment.ca).contains("segment 3 does not follow"));
    // Another deployment's device.
    let other = self::deployment();
    assert!(refusal(&file, &other.ca).contains("no device's of this deployment"));
    // Another device of this deployment, with the same number.
    let stranger = self::deployment();
    let life = Duration::from_secs(60);
    let identity = Identity::Device(stranger.device);
    let certificate = deployment.ca.issue_for_key(&stranger.key, &identity, UnixTime(1), life);
    let swapped = Deployment { certificate: certificate.unwrap(), ..self::deployment() };
    assert!(refusal(&swapped.file(&parts()), &deployment.ca).contains("not signed by the device"));
    // Cut at its end: told, and what is there is shown.
    let cut = proof::prove(&file[..ends[4]], deployment.ca.certificate()).unwrap();
    assert_eq!(cut.state(), "unfinished");
    assert!(cut.remarks()[0].contains("no end"));
    // Something behind the end.
    assert!(refusal(&[&file[..], b"x"].concat(), &deployment.ca).contains("after"));
}

#[test]
fn a_cast_is_the_format_and_a_commands_lines_are_a_terminals() {
    let tracks = deployment().read(&parts());
    let text = cast::of(chosen(&tracks, Some(2)).unwrap(), false);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["version"], 3);
    assert_eq!(lines[0]["term"]["cols"], 20);
    assert_eq!(lines[1], serde_json::json!([0.0, "o", "a\r\nb\r\n"]));
    assert_eq!(lines[2], serde_json::json!([0.001, "o", "oh\r\n"]));
    // The fact's time is not lost.
    assert_eq!(lines[3], serde_json::json!([0.002, "x", "1"]));
    assert_eq!(lines.len(), 4);
}

#[test]
fn what_was_typed_is_shown_to_who_asks_for_it_alone() {
    let typed = [
        (0, Code::Output, "$ "),
        (1, Code::Input, "l"),
        (1, Code::Output, "l"),
        (2, Code::Input, "s\u{7f}\u{3}\u{1b}]0;x\u{7}\rmore"),
        (2, Code::Output, "s\r\n"),
    ];
    let text = header(1, "terminal", None) + &events(&typed);
    let tracks = deployment().read(&[(1, text)]);
    let lines = transcript::typed(&tracks[0]);
    let said = |line: &str| line.split_once("] ").unwrap().1.to_owned();
    let said: Vec<String> = lines.iter().map(|line| said(line)).collect();
    assert_eq!(said, ["typed: ls^?^C^[]0;x^G", "typed: more"]);
    let codes = |input| {
        let text = cast::of(&tracks[0], input);
        let lines = text
            .lines()
            .skip(1)
            .map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap().1);
        lines.collect::<String>()
    };
    assert_eq!((codes(false), codes(true)), ("ooo".into(), "oioio".into()));
    let mut brief = tracks[0].brief();
    assert!(serde_json::to_value(&brief).unwrap()["input"].is_null());
    brief.add_input(&tracks[0]);
    assert_eq!(serde_json::to_value(&brief).unwrap()["input"][0]["text"], "l");
    let mut reel = player::Reel::new(&tracks[0], None).unwrap();
    reel.seek(Duration::from_secs(60)).unwrap();
    assert!(!reel.rows((80, 24)).concat().contains("more"));
}

#[test]
fn a_reel_goes_on_and_back_and_cuts_pauses() {
    let tracks = deployment().read(&parts());
    let mut reel = player::Reel::new(chosen(&tracks, None).unwrap(), Some(1.0)).unwrap();
    let shows = |reel: &player::Reel<'_>, text: &str| reel.rows((80, 24)).concat().contains(text);
    reel.seek(Duration::from_millis(999)).unwrap();
    assert!(shows(&reel, "$ ") && !shows(&reel, "ls"));
    reel.seek(Duration::from_millis(1000)).unwrap();
    assert!(shows(&reel, "ls") && !shows(&reel, "red"));
    reel.seek(Duration::from_secs(60)).unwrap();
    assert!(shows(&reel, "\u{1b}[0;38;5;1mred"));
    assert_eq!(reel.at, Duration::from_millis(1500));
    reel.seek(Duration::ZERO).unwrap();
    assert!(shows(&reel, "$ ") && !shows(&reel, "ls"));
}

/// Where `]` stops from the beginning, and `[` from the end, in milliseconds.
fn stops(all: &[(u64, Code, &str)]) -> (Vec<u128>, Vec<u128>) {
    let tracks = deployment().read(&[(1, header(1, "terminal", None) + &events(all))]);
    let mut reel = player::Reel::new(&tracks[0], None).unwrap();
    let (mut on, mut back) = (Vec::new(), Vec::new());
    while on.last() != Some(&reel.next_mark().as_millis()) {
        reel.seek(reel.next_mark()).unwrap();
        on.push(reel.at.as_millis());
    }
    while reel.at != Duration::ZERO {
        reel.seek(reel.last_mark()).unwrap();
        back.push(reel.at.as_millis());
    }
    (on, back)
}

#[test]
fn one_jumps_to_commands_and_marks() {
    let prompt = "\u{1b}]133;D;0\u{7}\u{1b}]133;A\u{7}$ \u{1b}]133;B\u{7}";
    let marked = stops(&[
        (0, Code::Output, prompt),
        (2_000, Code::Output, "ls"),
        (2_000, Code::Output, "\r\n\u{1b}]133;C\u{7}a b\r\n"),
        (100, Code::Output, prompt),
        // Cut in two by the way it was read; what was typed counts where no shell says anything.
        (5_000, Code::Input, "id\r"),
        (500, Code::Output, "\r\n\u{1b}]13"),
        (500, Code::Output, "3;C\u{7}uid=0\r\n"),
        (2_000, Code::Marker, "here"),
        (5_000, Code::Output, "bye"),
    ]);
    assert_eq!(marked, (vec![4_000, 10_100, 12_100, 17_100], vec![12_100, 10_100, 4_000, 0]));
    let typed = stops(&[
        (0, Code::Output, "$ "),
        (3_000, Code::Input, "l"),
        (500, Code::Input, "s\r"),
        (9_000, Code::Output, "bye"),
    ]);
    assert_eq!(typed, (vec![3_500, 12_500], vec![3_500, 0]));
}

#[test]
fn nothing_a_device_recorded_acts_on_this_terminal() {
    let hostile = "\u{1b}]0;title\u{7}\u{1b}]52;c;cm0gLXJm\u{7}\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\\
                   \u{1b}[c\u{1b}[6n\u{1b}P$q\"p\u{1b}\\\u{1b}_x\u{1b}\\\u{9b}5n\u{9d}0;y\u{9c}\u{1b}[21t\u{202e}ok\u{200b}\u{5}\
                   \u{1b}[?1000h\u{1b}[5i\u{1b}[31mred";
    let text = header(1, "terminal", None) + &events(&[(0, Code::Output, hostile)]);
    let tracks = deployment().read(&[(1, text)]);
    let mut reel = player::Reel::new(&tracks[0], None).unwrap();
    reel.seek(Duration::from_secs(1)).unwrap();
    let drawn = reel.rows((80, 24)).concat();
    assert!(drawn.contains("red") && drawn.contains("ok"), "{drawn:?}");
    let mut rest = drawn.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        assert!(!before.chars().any(|c| c.is_control() || c == '\u{202e}'), "{drawn:?}");
        // What is left of escapes is colours alone.
        let end = after.find('m').unwrap();
        assert!(after.starts_with('['), "{drawn:?}");
        assert!(after[1..end].chars().all(|c| c.is_ascii_digit() || c == ';'), "{drawn:?}");
        rest = &after[end + 1..];
    }
    assert!(!rest.chars().any(char::is_control));
    assert_eq!(draw::inert("a\u{1b}]0;x\u{7}\u{202e}\tb"), "a\u{fffd}]0;x\u{fffd}\u{fffd}\tb");
}

#[test]
fn a_text_that_would_not_end_is_not_made() {
    let deployment = deployment();
    let bomb = header(1, "terminal", None) + &"x".repeat(10_000_000);
    let file = deployment.file(&[(1, bomb)]);
    let proven = proof::prove(&file, deployment.ca.certificate()).unwrap();
    assert!(tracks(&proven, None).is_err());
}

/// A key file of an auditor's, made by the age library itself, and its public half.
fn auditor(dir: &Path, name: &str) -> (PathBuf, Recipient) {
    use age::secrecy::ExposeSecret as _;
    let secret = age::x25519::Identity::generate();
    let file = dir.join(name);
    let text = format!("# created: today\n{}\n", secret.to_string().expose_secret());
    std::fs::write(&file, text).unwrap();
    (file, secret.to_public().to_string().parse().unwrap())
}

#[test]
fn a_sealed_recording_opens_with_any_of_its_auditors_keys_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [audrey, ben, eve] = ["audrey", "ben", "eve"].map(|name| auditor(dir.path(), name));
    let deployment = deployment();
    let sealer = Sealer::new(session(), &[audrey.1, ben.1]).unwrap();
    let file = deployment.sealed(&parts(), Some(&sealer));
    assert!(!file.windows(4).any(|window| window == b"term"));
    let proven = proof::prove(&file, deployment.ca.certificate()).unwrap();
    assert!(open::is_sealed(&proven));
    for key in [&audrey.0, &ben.0] {
        let opener = open::opener(&proven, key).unwrap();
        let opened = tracks(&proven, Some(&opener)).unwrap();
        assert_eq!(opened.len(), deployment.read(&parts()).len());
        assert_eq!(opened[1].events, deployment.read(&parts())[1].events);
    }
    let refused = open::opener(&proven, &eve.0).unwrap_err().to_string();
    assert!(refused.contains("not sealed to a key in"), "{refused}");
    let locked = tracks(&proven, None).map(drop).unwrap_err().to_string();
    assert!(locked.contains("sealed to auditors"), "{locked}");
    let none = open::opener(&proven, &dir.path().join("none")).unwrap_err().to_string();
    assert!(none.contains("cannot read keys"), "{none}");

    // A segment of another session's recording, sealed with this one's key for that one.
    let opener = open::opener(&proven, &audrey.0).unwrap();
    let mut moved = proof::prove(&file, deployment.ca.certificate()).unwrap();
    moved.segments.swap(1, 2);
    moved.segments[1].number = 1;
    let broken = tracks(&moved, Some(&opener)).map(drop).unwrap_err().to_string();
    assert!(broken.contains("segment 1 does not open"), "{broken}");
}

#[test]
fn a_reel_begins_where_the_track_was_at_a_time_whatever_pauses_are_cut() {
    let tracks = deployment().read(&parts());
    let track = chosen(&tracks, None).unwrap();
    for (limit, at) in [(None, 10_000), (Some(1.0), 1_000)] {
        let mut reel = player::Reel::new(track, limit).unwrap();
        reel.begin_at(Duration::from_secs(10)).unwrap();
        assert_eq!(reel.at, Duration::from_millis(at));
        assert!(reel.rows((80, 24)).concat().contains("ls"));
    }
    let mut reel = player::Reel::new(track, None).unwrap();
    reel.begin_at(Duration::from_secs(4)).unwrap();
    assert_eq!(reel.at, Duration::from_secs(4));
    reel.begin_at(Duration::from_secs(4000)).unwrap();
    assert_eq!(reel.at, Duration::from_millis(10_500));
    for (text, seconds) in [("754", 754), ("12:34", 754), ("0:12:34", 754), ("1:00:00", 3600)] {
        assert_eq!(clock(text), Ok(Duration::from_secs(seconds)));
    }
    assert!(clock("x").is_err() && clock("1:2:3:4").is_err() && clock("").is_err());
}
