//! Segments as a device brings them: what is kept, what is on record, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::time::Duration;

use belay_proto::audit::Entry;
use belay_proto::evidence::Ended;
use belay_proto::ids::SessionId;
use belay_proto::recording::{
    End, Opening, Segment, SignedSegment, Upload, Uploaded, VERSION, digest, obligation, stream,
};
use belay_proto::refusal::Code;
use belay_proto::wire::control::capability;
use belay_proto::wire::frame::decode_payload;
use belay_relay::recordings::Recordings;
use belay_tunnel::carrier::{RecvHalf, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::TlsKey;
use tokio::time::Instant;

use crate::lines::{Device, Site, soon};
use crate::sessions::{Enrolled, Open1, granted, opened, refusal, standard};

/// A device's stream for recordings.
pub(crate) struct Way {
    send: SendHalf,
    answers: Messages<RecvHalf>,
}

impl Way {
    pub(crate) async fn open(device: &Device) -> Self {
        let (mut send, recv) = device.carrier.open().await.unwrap();
        let opening = Opening { kind: Some(stream::RECORDINGS.to_owned()) };
        framed::write(&mut send, &opening).await.unwrap();
        Self { send, answers: Messages::new(recv) }
    }

    /// Brings one, and hears the answer.
    pub(crate) async fn bring(&mut self, signed: &[u8]) -> Uploaded {
        let upload = Upload { segment: Some(signed.to_vec().into()) };
        framed::write(&mut self.send, &upload).await.unwrap();
        soon("an answer", self.answers.next::<Uploaded>()).await.unwrap().unwrap()
    }
}

fn digest_of(signed: &[u8]) -> [u8; 32] {
    let signed: SignedSegment = decode_payload(signed).unwrap();
    digest(&signed.segment)
}

/// Segments of a session, signed by this key; the last one ends the recording.
pub(crate) fn recorded(
    key: &TlsKey,
    (device, _): &Enrolled,
    session: SessionId,
    count: u64,
) -> (Vec<Vec<u8>>, [u8; 32]) {
    let mut before = [0; 32];
    let mut all = Vec::new();
    for number in 0..count {
        let segment = Segment {
            version: VERSION,
            session,
            device: *device,
            number,
            before: before.to_vec().into(),
            track: 0,
            first_ms: 1,
            last_ms: 2,
            compressed: None,
            sealed: None,
            end: (number + 1 == count).then_some(End::Whole),
            payload: b"[0.0,\"b\",\"{}\"]\n".to_vec().into(),
            key: None,
        };
        let (encoded, signed) = key.sign_segment(&segment).unwrap();
        before = digest(&encoded);
        all.push(signed);
    }
    (all, before)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_brings_is_kept_once_over_lines_and_relays_and_on_record() {
    let (mut site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let Open1 { id, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let (segments, head) = recorded(pump.1.key(), &pump, id, 3);
    let mut way = Way::open(&device).await;
    for (number, signed) in segments.iter().take(2).enumerate() {
        let answer = way.bring(signed).await;
        assert_eq!((answer.session, answer.number), (Some(id), Some(number as u64)), "{answer:?}");
    }
    site.recorded(id, "recording-started").await;

    site.stop_relay().await;
    site.start_relay().await;
    let device = site.recording_line(&pump, &[id]).await;
    let mut way = Way::open(&device).await;
    // Of what was sent before, each is answered with what is there.
    assert_eq!(way.bring(&segments[0]).await.number, Some(1));
    assert_eq!(way.bring(&segments[2]).await.number, Some(2));
    let told = site.recorded(id, "recording-ended").await;
    assert_eq!(told.iter().filter(|d| d.kind == "recording-started").count(), 1);
    let detail = told.last().unwrap().detail.clone().unwrap();
    let head: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(detail, format!("last segment 2, SHA-256 {head}"));
    let page = site.store.log_page(0, 1000).await.unwrap();
    let entries: Vec<Entry> =
        page.entries.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<Ended> = entries.iter().filter_map(Ended::of).collect();
    assert_eq!((ends.len(), ends[0].number, ends[0].head), (1, 2, digest_of(&segments[2])));
    let standing = Recordings::open(site.data()).unwrap().standing(id).unwrap().unwrap();
    assert_eq!((standing.last, standing.end), (Some(2), Some(End::Whole)));

    // However often a device brings it again: one end, one entry.
    for signed in segments.iter().cycle().take(12) {
        assert_eq!(way.bring(signed).await.number, Some(2));
    }
    let told = site.recorded(id, "recording-ended").await;
    assert_eq!(told.iter().filter(|d| d.kind == "recording-ended").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_session_no_other_key_and_no_hole_is_taken() {
    let (site, pump) = standard("").await;
    let fan = site.add_device("fan").await;
    let device = site.recording_line(&pump, &[]).await;
    let other = site.recording_line(&fan, &[]).await;
    let Open1 { id, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, id, 3);

    let (foreign, _) = recorded(fan.1.key(), &fan, id, 1);
    let refused = Way::open(&other).await.bring(&foreign[0]).await.refused.unwrap();
    assert_eq!(refused.code(), Code::BadRequest, "{refused}");

    let mut way = Way::open(&device).await;
    let (forged, _) = recorded(fan.1.key(), &pump, id, 1);
    let refused = way.bring(&forged[0]).await.refused.unwrap();
    assert!(refused.to_string().contains("not signed by the device"), "{refused}");
    let refused = way.bring(&segments[1]).await.refused.unwrap();
    assert!(refused.to_string().contains("does not follow"), "{refused}");
    let refused = way.bring(b"nonsense").await.refused.unwrap();
    assert_eq!(refused.code(), Code::BadRequest);
    // And the right one is, after all of them.
    assert_eq!(way.bring(&segments[0]).await.number, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_something_unknown_is_given_up_and_the_line_goes_on() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let (mut send, recv) = device.carrier.open().await.unwrap();
    framed::write(&mut send, &Opening { kind: Some("songs".to_owned()) }).await.unwrap();
    let answer = soon("a reset", Messages::new(recv).next::<Uploaded>()).await;
    assert!(answer.is_err(), "{answer:?}");
    let Open1 { .. } = opened(&site, &device).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_obliged_to_what_they_can_and_the_others_are_let_in_or_not() {
    for (settings, wanted) in [
        ("", Some("record")),
        ("recording = \"required\"\n", Some("record-required")),
        ("recording = \"off\"\n", None),
    ] {
        let (site, pump) = standard(settings).await;
        let device = site.recording_line(&pump, &[]).await;
        let client = site.root().await;
        let (_, (grant, _far)) = granted(client.opens("pump"), device.takes()).await;
        let obliged = grant.obligations.clone().unwrap_or_default();
        assert_eq!(obliged.first().map(String::as_str), wanted, "{settings}");
        assert!(obliged.len() < 2);
    }
    let (site, pump) = standard("recording = \"required\"\n").await;
    let _old = site.line(&pump, &[]).await;
    let refused = refusal(site.root().await.opens("pump").await);
    assert_eq!(refused.code(), Code::NotAllowed);
    assert!(refused.to_string().contains("must be recorded"), "{refused}");

    let (site, pump) = standard("").await;
    let old = site.line(&pump, &[]).await;
    let client = site.root().await;
    let (_, (grant, _far)) = granted(client.opens("pump"), old.takes()).await;
    assert_eq!(grant.obligations, None, "it would refuse what it does not know");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_recordings_are_sealed_a_device_seals_or_does_not_record() {
    const AUDREY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let sealed = format!("recording_recipients = [\"{AUDREY}\"]\n");
    let (site, pump) = standard(&sealed).await;
    let seals = [capability::ATTACH, capability::RECORD, capability::SEAL];
    let device = site.capable_line(&pump, &[], &seals).await;
    let client = site.root().await;
    let (_, (grant, _far)) = granted(client.opens("pump"), device.takes()).await;
    let obliged = grant.obligations.clone().unwrap_or_default();
    assert_eq!(obliged, [obligation::RECORD, obligation::SEAL]);
    assert_eq!(grant.recipients.as_deref(), Some(&[AUDREY.to_owned()][..]));

    // One that records, and cannot seal: nothing of it is recorded in plain.
    let (site, pump) = standard(&sealed).await;
    let device = site.recording_line(&pump, &[]).await;
    let client = site.root().await;
    let (_, (grant, _far)) = granted(client.opens("pump"), device.takes()).await;
    assert_eq!((grant.obligations.clone(), grant.recipients.clone()), (None, None));

    let (site, pump) = standard(&format!("{sealed}recording = \"required\"\n")).await;
    let _device = site.recording_line(&pump, &[]).await;
    let refused = refusal(site.root().await.opens("pump").await);
    assert_eq!(refused.code(), Code::NotAllowed);
    assert!(refused.to_string().contains("recorded and sealed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_is_recorded_where_it_is_wanted_by_devices_that_can() {
    let old = [capability::ATTACH, capability::RECORD];
    let able = [capability::ATTACH, capability::RECORD, capability::RECORD_INPUT];
    for (settings, can, wanted) in [
        ("", &able[..], &[obligation::RECORD][..]),
        (
            "recording_input = true\n",
            &able[..],
            &[obligation::RECORD, obligation::RECORD_INPUT][..],
        ),
        ("recording_input = true\n", &old[..], &[obligation::RECORD][..]),
        (
            "recording = \"required\"\nrecording_input = true\n",
            &able[..],
            &[obligation::RECORD_REQUIRED, obligation::RECORD_INPUT][..],
        ),
    ] {
        let (site, pump) = standard(settings).await;
        let device = site.capable_line(&pump, &[], can).await;
        let client = site.root().await;
        let (_, (grant, _far)) = granted(client.opens("pump"), device.takes()).await;
        assert_eq!(grant.obligations.clone().unwrap_or_default(), wanted, "{settings}");
    }
    let (site, pump) = standard("recording = \"required\"\nrecording_input = true\n").await;
    let _device = site.capable_line(&pump, &[], &old).await;
    let refused = refusal(site.root().await.opens("pump").await);
    assert_eq!(refused.code(), Code::NotAllowed);
    assert!(refused.to_string().contains("with what is typed"), "{refused}");
}

/// What comes in one go is written in one go, and each is answered in its place.
#[tokio::test(flavor = "multi_thread")]
async fn segments_that_come_together_are_answered_one_by_one_in_their_order() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let one = opened(&site, &device).await;
    let two = opened(&site, &device).await;
    let (first, _) = recorded(pump.1.key(), &pump, one.id, 12);
    let (second, _) = recorded(pump.1.key(), &pump, two.id, 12);
    let mut way = Way::open(&device).await;
    let mixed = first.iter().zip(&second).flat_map(|(first, second)| [first, second]);
    for signed in mixed.clone() {
        let upload = Upload { segment: Some(signed.clone().into()) };
        framed::write(&mut way.send, &upload).await.unwrap();
    }
    let nonsense = Upload { segment: Some(vec![1].into()) };
    framed::write(&mut way.send, &nonsense).await.unwrap();
    for at in 0..mixed.count() {
        let answer = soon("an answer", way.answers.next::<Uploaded>()).await.unwrap().unwrap();
        let session = if at % 2 == 0 { one.id } else { two.id };
        assert_eq!(
            (answer.session, answer.number),
            (Some(session), Some(at as u64 / 2)),
            "{answer:?}"
        );
    }
    let answer = soon("an answer", way.answers.next::<Uploaded>()).await.unwrap().unwrap();
    assert_eq!(answer.refused.unwrap().code(), Code::BadRequest);
}

/// A field of this process's, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Each of a device's sessions brings a segment every three seconds; how long each was not answered.
async fn brings_all(device: Device, sessions: Vec<Vec<Vec<u8>>>) -> Vec<Duration> {
    let Way { mut send, mut answers } = Way::open(&device).await;
    let (count, rounds) = (sessions.len(), sessions[0].len());
    let (went, mut going) = tokio::sync::mpsc::unbounded_channel();
    let bringing = async {
        let every = Duration::from_secs(3) / u32::try_from(count).unwrap();
        let mut tick = tokio::time::interval(every);
        for round in 0..rounds {
            for segments in &sessions {
                tick.tick().await;
                let upload = Upload { segment: Some(segments[round].clone().into()) };
                went.send(Instant::now()).unwrap();
                framed::write(&mut send, &upload).await.unwrap();
            }
        }
    };
    let hearing = async {
        let mut took = Vec::new();
        while took.len() < count * rounds {
            let answer = answers.next::<Uploaded>().await.unwrap().unwrap();
            let round = took.len() / count;
            assert_eq!(answer.number, Some(round as u64), "{answer:?}");
            took.push(going.recv().await.unwrap().elapsed());
        }
        took
    };
    tokio::join!(bringing, hearing).1
}

/// `cargo test --release -p belay-relay --test all -- two_thousand --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute; its figures mean something in a release build alone"]
async fn two_thousand_sessions_recorded_at_once_lose_nothing() {
    const DEVICES: usize = 40;
    const SESSIONS: usize = 50;
    const ROUNDS: u64 = 10;
    let settings = "sessions_per_device = 64\nsessions_per_user = 10000\n";
    let site = Site::start(settings).await;
    let mut all = Vec::new();
    for n in 0..DEVICES {
        let name = format!("pump-{n}");
        let pump = site.add_device(&name).await;
        let device = site.recording_line(&pump, &[]).await;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let client = site.root().await;
            let ((opened, _near), _far) = granted(client.opens(&name), device.takes()).await;
            sessions.push(recorded(pump.1.key(), &pump, opened.session, ROUNDS).0);
        }
        all.push((device, sessions));
    }
    let (memory, files, begun) = (resident(), open_files(), Instant::now());
    let mut bringing = tokio::task::JoinSet::new();
    for (device, sessions) in all {
        bringing.spawn(brings_all(device, sessions));
    }
    let (mut most, mut took) = ((0, 0), Vec::new());
    while !bringing.is_empty() {
        tokio::select! {
            Some(done) = bringing.join_next() => took.extend(done.unwrap()),
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                most = (most.0.max(resident()), most.1.max(open_files()));
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    let (rate, sessions) = (took.len() as f64 / seconds, DEVICES * SESSIONS);
    println!(
        "{sessions} sessions, {} segments acknowledged in order, {rate:.0} a second",
        took.len()
    );
    println!(
        "answered after {:.1} ms (p50), {:.1} ms (p99), {:.1} ms at most",
        at(50),
        at(99),
        at(100)
    );
    println!("memory {memory} KiB before, {} KiB at most, clients and devices included", most.0);
    println!("files open {files} before, {} at most", most.1);
    assert_eq!(took.len(), sessions * ROUNDS as usize);
    let standing = Recordings::open(site.data()).unwrap().list().unwrap();
    assert!(standing.iter().all(|one| one.end == Some(End::Whole)), "one is not whole");
}
