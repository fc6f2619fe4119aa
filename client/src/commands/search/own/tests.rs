#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use std::time::Duration;

use belay_proto::evidence::{Ended, Exchanged};
use belay_proto::ids::DeviceId;
use belay_proto::recording::cast::{Code, Header, event};
use belay_proto::recording::file::{Head as FileHead, append, split};
use belay_proto::recording::{End, Segment, SignedSegment, VERSION, digest};
use belay_proto::time::UnixTime;
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::pki::{CertificateAuthority, Identity, TlsKey};
use belay_tunnel::recording::{Recipient, Sealer};
use rustls_pki_types::CertificateDer;

use super::bring::{Due, gathered, proven};
use super::file::State;
use super::*;
use crate::commands::play::logged::{Ending, Logged};

const BEGUN: UnixTime = UnixTime(1_800_000_000);

/// A deployment with one device, and two auditors.
struct Site {
    dir: tempfile::TempDir,
    home: Home,
    ca: CertificateAuthority,
    key: TlsKey,
    certificate: CertificateDer<'static>,
    device: DeviceId,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let (ca, _) = CertificateAuthority::generate("relay.test", BEGUN).unwrap();
    let device: DeviceId = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap();
    let key = TlsKey::generate().unwrap();
    let life = Duration::from_secs(60);
    let certificate = ca.issue_for_key(&key, &Identity::Device(device), BEGUN, life).unwrap();
    let home = Home::locate(Some(&dir.path().join("home"))).unwrap();
    home.create().unwrap();
    Site { dir, home, ca, key, certificate, device }
}

fn session(n: u8) -> SessionId {
    format!("0197a3c2-7a30-7cc1-9d0e-0000000000{n:02x}").parse().unwrap()
}

impl Site {
    /// A secret key's file, and what is sealed to it.
    fn auditor(&self, name: &str) -> (PathBuf, Recipient) {
        use age::secrecy::ExposeSecret as _;
        let secret = age::x25519::Identity::generate();
        let file = self.dir.path().join(name);
        std::fs::write(&file, secret.to_string().expose_secret()).unwrap();
        (file, secret.to_public().to_string().parse().unwrap())
    }

    /// The file of a recording of one terminal that showed these lines, a second after another.
    fn recording(&self, session: SessionId, lines: &[&str], to: &Recipient) -> Vec<u8> {
        let sealer = Sealer::new(session, std::slice::from_ref(to)).unwrap();
        let head =
            FileHead { version: VERSION, session, certificate: self.certificate.to_vec().into() };
        let mut file = Vec::new();
        append(&minicbor::to_vec(&head).unwrap(), &mut file);
        let mut text = String::new();
        let (columns, rows, term) = (80, 24, Some("xterm"));
        let (command, title, track, kind) = (None, "t", 1, "terminal");
        Header { columns, rows, term, begun: BEGUN, command, title, track, kind }.write(&mut text);
        let mut parts = vec![text];
        for line in lines {
            let mut text = String::new();
            event(Duration::from_secs(1), Code::Output, &format!("{line}\r\n"), &mut text);
            parts.push(text);
        }
        let mut before = [0; 32];
        for (number, text) in parts.iter().enumerate() {
            let mut payload = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
            sealer.seal(number as u64, track, &mut payload).unwrap();
            let segment = Segment {
                version: VERSION,
                session,
                device: self.device,
                number: number as u64,
                before: before.to_vec().into(),
                track,
                first_ms: 0,
                last_ms: 0,
                compressed: Some(true),
                sealed: Some(true),
                end: (number + 1 == parts.len()).then_some(End::Whole),
                payload: payload.into(),
                key: (number == 0).then(|| sealer.wrapped().to_vec().into()),
            };
            let (encoded, signed) = self.key.sign_segment(&segment).unwrap();
            before = digest(&encoded);
            append(&signed, &mut file);
        }
        file
    }

    /// As the relay lists it.
    fn listed(&self, n: u8, user: &str) -> SealedRecording {
        SealedRecording {
            session: session(n),
            user: Some(user.parse().unwrap()),
            device: Some("pump-17".parse().unwrap()),
            device_id: Some(self.device),
            login: Some("root".into()),
            bytes: 100,
        }
    }

    fn read(&self, index: &Index, n: u8, file: &[u8]) -> (State, Vec<Block>) {
        match proven(session(n), file, self.ca.certificate()) {
            Some(proven) => gathered(&proven, &index.keys),
            None => (State::Damaged, Vec::new()),
        }
    }

