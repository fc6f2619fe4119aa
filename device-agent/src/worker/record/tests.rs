#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::Segment;
use belay_tunnel::recording::{Sealer, unpack};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::scribe::Stopped;
use super::*;
use crate::worker::event::Recorded;
use crate::worker::gate::Events;

/// A recorder, what it tells, and the supervisor's side of its permits.
struct Rig {
    recorder: Recorder,
    told: mpsc::Receiver<WorkerEvent>,
    permits: Permits,
    scribe: JoinHandle<Result<(), Stopped>>,
}

fn rig(policy: Policy) -> Rig {
    sealing_rig(policy, None)
}

fn sealing_rig(policy: Policy, sealer: Option<Sealer>) -> Rig {
    let recorder = Recorder::new(policy);
    let permits = Permits::new();
    let scribe = Scribe::new(&recorder, permits.clone(), sealer);
    let (sender, told) = mpsc::channel(1024);
    let events = Events::new(sender, recorder.clone());
    let scribe = tokio::spawn(scribe.write(events));
    Rig { recorder, told, permits, scribe }
}

impl Rig {
    async fn next(&mut self) -> Recorded {
        let Some(WorkerEvent::Recorded(recorded)) = self.told.recv().await else {
            panic!("no segment")
        };
        self.permits.heard();
        recorded
    }

    /// Ends the recording; all segments not looked at.
    async fn end(mut self) -> Vec<Recorded> {
        self.recorder.end("enough");
        let mut all = Vec::new();
        loop {
            let recorded = self.next().await;
            all.push(recorded);
            if all.last().unwrap().end == Some(true) {
                break;
            }
        }
        self.scribe.await.unwrap().unwrap();
        all
    }
}

fn text(recorded: &Recorded) -> String {
    unpack(&segment(recorded)).unwrap()
}

/// As the supervisor makes it.
fn segment(recorded: &Recorded) -> Segment {
    Segment {
        version: belay_proto::recording::VERSION,
        session: SessionId::from_uuid(uuid::Uuid::from_u128(1)),
        device: DeviceId::from_uuid(uuid::Uuid::from_u128(2)),
        number: recorded.number,
        before: vec![0; 32].into(),
        track: recorded.track,
        first_ms: recorded.first_ms,
        last_ms: recorded.last_ms,
        compressed: recorded.compressed,
        sealed: recorded.sealed,
        end: None,
        payload: recorded.payload.clone(),
        key: recorded.key.clone(),
    }
}

