//! What goes, what stays, and what is left of what went: tombstones, holds, and a relay that is
//! killed between a tombstone and its file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use belay_proto::api::{Hold, RecordingDeleted};
use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;
use belay_relay::recordings::Recordings;
use belay_relay::retention::{Keeper, Swept};
use belay_relay::store::Decision;
use belay_tunnel::clock;
use serde_json::{Value, json};

use crate::lines::{Device, Site};
use crate::recordings::{Way, recorded};
use crate::sessions::{Enrolled, Open1, opened, standard};

const DAYS: u32 = 30;

fn later(days: u64) -> UnixTime {
    clock::now().plus(Duration::from_secs(days * 24 * 3600 + 60))
}

/// A session of `pump` that is over, its recording of so many segments with it; the head.
async fn over(site: &Site, device: &Device, pump: &Enrolled, count: u64) -> (SessionId, String) {
    let Open1 { id, .. } = opened(site, device).await;
    let (segments, head) = recorded(pump.1.key(), pump, id, count);
    let mut way = Way::open(device).await;
    for signed in &segments {
        assert_eq!(way.bring(signed).await.refused, None);
    }
    device.says_ended(id, "exit");
    site.recorded(id, "session-closed").await;
    (id, head.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn of_kind(site: &Site, kind: &str) -> Vec<Decision> {
    let all = site.store.decisions(0).await.unwrap();
    all.into_iter().filter(|decision| decision.kind == kind).collect()
}

async fn refused(site: &Site, path: &str, body: Value) -> (u16, String) {
    let answer = site.administer("POST", path, Some(&body)).await;
    let said: Value = answer.json();
    (answer.status, said["cause"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_when_its_time_is_over_and_its_tombstone_says_what_it_was() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let (gone, head) = over(&site, &device, &pump, 3).await;
    let (held, _) = over(&site, &device, &pump, 2).await;
    let open = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, open.id, 1);
    Way::open(&device).await.bring(&segments[0]).await;
    let hold = json!({"session": held, "reason": "case 4711"});
    let hold: Hold = site.administer("POST", "/v1/holds", Some(&hold)).await.json();

    let recordings = Recordings::open(site.data()).unwrap();
    let bytes = recordings.standing(gone).unwrap().unwrap().bytes;
    let keeper = |days| Keeper::new(site.store.clone(), recordings.clone(), days);
    assert_eq!(keeper(0).sweep(later(9999)).await, Swept::default(), "0 is for ever");
    assert_eq!(keeper(DAYS).sweep(later(29)).await, Swept::default(), "not yet");
    let swept = keeper(DAYS).sweep(later(30)).await;
    assert_eq!(swept, Swept { deleted: 1, held: 1, failed: 0 });
    assert_eq!(recordings.standing(gone).unwrap(), None);
    assert!(recordings.standing(held).unwrap().is_some(), "it is held");
    assert!(recordings.standing(open.id).unwrap().is_some(), "its session is open");

    let stones = of_kind(&site, "recording-deleted").await;
    assert_eq!(stones.len(), 1);
    assert_eq!((stones[0].session, stones[0].device), (Some(gone), Some(pump.0)));
    assert_eq!(stones[0].user, None, "nobody did: the rule did");
    let detail = format!(
        "last segment 2, SHA-256 {head}, {bytes} bytes, whole; \
         by the rule recordings_keep_days = 30"
    );
    assert_eq!(stones[0].detail.as_deref(), Some(detail.as_str()));
    let answer = site.administer("GET", &format!("/v1/recordings/{gone}/0"), None::<&()>).await;
    assert_eq!(answer.status, 410, "{answer:?}");
    assert!(answer.body.contains("by the rule recordings_keep_days = 30"), "{}", answer.body);
    assert!(answer.body.contains(&head), "{}", answer.body);

    let release = format!("/v1/holds/{}/release", hold.id);
    let why = json!({"reason": "closed"});
    assert_eq!(site.administer("POST", &release, Some(&why)).await.status, 200);
    let swept = keeper(DAYS).sweep(later(30)).await;
    assert_eq!(swept, Swept { deleted: 1, held: 0, failed: 0 });
    assert_eq!(keeper(DAYS).sweep(later(30)).await, Swept::default());
    assert_eq!(crate::audit::review(&site.store, &[]).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_between_tombstone_and_file_finishes_and_writes_no_second_one() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let (id, _) = over(&site, &device, &pump, 2).await;
    let recordings = Recordings::open(site.data()).unwrap();
    // Killed here: the tombstone is on the disk, and so is the file.
    let remains = recordings.remains(id).unwrap().unwrap();
    site.store.bury(remains, "by the rule x".to_owned(), None).await.unwrap();
    assert!(recordings.standing(id).unwrap().is_some());

    let next = Recordings::open(site.data()).unwrap();
    let keeper = Keeper::new(site.store.clone(), next.clone(), DAYS);
    keeper.finish().await;
    assert_eq!(next.standing(id).unwrap(), None);
    assert_eq!(site.store.unfinished_deletions().await.unwrap(), []);
    // And killed behind the file's end: nothing is left to do.
    keeper.finish().await;
    assert_eq!(keeper.sweep(later(31)).await, Swept::default());
    assert_eq!(of_kind(&site, "recording-deleted").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_deletes_before_the_time_and_never_what_is_held() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let (id, _) = over(&site, &device, &pump, 2).await;
    let delete = format!("/v1/recordings/{id}/delete");
    for hold in [
        json!({"session": id, "reason": "case 1"}),
        json!({"device": "pump", "reason": "case 2"}),
        json!({"user": "root", "reason": "case 3"}),
    ] {
        let placed: Hold = site.administer("POST", "/v1/holds", Some(&hold)).await.json();
        let (status, cause) = refused(&site, &delete, json!({"reason": "request 88"})).await;
        assert_eq!(status, 403);
        let reason = hold["reason"].as_str().unwrap();
        assert!(cause.contains(&format!("legal hold {}: {reason}", placed.id)), "{cause}");
        let path = format!("/v1/holds/{}/release", placed.id);
        let (status, _) = refused(&site, &path, json!({"reason": " "})).await;
        assert_eq!(status, 400, "a reason is needed");
        let why = json!({"reason": "closed"});
        assert_eq!(site.administer("POST", &path, Some(&why)).await.status, 200);
        let (_, cause) = refused(&site, &path, why).await;
        assert!(cause.contains("released already"), "{cause}");
    }
    let open = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, open.id, 1);
    Way::open(&device).await.bring(&segments[0]).await;
    let of_open = format!("/v1/recordings/{}/delete", open.id);
    let (status, cause) = refused(&site, &of_open, json!({"reason": "x"})).await;
    assert!(status == 403 && cause.contains("still open"), "{cause}");

    let done = site.administer("POST", &delete, Some(&json!({"reason": "request 88"}))).await;
    let done: RecordingDeleted = done.json();
    assert_eq!((done.session, done.last_segment, done.state.as_str()), (id, Some(1), "whole"));
    let stone = of_kind(&site, "recording-deleted").await.remove(0);
    assert_eq!(stone.user, Some(site.admin));
    assert!(stone.detail.unwrap().ends_with("before its time, by root: request 88"));
    let (status, cause) = refused(&site, &delete, json!({"reason": "again"})).await;
    assert!(status == 410 && cause.contains("by root: request 88"), "{cause}");
    assert_eq!(of_kind(&site, "recording-deleted").await.len(), 1);
    assert_eq!(of_kind(&site, "hold-placed").await.len(), 3);
    assert_eq!(of_kind(&site, "hold-released").await.len(), 3);
    let listed: Vec<Hold> = site.administer("GET", "/v1/holds", None::<&()>).await.json();
    assert!(listed.len() == 3 && listed.iter().all(|hold| hold.released.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_brings_of_a_deleted_recording_is_taken_from_it_and_not_kept() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let Open1 { id, .. } = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, id, 4);
    let mut way = Way::open(&device).await;
    for signed in &segments[..2] {
        assert_eq!(way.bring(signed).await.refused, None);
    }
    device.says_ended(id, "exit");
    site.recorded(id, "session-closed").await;
    let delete = format!("/v1/recordings/{id}/delete");
    let done = site.administer("POST", &delete, Some(&json!({"reason": "request 88"}))).await;
    assert_eq!(done.status, 200, "{done:?}");
    // On the stream that was open, and on another.
    let answer = way.bring(&segments[2]).await;
    assert_eq!((answer.number, answer.refused), (Some(2), None));
    let answer = Way::open(&device).await.bring(&segments[3]).await;
    assert_eq!((answer.number, answer.refused), (Some(3), None));
    let recordings = Recordings::open(site.data()).unwrap();
    assert_eq!(recordings.standing(id).unwrap(), None);
    let late = of_kind(&site, "recording-late").await;
    assert_eq!(late.len(), 1, "it is said once");
    assert!(late[0].detail.as_ref().unwrap().starts_with("from segment 2 on, not kept"));
}
