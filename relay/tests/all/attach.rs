//! A session that another client of its person takes over, on a fresh stream.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::api::UserChange;
use belay_proto::policy::Role;
use belay_proto::refusal::Code;

use crate::sessions::{Open1, granted, kinds, opened, refusal, standard};
use crate::stream::both_ways;

#[tokio::test(flavor = "multi_thread")]
async fn another_client_of_its_person_takes_a_session_over_and_the_first_is_told() {
    let (site, pump) = standard("sessions_per_user = 1\n").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    both_ways(&mut near, &mut far, b"first").await;
    let ends = site.session(id).await.ends;
    let second = site.root().await;
    let ((taken, mut its_near), (grant, mut its_far)) =
        granted(second.takes_over(id), device.takes()).await;
    assert_eq!((taken.session, taken.stream), (id, Some(1)));
    assert_eq!((grant.session, grant.resume, grant.anew), (id, Some(true), Some(true)));
    assert_eq!((grant.login.as_str(), grant.ends), ("support", ends));
    near.breaks().await;
    far.breaks().await;
    both_ways(&mut its_near, &mut its_far, b"second").await;
    for stream in [0, 2] {
        let refused = refusal(client.resumes_stream(id, stream).await);
        assert_eq!(refused.code(), Code::SessionOver);
        let text = refused.to_string();
        let wanted = format!(
            "the session was taken over by another client; belay attach {id} takes it back"
        );
        assert_eq!(text, wanted);
    }
    both_ways(&mut its_near, &mut its_far, b"and stays").await;
    // Whoever has the latest stream takes it up again as ever.
    second.vanish().await;
    its_far.breaks().await;
    site.recorded(id, "session-detached").await;
    let ((again, mut near), (grant, mut far)) =
        granted(client.resumes_stream(id, 1), device.takes()).await;
    assert_eq!((again.stream, grant.anew), (Some(1), None));
    both_ways(&mut near, &mut far, b"third").await;
    let told = site.store.decisions(0).await.unwrap();
    let told = told.into_iter().filter(|d| d.session == Some(id));
    let (grants, told): (Vec<_>, Vec<_>) = told.partition(|d| d.kind == "grant-issued");
    assert_eq!(grants.len(), 3, "each time it was handed over");
    let order = [
        "session-opened",
        "session-taken-over",
        "session-detached",
        "session-refused",
        "session-refused",
        "session-detached",
        "session-resumed",
    ];
    assert_eq!(kinds(&told), order);
    assert_eq!(told[1].user, Some(site.admin));
    assert_eq!(told[3].code.as_deref(), Some("session-over"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_taken_over_by_nobody_else_and_not_when_it_is_over() {
    let (site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    let hers = site.client(olga, "olga").await;
    assert_eq!(refusal(hers.takes_over(id).await).cause(), "you have no such session");
    both_ways(&mut near, &mut far, b"unharmed").await;
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(told.last().unwrap().user, Some(olga));
    near.send.finish();
    far.ends().await;
    far.send.finish();
    near.ends().await;
    site.recorded(id, "session-closed").await;
    let refused = refusal(client.takes_over(id).await);
    assert_eq!(refused.cause(), "the session is over: it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_refuses_leaves_the_session_to_whoever_has_it() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    let second = site.root().await;
    let no_terminal = device.refuses(Code::BadRequest, "no terminal");
    let (answer, grant) = tokio::join!(second.takes_over(id), no_terminal);
    assert_eq!(grant.anew, Some(true));
    let refused = refusal(answer);
    assert_eq!(refused.to_string(), "pump refused: no terminal");
    both_ways(&mut near, &mut far, b"nothing happened").await;
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(kinds(&told), ["session-opened", "session-taken-over", "session-refused"]);
    assert_eq!((site.session(id).await.stream, site.session(id).await.attachments), (0, 1));
    drop(near);
    far.breaks().await;
    let ((again, mut near), (_, mut far)) =
        granted(client.resumes_stream(id, 0), device.takes()).await;
    assert_eq!(again.stream, Some(0));
    both_ways(&mut near, &mut far, b"as before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_give_a_session_away_is_not_asked_to() {
    let (site, pump) = standard("").await;
    let device = site.old_line(&pump).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    let refused = refusal(client.takes_over(id).await);
    assert_eq!(refused.code(), Code::DeviceRefused);
    assert!(refused.to_string().ends_with("another client; upgrade it"), "{refused}");
    both_ways(&mut near, &mut far, b"unharmed").await;
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(kinds(&told), ["session-opened", "session-refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_no_longer_allowed_ends_when_somebody_wants_it() {
    let (mut site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let device = site.line(&pump, &[]).await;
    let hers = site.client(olga, "olga").await;
    let ((taken, _near), _far) = granted(hers.opens("pump"), device.takes()).await;
    site.stop_relay().await;
    // While no relay ran, so that only the question itself can find it out.
    let roles = UserChange { roles: Some(Vec::new()), ..UserChange::default() };
    let by = belay_relay::store::Actor::Machine;
    site.store.change_user("olga".parse().unwrap(), roles, None, by).await.unwrap();
    site.start_relay().await;
    let _device = site.line(&pump, &[taken.session]).await;
    let hers = site.client(olga, "olga").await;
    let refused = refusal(hers.takes_over(taken.session).await);
    assert!(refused.cause().contains("your permission changed"), "{refused}");
    let over = site.session(taken.session).await.over;
    assert!(over.unwrap().why.contains("your permission changed"));
}
