//! Evidence of one session as the relay gives it, examined as an auditor does; and searching.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use belay_proto::api::{Evidence, LogSession, SealedPage, SearchAnswer, SessionFacts};
use belay_proto::audit::{Checkpoint, Entry, VerifierKey, leaf_hash, seq_of};
use belay_proto::evidence::{
    Anchors, Bundle, Deleted, Exchanged, Finding, Issued, Keys, Manifest, Remark, Report, examine,
    from_base64, sha256,
};
use belay_proto::grant::VerifySignature;
use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::cast::{Code, Header, event};
use belay_proto::recording::{End, Segment, VERSION, digest};
use belay_proto::refusal::Code as Refusal;
use belay_proto::time::UnixTime;
use belay_relay::recordings::Recordings;
use belay_relay::store::{Event, EventKind};
use belay_tunnel::pki::{DeviceKey, GrantVerifier, NoteVerifier, TlsKey};
use rustls_pki_types::CertificateDer;
use serde_json::json;

use crate::lines::{Device, Site};
use crate::recordings::Way;
use crate::sessions::{Enrolled, Open1, opened, standard};

struct RealKeys;

impl Keys for RealKeys {
    type Device = DeviceKey;
    fn log(&self, key: &VerifierKey) -> impl VerifySignature {
        NoteVerifier::from(key)
    }
    fn grant(&self, key: &[u8; 32]) -> impl VerifySignature {
        GrantVerifier::new([key]).unwrap()
    }
    fn device(&self, certificate: &[u8], ca: &[u8]) -> Result<(DeviceId, DeviceKey), String> {
        let (certificate, ca) = (certificate.to_vec().into(), CertificateDer::from(ca.to_vec()));
        let key = DeviceKey::issued(certificate, &ca).map_err(|error| error.to_string())?;
        Ok((key.device(), key))
    }
}

/// A terminal's recording: a segment for each text, the last of which ends it.
fn terminal(key: &TlsKey, enrolled: &Enrolled, session: SessionId, texts: &[&str]) -> Vec<Vec<u8>> {
    recording(key, enrolled, session, texts, None)
}

/// The same, said to be sealed.
fn recording(
    key: &TlsKey,
    (device, _): &Enrolled,
    session: SessionId,
    texts: &[&str],
    sealed: Option<bool>,
) -> Vec<Vec<u8>> {
    let mut before = [0; 32];
    let mut all = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let mut lines = String::new();
        if number == 0 {
            let begun = UnixTime(1_800_000_000);
            let (columns, rows, term, command) = (80, 24, None, None);
            let (title, track, kind) = ("shell", 1, "terminal");
            Header { columns, rows, term, begun, command, title, track, kind }.write(&mut lines);
        }
        event(Duration::from_secs(10), Code::Output, text, &mut lines);
        let segment = Segment {
            version: VERSION,
            session,
            device: *device,
            number: number as u64,
            before: before.to_vec().into(),
            track: 1,
            first_ms: 1_800_000_000_000,
            last_ms: 1_800_000_000_000,
            compressed: None,
            sealed,
            key: None,
            end: (number + 1 == texts.len()).then_some(End::Whole),
            payload: lines.into_bytes().into(),
        };
        let (encoded, signed) = key.sign_segment(&segment).unwrap();
        before = digest(&encoded);
        all.push(signed);
    }
    all
}

/// A session that was recorded, as far as its first `kept` segments.
async fn recorded(kept: usize) -> (Site, SessionId) {
    let (site, id, _) = with_device(kept).await;
    (site, id)
}

/// The same, and its device.
async fn with_device(kept: usize) -> (Site, SessionId, Device) {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let Open1 { id, client: _client, near, far } = opened(&site, &device).await;
    let texts = ["$ sudo rm -rf /var/cache\r\n", "gone\r\n$ ", "exit\r\n"];
    let mut way = Way::open(&device).await;
    for signed in terminal(pump.1.key(), &pump, id, &texts).iter().take(kept) {
        assert_eq!(way.bring(signed).await.refused, None);
    }
    drop((near, far));
    (site, id, device)
}

/// One that is over.
async fn over(kept: usize) -> (Site, SessionId) {
    let (site, id, device) = with_device(kept).await;
    device.says_ended(id, "exit");
    site.recorded(id, "session-closed").await;
    (site, id)
}

