//! A recording that is watched as it grows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use belay_proto::api::Session;
use belay_proto::ids::UserId;
use belay_proto::policy::Role;
use belay_proto::recording::file::{LENGTH, split};
use belay_relay::api::WATCH_WAIT;

use crate::lines::Site;
use crate::recordings::{Way, recorded};
use crate::sessions::{Open1, opened, standard};
use crate::support::Answer;

async fn watch(site: &Site, who: (UserId, &str), session: &str, from: usize) -> Answer {
    site.ask(who, "GET", &format!("/v1/recordings/{session}/{from}/live"), None).await
}

async fn watched_by(site: &Site) -> Vec<String> {
    let open: Vec<Session> =
        site.ask((site.admin, "root"), "GET", "/v1/sessions", None).await.json();
    open[0].watched_by.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_has_each_segment_as_soon_as_the_relay_has_it_and_is_on_record_before() {
    let (mut site, pump) = standard("drain_seconds = 60\n").await;
    let ida = site.add_person("ida", vec![Role::Auditor]).await;
    let ian = site.add_person("ian", vec![Role::Auditor]).await;
    let eve = site.add_person("eve", vec![crate::routes::engineer_role()]).await;
    let device = site.recording_line(&pump, &[]).await;
    let Open1 { id, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, id, 3);
    let (named, mut way) = (id.to_string(), Way::open(&device).await);
    assert!(watched_by(&site).await.is_empty());

    let refused = watch(&site, (eve, "eve"), &named, 0).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "not-allowed"));
    let none = watch(&site, (ida, "ida"), &uuid::Uuid::now_v7().to_string(), 0).await;
    assert_eq!((none.status, none.code().as_str()), (400, "bad-request"));

    // Nothing is there yet: the answer waits for it.
    let (first, ()) = tokio::join!(watch(&site, (ida, "ida"), &named, 0), async {
        site.recorded(id, "evidence-read").await;
        assert_eq!(watched_by(&site).await, ["ida"]);
        way.bring(&segments[0]).await;
    });
    assert_eq!(first.status, 200, "{first:?}");
    let file = std::fs::read(file(&site, &named)).unwrap();
    let from = file.len();
    let (_, rest) = split(&file).unwrap();
    assert_eq!(split(rest).unwrap().0, segments[0]);
    // What is there is given at once, what comes as soon as it is there.
    let began = Instant::now();
    assert_eq!(watch(&site, (ida, "ida"), &named, 0).await.status, 200);
    let (next, ()) = tokio::join!(watch(&site, (ida, "ida"), &named, from), async {
        way.bring(&segments[1]).await;
    });
    assert_eq!(next.status, 200);
    assert!(began.elapsed() < WATCH_WAIT / 2, "it was not woken");
    assert_eq!(
        std::fs::read(self::file(&site, &named)).unwrap().len(),
        from + segments[1].len() + 2 * LENGTH
    );
    let told = site.store.decisions(0).await.unwrap();
    let read: Vec<_> = told.iter().filter(|told| told.kind == "evidence-read").collect();
    assert_eq!(read.len(), 1, "one covers ten minutes: {read:?}");
    assert_eq!((read[0].user, read[0].session), (Some(ida), Some(id)));

    // A relay that stops waits for nobody who watches.
    let from = from + segments[1].len() + 2 * LENGTH;
    let asked = format!("/v1/recordings/{named}/{from}/live");
    let waiting = tokio::spawn(site.asking((ian, "ian"), "GET", asked, None));
    while watched_by(&site).await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stopping = Instant::now();
    site.stop_relay().await;
    assert!(stopping.elapsed() < WATCH_WAIT / 2, "it was waited for");
    assert_eq!(waiting.await.unwrap().body, "", "there is nothing more");
}

fn file(site: &Site, session: &str) -> std::path::PathBuf {
    let recordings = site.data().join("recordings");
    let days = std::fs::read_dir(recordings).unwrap();
    let named = format!("{session}.belay");
    days.map(|day| day.unwrap().path().join(&named)).find(|path| path.exists()).unwrap()
}
