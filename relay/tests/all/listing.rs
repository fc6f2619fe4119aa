//! Sessions as they are listed: open ones, and those that were.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::api::{Session, SessionsPage};
use belay_proto::ids::UserId;
use belay_proto::policy::Role;
use serde_json::{Value, json};

use crate::lines::Site;
use crate::sessions::{Open1, granted, opened, standard};
use crate::stream::both_ways;

async fn open(site: &Site, who: (UserId, &str)) -> Vec<Session> {
    site.ask(who, "GET", "/v1/sessions", None).await.json()
}

async fn all(site: &Site, who: (UserId, &str), request: Value) -> SessionsPage {
    site.ask(who, "POST", "/v1/sessions/all", Some(&request.to_string())).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_session_is_listed_as_it_stands_with_what_has_passed_by_now() {
    let (site, pump) = standard("").await;
    let ida = site.add_person("ida", vec![Role::Auditor]).await;
    // One of that device and login would see it, for they may join it (`join`).
    let eve = site.add_person("eve", vec![crate::join::engineer("bergen", "support")]).await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    both_ways(&mut near, &mut far, b"five+").await;
    let listed = open(&site, (site.admin, "root")).await;
    let [one] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((one.id, one.attached, one.device_online), (id, true, Some(true)));
    assert_eq!((one.bytes_up, one.bytes_down), (5, 5), "what passes now counts");
    assert_eq!((one.recording.as_deref(), &one.over), (Some("none"), &None));
    assert_eq!(open(&site, (ida, "ida")).await, listed, "an auditor sees everybody's");
    assert!(open(&site, (eve, "eve")).await.is_empty());
    let path = format!("/v1/sessions/{id}");
    let alone: Session = site.ask((ida, "ida"), "GET", &path, None).await.json();
    assert_eq!(alone, listed[0]);
    let hidden = site.ask((eve, "eve"), "GET", &path, None).await;
    assert_eq!((hidden.status, hidden.code().as_str()), (404, "session-over"));

    client.vanish().await;
    far.breaks().await;
    device.vanish().await;
    site.recorded(id, "session-detached").await;
    let listed = open(&site, (site.admin, "root")).await;
    assert_eq!((listed[0].attached, listed[0].device_online), (false, Some(false)));
    assert_eq!((listed[0].bytes_up, listed[0].bytes_down), (5, 5), "nothing counts twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_were_are_read_by_the_page_and_that_is_on_record() {
    let (site, pump) = standard("").await;
    let fan = site.add_device("fan").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let ida = site.add_person("ida", vec![Role::Auditor]).await;
    let eve = site.add_person("eve", vec![crate::routes::engineer_role()]).await;
    let lines = [site.line(&pump, &[]).await, site.line(&fan, &[]).await];
    let people = [(site.admin, "root"), (olga, "olga")];
    let mut ids = Vec::new();
    for n in 0..5 {
        let client = site.client(people[n % 2].0, people[n % 2].1).await;
        let device = ["pump", "fan"][n / 3];
        let ((taken, mut near), (_, mut far)) =
            granted(client.opens(device), lines[n / 3].takes()).await;
        near.send.finish();
        far.ends().await;
        far.send.finish();
        near.ends().await;
        site.recorded(taken.session, "session-closed").await;
        ids.push(taken.session);
    }
    let newest_first: Vec<_> = ids.iter().rev().copied().collect();
    let auditor = (ida, "ida");
    let page = all(&site, auditor, json!({"count": 2})).await;
    let of = |page: &SessionsPage| page.sessions.iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!((of(&page), page.more), (newest_first[..2].to_vec(), true));
    assert_eq!(page.sessions[0].over.as_ref().unwrap().why, "it ended");
    let page = all(&site, auditor, json!({"count": 3, "before": newest_first[1]})).await;
    assert_eq!((of(&page), page.more), (newest_first[2..].to_vec(), false));

    let opened = page.sessions[0].opened.0;
    let restricted = [
        (json!({"count": 9, "user": "olga"}), vec![ids[3], ids[1]]),
        (json!({"count": 9, "device": "fan"}), vec![ids[4], ids[3]]),
        (json!({"count": 9, "device": fan.0.to_string(), "user": "root"}), vec![ids[4]]),
        (json!({"count": 9, "login": "support"}), newest_first.clone()),
        (json!({"count": 9, "login": "root"}), vec![]),
        (json!({"count": 9, "since": opened - 60}), newest_first.clone()),
        (json!({"count": 9, "since": opened + 600}), vec![]),
        (json!({"count": 9, "user": "nobody-of-that-name"}), vec![]),
        (json!({"count": 9, "device": "no-such-device"}), vec![]),
    ];
    for (request, expected) in restricted {
        assert_eq!(of(&all(&site, auditor, request.clone()).await), expected, "{request}");
    }
    // An engineer has their own, whatever they ask for.
    for request in [json!({"count": 9}), json!({"count": 9, "user": "olga"})] {
        assert!(all(&site, (eve, "eve"), request).await.sessions.is_empty());
    }
    for count in [0, 501] {
        let body = json!({"count": count}).to_string();
        let refused = site.ask(auditor, "POST", "/v1/sessions/all", Some(&body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad-request"));
    }
    let told = site.store.decisions(0).await.unwrap();
    let read: Vec<_> = told.iter().filter(|told| told.kind == "evidence-read").collect();
    assert_eq!(read.len(), 11, "each page that was answered to an auditor");
    assert!(read.iter().all(|told| told.user == Some(ida)));
    let details: Vec<_> = read.iter().filter_map(|told| told.detail.as_deref()).collect();
    assert!(details.contains(&"the list of sessions, user olga"), "{details:?}");
}