async fn entries(site: &Site, session: SessionId, size: u64) -> LogSession {
    let ask = json!({"session": session, "after": 0, "size": size});
    site.administer("POST", "/v1/audit/session", Some(&ask)).await.json()
}

/// A bundle as a client puts it together.
async fn bundle(site: &Site, session: SessionId) -> (Bundle, VerifierKey) {
    let said: Evidence =
        site.administer("POST", "/v1/evidence", Some(&json!({"session": session}))).await.json();
    let key: VerifierKey = said.vkey.parse().unwrap();
    let manifest = Manifest::open(&said.manifest, &key, &NoteVerifier::from(&key)).unwrap();
    let page = entries(site, session, manifest.size).await;
    assert_eq!(page.upto, manifest.size);
    let facts: SessionFacts = serde_json::from_str(&said.facts).unwrap();
    assert_eq!((facts.session, facts.device_name.unwrap().as_str()), (session, "pump"));
    let recordings = Recordings::open(site.data()).unwrap();
    let mut recording = recordings.page(session, 0).unwrap().unwrap_or_default();
    let listed = manifest.recording.map_or(0, |recorded| recorded.bytes);
    recording.truncate(usize::try_from(listed).unwrap());
    let listed = |entry: &str| (seq_of(entry).unwrap(), leaf_hash(entry.as_bytes()));
    let bundle = Bundle {
        vkey: said.vkey,
        manifest: said.manifest,
        checkpoint: said.checkpoint,
        before: vec![],
        facts: said.facts,
        ca: from_base64(&said.ca).unwrap(),
        grants: said.grants.iter().map(|grant| from_base64(grant).unwrap()).collect(),
        listed: page.entries.iter().map(|one| listed(&one.entry)).collect(),
        entries: page.entries,
        recording,
    };
    (bundle, key)
}

