//! A session that joins a terminal of another one: who may, what is recorded, and what ends it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::api::{Guest, Joins, Session, UserChange};
use belay_proto::ids::{SessionId, UserId};
use belay_proto::policy::Role;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::capability;
use belay_proto::wire::open::{Join, Open};
use belay_relay::store::Decision;
use serde_json::json;

use crate::lines::{Client, Device, Site};
use crate::sessions::{Enrolled, Open1, granted, kinds, opened, refusal, standard};
use crate::stream::{Stream, both_ways};

pub(crate) fn engineer(site: &str, login: &str) -> Role {
    let role = json!({"role": "engineer", "selector": {"site": site}, "logins": [login]});
    serde_json::from_value(role).unwrap()
}

fn join(session: SessionId) -> Join {
    Join { session, terminal: None, read_only: None }
}

async fn line(site: &Site, pump: &Enrolled) -> Device {
    site.capable_line(pump, &[], &[capability::ATTACH, capability::JOIN]).await
}

async fn listed(site: &Site, who: (UserId, &str)) -> Vec<Session> {
    site.ask(who, "GET", "/v1/sessions", None).await.json()
}

/// Olga, an engineer of the device and login, in a session that joins this one.
async fn joined(
    site: &Site,
    device: &Device,
    host: SessionId,
) -> (UserId, Client, SessionId, Stream, Stream) {
    let olga = site.add_person("olga", vec![engineer("oslo", "support")]).await;
    let client = site.client(olga, "olga").await;
    let ((opened, near), (_, far)) = granted(client.joins(join(host)), device.takes()).await;
    (olga, client, opened.session, near, far)
}

