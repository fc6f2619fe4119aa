//! A session that somebody ends for good: who may, and that it ends wherever it is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::api::Killed;
use belay_proto::ids::{SessionId, UserId};
use belay_proto::policy::Role;
use belay_proto::refusal::Code;
use belay_relay::store::Actor;
use serde_json::json;
use uuid::Uuid;

use crate::lines::Site;
use crate::routes::engineer_role;
use crate::sessions::{Open1, granted, kinds, opened, refusal, standard};
use crate::stream::both_ways;
use crate::support::Answer;

async fn kill(site: &Site, who: (UserId, &str), session: SessionId, reason: &str) -> Answer {
    let body = json!({"reason": reason}).to_string();
    site.ask(who, "POST", &format!("/v1/sessions/{session}/kill"), Some(&body)).await
}

const LINE: &str = "olga ended this session: on\u{fffd}site";

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_session_ends_at_its_client_and_its_device_with_who_and_why() {
    let (site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let mut device = site.line(&pump, &[]).await;
    let Open1 { id, mut client, mut near, mut far } = opened(&site, &device).await;
    both_ways(&mut near, &mut far, b"first").await;
    let answer = kill(&site, (olga, "olga"), id, " on\u{1b}site ").await;
    let killed: Killed = answer.json();
    assert_eq!((killed.user.as_str(), killed.device.as_str()), ("root", "pump"));
    assert!(killed.device_online);

    let word = client.told().await;
    assert_eq!((word.session, word.reason.code()), (id, Code::SessionOver));
    assert_eq!(word.reason.to_string(), LINE);
    near.breaks().await;
    far.breaks().await;
    let ended = device.told_to_end().await.unwrap();
    assert_eq!((ended.session, ended.reason.cause().as_str()), (id, LINE));
    let told = site.recorded(id, "session-closed").await;
    assert_eq!(kinds(&told), ["session-opened", "session-killed", "session-closed"]);
    assert_eq!((told[1].user, told[1].login.as_deref()), (Some(olga), Some("support")));
    assert_eq!(told[1].detail.as_deref(), Some("of root: on\u{fffd}site"));
    assert_eq!(told[2].user, Some(site.admin));
    let how = told[2].detail.as_deref().unwrap();
    assert!(how.starts_with(&format!("cut ({LINE})")), "{how}");
    assert!(how.ends_with("5 bytes to the device, 5 from it"), "{how}");

    for client in [client, site.root().await] {
        let refused = refusal(client.resumes(id, Some(5)).await);
        assert_eq!(refused.code(), Code::SessionOver);
        assert!(refused.cause().ends_with(LINE), "{refused}");
    }
    assert!(refusal(site.root().await.takes_over(id).await).cause().ends_with(LINE));
    let again = kill(&site, (olga, "olga"), id, "once more").await;
    assert_eq!((again.status, again.code().as_str()), (404, "session-over"));
    assert!(again.body.contains("ended this session"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_a_client_on_a_device_without_a_line_ends_when_the_device_is_back() {
    let (mut site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, .. } = opened(&site, &device).await;
    client.vanish().await;
    device.vanish().await;
    site.recorded(id, "session-detached").await;
    let killed: Killed = kill(&site, (site.admin, "root"), id, "no longer needed").await.json();
    assert!(!killed.device_online);
    let told = site.recorded(id, "session-closed").await;
    assert_eq!(told[told.len() - 2].kind, "session-killed");
    // Whatever became of the relay meanwhile.
    site.stop_relay().await;
    site.start_relay().await;
    let mut device = site.line(&pump, &[id]).await;
    let ended = device.told_to_end().await.unwrap();
    assert_eq!(ended.session, id);
    assert_eq!(ended.reason.cause(), "root ended this session: no longer needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_device_is_told_at_once() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, .. } = opened(&site, &device).await;
    device.vanish().await;
    site.recorded(id, "session-detached").await;
    let (answer, killed) = tokio::join!(
        client.resumes(id, Some(60)),
        kill(&site, (site.admin, "root"), id, "the pump is gone")
    );
    assert_eq!(killed.status, 200, "{killed:?}");
    assert!(refusal(answer).cause().ends_with("root ended this session: the pump is gone"));
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(told.iter().filter(|told| told.kind == "session-closed").count(), 1);
}

/// The record is all that a relay which is killed right after it leaves behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_record_and_was_not_done_is_done_by_the_next_relay() {
    let (mut site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, .. } = opened(&site, &device).await;
    site.stop_relay().await;
    let line = "root ended this session: it hangs".to_owned();
    let event = Actor::Machine.event(belay_relay::store::EventKind::SessionKilled).session(id);
    assert!(site.store.kill_session(id, line.clone(), event.clone()).await.unwrap());
    assert!(!site.store.kill_session(id, "twice".into(), event).await.unwrap());
    site.start_relay().await;
    site.recorded(id, "session-closed").await;
    let mut device = site.line(&pump, &[id]).await;
    let ended = device.told_to_end().await.unwrap();
    assert_eq!((ended.session, ended.reason.cause()), (id, line));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_user_and_an_administrator_may_and_only_with_a_reason() {
    let (site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let erik = site.add_person("erik", vec![engineer_role()]).await;
    let ida = site.add_person("ida", vec![Role::Auditor]).await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client: _client, mut near, mut far } = opened(&site, &device).await;
    let never = SessionId::from_uuid(Uuid::from_bytes([9; 16]));

    let not_his = kill(&site, (erik, "erik"), id, "I want the pump").await;
    let none = kill(&site, (erik, "erik"), never, "I want the pump").await;
    assert_eq!((not_his.status, not_his.code().as_str()), (404, "session-over"));
    assert_eq!(not_his.body, none.body, "one cannot tell them apart");
    let auditor = kill(&site, (ida, "ida"), id, "suspicious").await;
    assert_eq!((auditor.status, auditor.code().as_str()), (403, "not-allowed"));
    for reason in ["", "  \t", &"x".repeat(501)] {
        let answer = kill(&site, (olga, "olga"), id, reason).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{reason:?}");
    }
    both_ways(&mut near, &mut far, b"none of that touched it").await;
    let refused: Vec<_> = site.store.decisions(0).await.unwrap();
    let refused: Vec<_> = refused.iter().filter(|d| d.kind == "request-refused").collect();
    assert_eq!(refused.len(), 6, "{refused:?}");

    // Her own, whatever her role is by now.
    let hers = site.client(olga, "olga").await;
    let ((taken, _near), _far) = granted(hers.opens("pump"), device.takes()).await;
    let own = kill(&site, (olga, "olga"), taken.session, &"x".repeat(500)).await;
    assert_eq!(own.status, 200, "{own:?}");
    site.recorded(taken.session, "session-closed").await;
    both_ways(&mut near, &mut far, b"nor did this").await;
}