fn judged(site: &Site, bundle: &Bundle, key: &VerifierKey) -> Report {
    let ca = Some(sha256(site.authority.ca()));
    let anchors = Anchors { key: Some(key.clone()), ca, elsewhere: vec![] };
    examine(bundle, &anchors, &RealKeys, |line| serde_json::from_str(line).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_gives_of_a_session_is_proven_and_names_its_grant() {
    let (site, id) = recorded(3).await;
    let (bundle, key) = bundle(&site, id).await;
    let report = judged(&site, &bundle, &key);
    assert_eq!(report.findings, []);
    assert_eq!(report.recording.unwrap().state, "whole");
    let of = |kind: &str| report.entries.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!((of("session-opened"), of("grant-issued"), of("recording-ended")), (1, 1, 1));
    assert_eq!(of("evidence-read"), 1, "that this was asked for is in it");
    let issued = report.entries.iter().position(|entry| entry.kind == "grant-issued").unwrap();
    let opened = report.entries.iter().position(|entry| entry.kind == "session-opened").unwrap();
    assert!(opened < issued);
    let named = Issued::of(&report.entries[issued]).unwrap();
    assert_eq!(named.key, site.authority.grant_keys()[0]);
    assert_eq!(named.digest, sha256(&bundle.grants[0]).0);

    // Another session's is another's; and the same with something of it exchanged is found out.
    let (other_site, other) = recorded(3).await;
    let (foreign, foreign_key) = self::bundle(&other_site, other).await;
    assert!(!judged(&site, &foreign, &foreign_key).findings.is_empty(), "another CA");
    let mut mixed = bundle.clone();
    mixed.recording = foreign.recording;
    let findings = judged(&site, &mixed, &key).findings;
    assert!(findings.iter().any(|f| f.to_string().contains("of session")), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_cut_on_the_relays_disk_is_seen_against_its_log() {
    let (site, id) = recorded(3).await;
    let path = file_of(&site, id);
    let whole = std::fs::read(&path).unwrap();
    let mut rest = whole.as_slice();
    for _ in 0..3 {
        rest = belay_proto::recording::file::split(rest).unwrap().1;
    }
    std::fs::write(&path, &whole[..whole.len() - rest.len()]).unwrap();
    let (cut, key) = bundle(&site, id).await;
    let report = judged(&site, &cut, &key);
    let says = "the recording was cut: by the audit log its last segment is 2, and it goes to 1";
    assert_eq!(report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [says]);
    assert!(report.remarks.contains(&Remark::NoEnd));
    // What is not signed is not vouched for.
    let mut changed = whole.clone();
    let at = changed.len() - 100;
    changed[at] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let answer = site.administer("POST", "/v1/evidence", Some(&json!({"session": id}))).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.body.contains("not what its device signed"), "{answer:?}");
    // None at all: the log knows that there was one, and of no deletion.
    std::fs::remove_file(&path).unwrap();
    let (none, key) = bundle(&site, id).await;
    let report = judged(&site, &none, &key);
    assert_eq!(report.findings, [Finding::RecordingMissing(2)]);
}

/// Where the recording of the only day is.
fn file_of(site: &Site, id: SessionId) -> std::path::PathBuf {
    let day = std::fs::read_dir(site.data().join("recordings")).unwrap();
    let day = day.map(|day| day.unwrap().path()).find(|day| day.is_dir()).unwrap();
    day.join(format!("{id}.belay"))
}

async fn delete(site: &Site, id: SessionId) {
    let (path, why) = (format!("/v1/recordings/{id}/delete"), json!({"reason": "request 88"}));
    let done = site.administer("POST", &path, Some(&why)).await;
    assert_eq!(done.status, 200, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_deleted_is_proven_to_be_and_one_cut_before_is_found_out() {
    let (site, id) = over(3).await;
    delete(&site, id).await;
    let (gone, key) = bundle(&site, id).await;
    let report = judged(&site, &gone, &key);
    assert_eq!((report.findings, report.remarks), (vec![], vec![]));
    let Deleted { by, stone, .. } = report.deleted.unwrap();
    assert_eq!(
        (by.as_deref(), stone.why.as_str()),
        (Some("root"), "before its time, by root: request 88")
    );
    assert_eq!((stone.last.unwrap().0, stone.state.as_str()), (2, "whole"));
    assert_eq!((gone.grants.len(), gone.recording.len()), (1, 0));

    let (site, id) = over(3).await;
    let path = file_of(&site, id);
    let whole = std::fs::read(&path).unwrap();
    let mut rest = whole.as_slice();
    for _ in 0..3 {
        rest = belay_proto::recording::file::split(rest).unwrap().1;
    }
    std::fs::write(&path, &whole[..whole.len() - rest.len()]).unwrap();
    delete(&site, id).await;
    let (cut, key) = bundle(&site, id).await;
    let findings = judged(&site, &cut, &key).findings;
    let why = Exchanged::Cut { logged: 2, found: 1 };
    assert!(
        matches!(&findings[..], [Finding::Buried { why: found, .. }] if *found == why),
        "{findings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_has_lost_by_rule_is_not_taken_for_forged() {
    let (site, id) = over(3).await;
    delete(&site, id).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let now = belay_tunnel::clock::now();
    site.store.record(Event::new(EventKind::LineUp)).await.unwrap();
    assert!(site.store.prune(now, 1, u64::MAX).await.unwrap() > 0);
    let (rest, key) = bundle(&site, id).await;
    let report = judged(&site, &rest, &key);
    assert_eq!(report.findings, []);
    assert!(report.deleted.is_some() && report.remarks.contains(&Remark::NoGrant), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_entries_are_all_there_with_proofs_and_reading_them_is_one_of_them() {
    let (site, id) = recorded(1).await;
    let (size, note) = site.store.checkpoint().await.unwrap().unwrap();
    let key = site.store.log_key().clone();
    let now = Checkpoint::open(&note, &key, &NoteVerifier::from(&key)).unwrap();
    let page = entries(&site, id, size).await;
    let kinds: Vec<String> = page
        .entries
        .iter()
        .map(|one| {
            let entry: Entry = serde_json::from_str(&one.entry).unwrap();
            let leaf = leaf_hash(one.entry.as_bytes());
            let proof = &one.hashes;
            let index = entry.seq - 1;
            assert!(belay_proto::audit::verify_inclusion(leaf, index, size, proof, now.root));
            entry.kind
        })
        .collect();
    assert_eq!(kinds[..3], ["session-opened", "grant-issued", "recording-started"]);
    let read = site.recorded(id, "evidence-read").await;
    assert!(read.last().unwrap().detail.as_ref().unwrap().contains("audit log"));
    let beyond = json!({"session": id, "after": 0, "size": 1_000_000});
    let answer = site.administer("POST", "/v1/audit/session", Some(&beyond)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, Refusal::BadRequest.token()));
    let nobody = json!({"session": "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e"});
    let answer = site.administer("POST", "/v1/evidence", Some(&nobody)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_showed_is_found_by_its_text_and_the_search_is_on_record() {
    let (site, id) = recorded(3).await;
    let ask = |text: &str| json!({"text": text, "limit": 10, "since": null, "device": null, "user": null});
    let mut found: Option<SearchAnswer> = None;
    for _ in 0..200 {
        let answer = site.administer("POST", "/v1/search", Some(&ask("RM -rf"))).await;
        if answer.status == 200 {
            found = Some(answer.json());
            if found.as_ref().is_some_and(|found| !found.hits.is_empty()) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = found.unwrap();
    assert_eq!(found.hits.len(), 1, "{found:?}");
    let hit = &found.hits[0];
    assert_eq!((hit.session, hit.track, hit.offset_ms), (id, 1, 10_000));
    assert_eq!(hit.line, "$ sudo rm -rf /var/cache");
    assert_eq!(
        (hit.device.as_ref().unwrap().as_str(), hit.login.as_deref()),
        ("pump", Some("support"))
    );
    assert!(found.complete && found.searched == 1 && found.sealed == 0);
    let read = site.store.decisions(0).await.unwrap().pop().unwrap();
    assert_eq!(read.kind, "evidence-read");
    assert!(read.detail.unwrap().contains("a search of recordings for \"RM -rf\""));
    for (text, device, limit) in [("", "pump", 10), ("x", "nothing", 10), ("x", "pump", 0)] {
        let mut ask = ask(text);
        ask["device"] = json!(device);
        ask["limit"] = json!(limit);
        let answer = site.administer("POST", "/v1/search", Some(&ask)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{ask}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn which_recordings_are_sealed_is_told_to_auditors_page_by_page_and_on_record() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let Open1 { id, client: _client, near, far } = opened(&site, &device).await;
        let mut way = Way::open(&device).await;
        for signed in recording(pump.1.key(), &pump, id, &["noise"], Some(true)) {
            assert_eq!(way.bring(&signed).await.refused, None);
        }
        drop((near, far));
        ids.push(id);
    }
    let page = async |after: Option<SessionId>, count: u32| {
        let ask = json!({"after": after, "count": count});
        site.administer("POST", "/v1/search/sealed", Some(&ask)).await
    };
    let mut all: Vec<SessionId> = Vec::new();
    for _ in 0..200 {
        let answer = page(None, 1000).await;
        if answer.status == 200 {
            let found: SealedPage = answer.json();
            assert!(!found.more);
            all = found.recordings.iter().map(|one| one.session).collect();
            if all.len() == 3 {
                let one = &found.recordings[0];
                assert_eq!(one.device.as_ref().unwrap().as_str(), "pump");
                assert_eq!((one.device_id, one.login.as_deref()), (Some(pump.0), Some("support")));
                assert!(one.bytes > 0 && one.user.is_some());
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(all, ids, "in the order of their ids");
    let first: SealedPage = page(None, 2).await.json();
    assert_eq!((first.recordings.len(), first.more), (2, true));
    let second: SealedPage = page(Some(first.recordings[1].session), 2).await.json();
    assert_eq!((second.recordings[0].session, second.more), (ids[2], false));
    let read = site.store.decisions(0).await.unwrap().pop().unwrap();
    assert_eq!(read.kind, "evidence-read");
    assert_eq!(read.detail.unwrap(), "the list of sealed recordings");
    for count in [0, 1001] {
        assert_eq!(page(None, count).await.code(), "bad-request");
    }
    let ask = json!({"text": "noise", "limit": 10, "since": null, "device": null, "user": null});
    let found: SearchAnswer = site.administer("POST", "/v1/search", Some(&ask)).await.json();
    assert_eq!((found.hits.len(), found.sealed), (0, 3));
}