fn detail(told: &[Decision], kind: &str) -> String {
    told.iter().find(|one| one.kind == kind).unwrap().detail.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_a_shell_there_joins_and_both_sessions_say_so() {
    let (site, pump) = standard("").await;
    let device = line(&site, &pump).await;
    let Open1 { id: host, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let olga = site.add_person("olga", vec![engineer("oslo", "support")]).await;
    // She finds it before.
    assert_eq!(listed(&site, (olga, "olga")).await[0].id, host);
    let client = site.client(olga, "olga").await;
    let wanted = Join { terminal: Some(2), read_only: Some(true), ..join(host) };
    let asked = client.joins(wanted.clone());
    let ((opened, mut near), (grant, mut far)) = granted(asked, device.takes()).await;
    assert_eq!((grant.session, grant.user, grant.resume), (opened.session, olga, None));
    assert_eq!((grant.actions, grant.joins), (vec!["join".to_owned()], Some(wanted)));
    assert_eq!(grant.login.as_str(), "support");
    both_ways(&mut near, &mut far, b"as any session").await;

    let told = site.recorded(opened.session, "session-opened").await;
    let wanted = format!("ssh: join; session {host} of root: looks on, terminal 2");
    assert_eq!(detail(&told, "session-opened"), wanted);
    let told = site.recorded(host, "session-joined").await;
    assert_eq!(kinds(&told), ["session-opened", "session-joined"]);
    assert_eq!(told[1].user, Some(olga));
    let wanted = format!("olga joined root in session {}: looks on, terminal 2", opened.session);
    assert_eq!(detail(&told, "session-joined"), wanted);

    let all = listed(&site, (olga, "olga")).await;
    let one = |id| all.iter().find(|session| session.id == id).unwrap();
    let guest = Guest { user: "olga".parse().unwrap(), session: opened.session, may_type: false };
    assert_eq!(one(host).joined_by, [guest]);
    assert_eq!(one(opened.session).joins, Some(Joins { session: host, may_type: false }));
    assert!(one(opened.session).joined_by.is_empty() && one(host).joins.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_and_who_may_not_know_learns_nothing() {
    let (site, pump) = standard("").await;
    site.add_device("fan").await;
    let device = line(&site, &pump).await;
    let Open1 { id: host, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let never = SessionId::from_uuid(uuid::Uuid::from_bytes([9; 16]));
    let strangers =
        [("eve", vec![engineer("bergen", "support")]), ("ian", vec![engineer("oslo", "root")])];
    for (name, roles) in strangers {
        let id = site.add_person(name, roles).await;
        let client = site.client(id, name).await;
        let refused = refusal(client.joins(join(host)).await);
        assert_eq!(refused.code(), Code::SessionOver, "{name}");
        assert_eq!(refused, refusal(client.joins(join(never)).await), "{name} learns something");
        assert!(listed(&site, (id, name)).await.is_empty(), "{name} sees it");
    }
    // An auditor knows of it, and is told what is theirs to do.
    let ida = site.add_person("ida", vec![Role::Auditor]).await;
    let refused = refusal(site.client(ida, "ida").await.joins(join(host)).await);
    assert_eq!(refused.code(), Code::NotAllowed);
    assert_eq!(refused.cause(), "an auditor's role opens no session");
    let told = site.recorded(host, "session-opened").await;
    assert_eq!(kinds(&told), ["session-opened"], "nobody joined");

    // What is said of the session must be so.
    let root = site.root().await;
    for (open, what) in [
        (Open { login: Some("root".parse().unwrap()), ..Open::default() }, "login"),
        (Open { kind: Some("forward".into()), ..Open::default() }, "kind"),
        (Open { device: Some("fan".into()), ..Open::default() }, "device"),
    ] {
        let refused = refusal(root.joins_as(join(host), open).await);
        let wanted = (Code::BadRequest, format!("the session has another {what}"));
        assert_eq!((refused.code(), refused.cause()), (wanted.0, wanted.1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_or_joins_itself_or_whose_agent_cannot_is_not_joined() {
    let (site, pump) = standard("").await;
    let device = line(&site, &pump).await;
    let Open1 { id: host, client: _client, mut near, mut far } = opened(&site, &device).await;
    let (_, hers, guest, _near, _far) = joined(&site, &device, host).await;
    let root = site.root().await;
    let refused = refusal(root.joins(join(guest)).await);
    let wanted = format!("the session itself joins another; belay join {host}");
    assert_eq!((refused.code(), refused.to_string()), (Code::BadRequest, wanted));
    let (answer, _) =
        tokio::join!(root.joins(join(host)), device.refuses(Code::BadRequest, "no terminal 3"));
    assert_eq!(refusal(answer).to_string(), "pump refused: no terminal 3");
    near.send.finish();
    far.ends().await;
    far.send.finish();
    near.ends().await;
    site.recorded(host, "session-closed").await;
    assert_eq!(refusal(hers.joins(join(host)).await).cause(), "the session is over: it ended");
    device.vanish().await;

    let older = site.line(&pump, &[guest]).await;
    let Open1 { id: host, client: _client, near: _near, far: _far } = opened(&site, &older).await;
    let refused: Refused = refusal(root.joins(join(host)).await);
    assert_eq!(refused.code(), Code::DeviceRefused);
    assert_eq!(
        refused.to_string(),
        "the agent of pump cannot let anybody join a session; upgrade it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_role_is_gone_is_cut_and_one_whose_host_is_gone_does_not_come_back() {
    let (site, pump) = standard("").await;
    let mut device = line(&site, &pump).await;
    let Open1 { id: host, client: _client, near: mut host_near, far: mut host_far } =
        opened(&site, &device).await;
    let (olga, client, guest, mut near, mut far) = joined(&site, &device, host).await;
    // Another role that allows as much changes nothing.
    let change = |roles| UserChange { roles: Some(roles), ..UserChange::default() };
    site.patch("/v1/users/olga", &change(vec![Role::Administrator])).await;
    both_ways(&mut near, &mut far, b"still").await;
    client.vanish().await;
    far.breaks().await;
    site.recorded(guest, "session-detached").await;
    let client = site.client(olga, "olga").await;
    let ((_, mut near), (grant, mut far)) =
        granted(client.resumes(guest, None), device.takes()).await;
    assert_eq!((grant.resume, grant.joins), (Some(true), Some(join(host))));
    both_ways(&mut near, &mut far, b"back").await;
    site.patch("/v1/users/olga", &change(vec![engineer("bergen", "support")])).await;
    near.breaks().await;
    assert_eq!(device.told_to_end().await.unwrap().session, guest);
    site.recorded(guest, "session-closed").await;
    both_ways(&mut host_near, &mut host_far, b"unharmed").await;

    site.patch("/v1/users/olga", &change(vec![engineer("oslo", "support")])).await;
    let ((opened, _near), (_, mut far)) = granted(client.joins(join(host)), device.takes()).await;
    client.vanish().await;
    far.breaks().await;
    site.recorded(opened.session, "session-detached").await;
    host_near.send.finish();
    host_far.ends().await;
    host_far.send.finish();
    host_near.ends().await;
    site.recorded(host, "session-closed").await;
    let client = site.client(olga, "olga").await;
    let refused = refusal(client.resumes(opened.session, None).await);
    assert!(refused.cause().contains("the session it joined is over"), "{refused}");
    site.recorded(opened.session, "session-refused").await;
}
