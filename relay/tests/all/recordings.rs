//! Segments as a device brings them: what is kept, what is on record, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::audit::Entry;
use belay_proto::evidence::Ended;
use belay_proto::ids::SessionId;
use belay_proto::recording::{
    End, Opening, Segment, SignedSegment, Upload, Uploaded, VERSION, digest, stream,
};
use belay_proto::refusal::Code;
use belay_proto::wire::frame::decode_payload;
use belay_relay::recordings::Recordings;
use belay_tunnel::carrier::{RecvHalf, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::TlsKey;

use crate::lines::{Device, soon};
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