/// A track's header and events.
fn lines(all: &[Recorded], track: u32) -> Vec<Value> {
    let of = all.iter().filter(|recorded| recorded.track == track);
    let text: String = of.map(text).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn shown(all: &[Recorded], track: u32, code: &str) -> String {
    let lines = lines(all, track);
    let events = lines.iter().skip(1).filter(|event| event[1] == code);
    events.map(|event| event[2].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_a_terminal_shows_is_there_in_the_end() {
    let rig = rig(Policy::BestEffort);
    let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
    let track = rig.recorder.terminal(3, ("xterm", size), None);
    let text = "$ é世🦀\r\n".as_bytes();
    for byte in text {
        track.output(&[*byte]);
    }
    track.resized(size);
    track.resized(Winsize { ws_col: 100, ..size });
    track.ended(&Ended::Exit(3));
    drop(track);
    let all = rig.end().await;
    let header = &lines(&all, 1)[0];
    assert_eq!((&header["version"], &header["term"]["cols"]), (&3.into(), &80.into()));
    assert_eq!(header["term"]["type"], "xterm");
    assert_eq!(shown(&all, 1, "o").as_bytes(), text);
    assert_eq!(shown(&all, 1, "r"), "100x24");
    assert_eq!(shown(&all, 1, "x"), "3");
    assert!(shown(&all, SESSION_TRACK, "b").contains(r#"{"what":"ended","reason":"enough"}"#));
    let numbers: Vec<u64> = all.iter().map(|recorded| recorded.number).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_segment_is_closed_within_seconds_of_its_first_event() {
    let mut rig = rig(Policy::BestEffort);
    let track = rig.recorder.command(1, Some("make"));
    track.output(b"one\n");
    let begun = Instant::now();
    while lines(&[rig.next().await], 1).len() < 2 {}
    assert!(begun.elapsed() <= Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_flood_is_cut_into_segments_that_fit_and_nothing_is_missing() {
    let mut rig = rig(Policy::Required);
    let track = rig.recorder.command(1, None);
    // What takes six times its size.
    let flood = "\u{1b}\u{7}é".repeat(200_000);
    let writer = {
        let flood = flood.clone();
        tokio::spawn(async move {
            for piece in flood.as_bytes().chunks(5_001) {
                track.room().await;
                track.output(piece);
            }
        })
    };
    let mut all = Vec::new();
    while !writer.is_finished() {
        tokio::select! {
            recorded = rig.next() => all.push(recorded),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    all.extend(rig.end().await);
    assert_eq!(shown(&all, 1, "o"), flood);
    let most = belay_proto::recording::PAYLOAD_MAX;
    assert!(all.iter().all(|recorded| recorded.payload.len() <= most));
    let longest = all.iter().map(|recorded| text(recorded).len()).max().unwrap();
    assert!(longest > 200 * 1024, "segments of {longest} bytes of text at most");
}

#[tokio::test]
async fn a_program_waits_for_a_required_recording_and_not_for_long_for_another() {
    let filled = |policy| async move {
        let rig = rig(policy);
        let track = rig.recorder.command(1, None);
        // Nobody hears, so segments stop at the permits.
        for _ in 0..8_000 {
            if timeout(2 * HOLD, track.room()).await.is_err() {
                return (rig, track, true);
            }
            track.output(&[b'x'; 1024]);
        }
        (rig, track, false)
    };
    let (_rig, _track, waits) = filled(Policy::Required).await;
    assert!(waits);
    let (rig, track, waits) = filled(Policy::BestEffort).await;
    assert!(!waits);
    let pending = track.room.as_ref().unwrap().lock().pending;
    assert!(pending <= 2 * RECORD_AHEAD + 2048, "{pending}");
    drop(track);
    let all = rig.end().await;
    assert!(shown(&all, 1, "b").contains(r#"{"what":"lost","bytes":"#), "what was lost is told");
}

#[tokio::test]
async fn a_stream_that_is_no_text_is_known_by_its_digest() {
    let rig = rig(Policy::BestEffort);
    let track = rig.recorder.command(1, Some("tar c"));
    track.output(b"text first\n");
    track.error(b"tar: removing\n");
    track.output(b"\0\x01\x02");
    track.output(b"more");
    track.input(b"abc");
    track.ended(&Ended::Exit(0));
    drop(track);
    let all = rig.end().await;
    assert_eq!(shown(&all, 1, "o"), "text first\n");
    assert_eq!(shown(&all, 1, "e"), "tar: removing\n");
    let facts = shown(&all, 1, "b");
    assert!(facts.contains(r#"{"what":"binary","stream":"stdout","bytes":7,"sha256":"#), "{facts}");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(facts.contains(&format!(r#""stream":"stdin","bytes":3,"sha256":"{abc}""#)), "{facts}");
}

#[tokio::test]
async fn without_a_recording_nothing_is_told_and_nothing_waited_for() {
    let mut rig = rig(Policy::Off);
    let track = rig.recorder.command(1, None);
    track.output(b"x");
    track.room().await;
    rig.recorder.end("over");
    (&mut rig.scribe).await.unwrap().unwrap();
    assert!(rig.told.try_recv().is_err());
}

#[tokio::test]
async fn what_is_sealed_leaves_the_worker_as_nothing_but_noise() {
    let auditor = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let recipients = belay_tunnel::recording::recipients(&[auditor]).unwrap();
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(1));
    let rig = sealing_rig(Policy::Required, Some(Sealer::new(session, &recipients).unwrap()));
    let track = rig.recorder.command(1, Some("cat secret"));
    track.output("the secret is out\n".repeat(20_000).as_bytes());
    drop(track);
    let all = rig.end().await;
    assert!(all.len() > 1);
    for recorded in &all {
        assert_eq!((recorded.sealed, recorded.compressed), (Some(true), Some(true)));
        assert!(unpack(&segment(recorded)).is_err());
        assert!(!recorded.payload.windows(6).any(|window| window == b"secret"));
        let is_first = recorded.number == 0;
        assert_eq!(recorded.key.is_some(), is_first, "{recorded:?}");
    }
    assert!(all[0].key.as_ref().unwrap().starts_with(b"age-encryption.org/v1\n"));
}

#[tokio::test]
async fn a_recording_that_cannot_go_on_says_so_and_has_no_end() {
    let recorder = Recorder::new(Policy::Required);
    let scribe = Scribe::new(&recorder, Permits::new(), None).breaking();
    let (sender, mut told) = mpsc::channel(1024);
    let events = Events::new(sender, recorder.clone());
    let scribe = tokio::spawn(scribe.write(events));
    let track = recorder.command(1, None);
    track.output(&[b'x'; 64 * 1024]);
    let stopped = scribe.await.unwrap().unwrap_err();
    assert!(matches!(stopped, Stopped::NotMade(_)), "{stopped}");
    drop((track, recorder));
    while let Some(event) = told.recv().await {
        let WorkerEvent::Recorded(recorded) = event else { continue };
        assert!(recorded.end.is_none() && !text(&recorded).contains("xxx"), "{recorded:?}");
    }
}