    fn put(&self, index: &Index, n: u8, file: &[u8]) -> State {
        let (state, blocks) = self.read(index, n, file);
        index.put(session(n), head(100, state, Ending::Agreed), &blocks).unwrap();
        state
    }
}

fn head(bytes: u64, state: State, ending: Ending) -> Head {
    Head { bytes, state, ending }
}

/// The first so many records of a recording's file, and the number and digest of the last one.
fn records(file: &[u8], count: usize) -> (&[u8], Ended) {
    let (mut rest, mut last) = (file, &file[..0]);
    for _ in 0..count {
        (last, rest) = split(rest).unwrap();
    }
    let signed: SignedSegment = decode_payload(last).unwrap();
    let ended = Ended { number: count as u64 - 2, head: digest(&signed.segment) };
    (&file[..file.len() - rest.len()], ended)
}

fn asked(text: &str) -> Asked {
    Asked { text: text.into(), since_ms: 0, device: None, user: None, limit: 10 }
}

fn lines(looked: &Looked) -> Vec<(&str, u64)> {
    looked.hits.iter().map(|hit| (hit.line.as_str(), hit.offset_ms)).collect()
}

#[test]
fn what_is_sealed_to_a_key_is_found_with_it_and_lies_open_nowhere() {
    let site = site();
    let [audrey, eve] = ["audrey", "eve"].map(|name| site.auditor(name));
    let index = Index::open(&site.home, &audrey.0).unwrap();
    let one = site.recording(session(1), &["$ rm -rf /srv/secret", "gone"], &audrey.1);
    let two = site.recording(session(2), &["the rm -rf again"], &audrey.1);
    let foreign = site.recording(session(3), &["rm -rf unseen"], &eve.1);
    let mut broken = site.recording(session(4), &["rm -rf broken"], &audrey.1);
    let at = broken.len() - 60;
    broken[at] ^= 1;
    let states: Vec<State> = (1..)
        .zip([&one, &two, &foreign, &broken])
        .map(|(n, file)| site.put(&index, n, file))
        .collect();
    assert_eq!(states, [State::Whole, State::Whole, State::Foreign, State::Damaged]);
    assert_eq!(site.read(&index, 9, &one).0, State::Damaged);

    let listed: Vec<_> = [(1, "anna"), (2, "ben"), (3, "anna"), (4, "anna")]
        .map(|(n, who)| site.listed(n, who))
        .into();
    let looked = index.look(&listed, &asked("RM -rf")).unwrap();
    assert_eq!(lines(&looked), [("the rm -rf again", 1000), ("$ rm -rf /srv/secret", 1000)]);
    assert_eq!((looked.searched, looked.foreign, looked.damaged), (2, 1, 1));
    assert!(!looked.more && looked.waiting == 0);
    let hit = &looked.hits[1];
    assert_eq!((hit.session, hit.track, hit.at.0), (session(1), 1, BEGUN.0 + 1));
    assert_eq!(hit.user.as_ref().unwrap().as_str(), "anna");

    let of = |change: fn(&mut Asked)| {
        let mut asked = asked("rm -rf");
        change(&mut asked);
        index.look(&listed, &asked).unwrap()
    };
    assert_eq!(lines(&of(|asked| asked.user = Some("ben".into()))).len(), 1);
    assert_eq!(lines(&of(|asked| asked.device = Some("pump-17".into()))).len(), 2);
    assert_eq!(lines(&of(|asked| asked.device = Some("pump-18".into()))).len(), 0);
    assert_eq!(lines(&of(|asked| asked.since_ms = (BEGUN.0 + 2) * 1000)).len(), 0);
    let newest = of(|asked| asked.limit = 1);
    assert_eq!((lines(&newest), newest.more), (vec![("the rm -rf again", 1000)], true));
    assert_eq!(lines(&index.look(&listed, &asked("-rf /srv")).unwrap()).len(), 1);
    assert_eq!(lines(&index.look(&listed, &asked("gone rm")).unwrap()), []);

    // Nothing of it is on the disk as it is, and another's index is another.
    for entry in std::fs::read_dir(&index.dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
    let others = Index::open(&site.home, &eve.0).unwrap();
    assert_ne!(others.dir, index.dir);
    assert!(others.seal.open(session(1), std::fs::read(index.path(session(1))).unwrap()).is_none());
}

#[test]
fn a_file_that_is_not_what_was_written_is_read_again_and_never_believed() {
    let site = site();
    let audrey = site.auditor("audrey");
    let index = Index::open(&site.home, &audrey.0).unwrap();
    for n in [1, 2, 3] {
        site.put(&index, n, &site.recording(session(n), &["needle"], &audrey.1));
    }
    let listed: Vec<_> = [1, 2, 3].map(|n| site.listed(n, "anna")).into();
    // Exchanged, and cut off; and what a write that was broken off leaves.
    std::fs::copy(index.path(session(1)), index.path(session(2))).unwrap();
    let file = std::fs::read(index.path(session(3))).unwrap();
    std::fs::write(index.path(session(3)), &file[..file.len() - 1]).unwrap();
    let half = index.dir.join(format!("{}.abc.new", session(1)));
    std::fs::write(&half, "half").unwrap();
    assert!(index.look(&[], &asked("needle")).unwrap().hits.is_empty() && half.exists());
    let hour_ago = SystemTime::now() - 2 * FOREIGN_FOR;
    std::fs::File::options().write(true).open(&half).unwrap().set_modified(hour_ago).unwrap();
    let looked = index.look(&listed, &asked("needle")).unwrap();
    assert_eq!((looked.hits.len(), looked.searched, looked.waiting), (1, 1, 2));
    assert!(!half.exists());
    assert_eq!(index.known().unwrap().into_keys().collect::<Vec<_>>(), [session(1)]);
    // Another length, or another state, said of the same file.
    let file = std::fs::read(index.path(session(1))).unwrap();
    for at in 0..HEAD {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(index.seal.open(session(1), changed).is_none(), "byte {at}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&index.dir), mode(&index.path(session(1)))), (0o700, 0o600));
}

#[test]
fn a_recording_is_held_against_its_end_in_the_audit_log() {
    let site = site();
    let audrey = site.auditor("audrey");
    let whole = site.recording(session(1), &["one", "two", "three"], &audrey.1);
    let (all, end) = records(&whole, 5);
    assert_eq!((all.len(), end.number), (whole.len(), 3));
    let (cut, _) = records(&whole, 3);
    let other = site.recording(session(1), &["one", "two", "four"], &audrey.1);
    let ending = |file: &[u8], ends: &[Ended]| {
        let mut logged = Logged::default();
        logged.ends.extend_from_slice(ends);
        logged.ending(&proven(session(1), file, site.ca.certificate()).unwrap())
    };
    assert_eq!(ending(&whole, &[end]), Ok(Ending::Agreed));
    assert_eq!(ending(&whole, &[]), Ok(Ending::Unlogged));
    assert_eq!(ending(cut, &[]), Ok(Ending::Open));
    assert_eq!(ending(cut, &[end]), Err(Exchanged::Cut { logged: 3, found: 1 }));
    assert_eq!(ending(&other, &[end]), Err(Exchanged::Other { logged: 3 }));
}

#[test]
fn what_had_no_end_is_asked_about_again_and_what_was_exchanged_is_named_and_not_searched() {
    let site = site();
    let audrey = site.auditor("audrey");
    let index = Index::open(&site.home, &audrey.0).unwrap();
    let (_, blocks) = site.read(&index, 1, &site.recording(session(1), &["needle"], &audrey.1));
    for (n, head) in [
        (1, head(100, State::Whole, Ending::Agreed)),
        (2, head(100, State::Whole, Ending::Open)),
        (3, head(90, State::Whole, Ending::Agreed)),
        (4, head(100, State::Exchanged, Ending::Open)),
        (5, head(100, State::Cut, Ending::Unlogged)),
        (6, head(100, State::Foreign, Ending::Open)),
        (7, head(100, State::Damaged, Ending::Open)),
    ] {
        let blocks = if head.state == State::Exchanged { &[][..] } else { &blocks };
        index.put(session(n), head, blocks).unwrap();
    }
    let listed: Vec<_> = (1..=8).map(|n| site.listed(n, "anna")).collect();
    let due = Due::of(&listed, &index.known().unwrap());
    let of = |all: &[u8]| all.iter().map(|n| session(*n)).collect::<Vec<_>>();
    assert_eq!((due.read, due.open), (of(&[3, 4, 8]), of(&[2, 6])));
    let looked = index.look(&listed, &asked("needle")).unwrap();
    assert_eq!((looked.exchanged, looked.unlogged), (of(&[4]), 1));
    assert_eq!((looked.searched, looked.damaged, looked.foreign, looked.cut), (4, 1, 1, 1));
}
