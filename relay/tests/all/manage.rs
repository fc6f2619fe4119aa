//! What an administrator does over the interface, and what an engineer sees of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use belay_proto::api::{Device, DeviceStatus, EnrolAnswer, User, UserChange, UserChanged};
use belay_proto::policy::Role;
use belay_relay::store::{Actor, Change};
use belay_tunnel::clock;
use belay_tunnel::pki::TlsKey;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::enrolment::request;
use crate::routes::engineer_role;
use crate::support::{Answer, Dialler, Relay, read_answer};

async fn enrol(relay: &Relay, name: &str, site: &str) -> EnrolAnswer {
    let token = json!({"lives_s": 600, "uses": 1, "name": name, "labels": {"site": site}});
    let token = relay.token(token).await;
    let asked = request(&token, &TlsKey::generate().unwrap());
    relay.send(&relay.nobody(), "POST", "/v1/enrol", &asked).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engineer_sees_the_devices_of_their_labels_and_changes_none() {
    let relay = Relay::start().await;
    enrol(&relay, "oslo-1", "oslo").await;
    enrol(&relay, "bergen-1", "bergen").await;
    let id = relay.add_person("eng", vec![engineer_role()]).await;
    let engineer = relay.person_at(id, "eng", clock::now());
    let seen: Vec<Device> = relay.get(&engineer, "/v1/devices").await.json();
    assert_eq!(seen.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["oslo-1"]);
    assert!(seen.iter().all(|d| !d.online && d.line.is_none()));
    let all: Vec<Device> = relay.get(&relay.admin(), "/v1/devices").await.json();
    assert_eq!(all.len(), 2);
    for device in ["oslo-1", "bergen-1"] {
        let path = format!("/v1/devices/{device}");
        let answer = relay.send(&engineer, "PATCH", &path, &json!({"name": "mine"})).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "not-allowed"));
    }
    let refused = relay.last("request-refused").await;
    assert_eq!(refused.user, Some(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_renamed_labelled_and_put_out_of_service() {
    let relay = Relay::start().await;
    let pump = enrol(&relay, "pump", "oslo").await;
    let mut changes = relay.store.changes();
    let admin = relay.admin();
    let change = json!({"name": "pump-17", "set_labels": {"line": "3"}, "remove_labels": ["site"]});
    let device: Device = relay.send(&admin, "PATCH", "/v1/devices/pump", &change).await.json();
    assert_eq!(device.name.as_str(), "pump-17");
    assert_eq!(serde_json::to_value(&device.labels).unwrap(), json!({"line": "3"}));
    let by_id = format!("/v1/devices/{}", pump.device);
    let change = json!({"status": "quarantined", "reason": "two of them"});
    let device: Device = relay.send(&admin, "PATCH", &by_id, &change).await.json();
    assert_eq!(device.status, DeviceStatus::Quarantined);
    assert_eq!(changes.recv().await, Ok(Change::DeviceEdited(pump.device)));
    let told = Change::DeviceStatus(pump.device, DeviceStatus::Quarantined);
    assert_eq!(changes.recv().await, Ok(told));
    let recorded = relay.last("device-status").await;
    assert_eq!((recorded.user, recorded.device), (Some(relay.admin), Some(pump.device)));
    assert!(recorded.detail.unwrap().contains("two of them"));
    let gone = relay.send(&admin, "PATCH", &by_id, &json!({"status": "decommissioned"})).await;
    assert_eq!(gone.status, 200);
    let back = relay.send(&admin, "PATCH", &by_id, &json!({"status": "active"})).await;
    assert_eq!((back.status, back.code().as_str()), (409, "device-decommissioned"));
    let listed: Vec<Device> = relay.get(&admin, "/v1/devices").await.json();
    assert!(listed.is_empty());
    let unknown = relay.send(&admin, "PATCH", "/v1/devices/none", &json!({"name": "x"})).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown-device"));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_added_changed_and_disabled() {
    let relay = Relay::start().await;
    let admin = relay.admin();
    let add = json!({"name": "anna", "roles": [engineer_role()]});
    assert_eq!(relay.send(&admin, "POST", "/v1/users", &add).await.status, 200);
    let again = relay.send(&admin, "POST", "/v1/users", &add).await;
    assert_eq!((again.status, again.code().as_str()), (409, "name-refused"));
    for roles in [
        json!([]),
        json!([{"role": "engineer", "selector": {}, "logins": ["root"]}]),
        json!([{"role": "engineer", "selector": {"site": "oslo"}, "logins": []}]),
        json!([{"role": "engineer", "selector": {"site": "oslo"}, "logins": ["-x"]}]),
        json!([{"role": "owner"}]),
        json!([{"role": "auditor", "selector": {"site": "oslo"}}]),
        json!([{"role": "administrator", "only": "a little"}]),
    ] {
        let bad = json!({"name": "eve", "roles": roles});
        let answer = relay.send(&admin, "POST", "/v1/users", &bad).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{bad}");
    }
    let mut changes = relay.store.changes();
    let change = json!({"roles": [Role::Administrator], "new_code": true});
    let changed: UserChanged = relay.send(&admin, "PATCH", "/v1/users/anna", &change).await.json();
    assert!(changed.login_code.unwrap().starts_with("belay-code-"));
    assert_eq!(changes.recv().await, Ok(Change::UserRoles(changed.user.id)));
    let off = json!({"disabled": true});
    let changed: UserChanged = relay.send(&admin, "PATCH", "/v1/users/anna", &off).await.json();
    assert!(changed.user.disabled && changed.login_code.is_none());
    assert_eq!(changes.recv().await, Ok(Change::UserDisabled(changed.user.id)));
    let last = relay.send(&admin, "PATCH", "/v1/users/root", &off).await;
    assert_eq!((last.status, last.code().as_str()), (403, "not-allowed"));
    let users: Vec<User> = relay.get(&admin, "/v1/users").await.json();
    assert_eq!(users.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outside_its_bounds_is_not_made() {
    let relay = Relay::start().await;
    for bad in [
        json!({"lives_s": 0, "uses": 1}),
        json!({"lives_s": 91 * 86_400, "uses": 1}),
        json!({"lives_s": 600, "uses": 0}),
        json!({"lives_s": 600, "uses": 100_001}),
        json!({"lives_s": 600, "uses": 2, "name": "only-one"}),
        json!({"lives_s": 600, "uses": 1, "name": "A*"}),
        json!({"lives_s": 600, "uses": 1, "labels": {"Bad Key": "x"}}),
    ] {
        let answer = relay.send(&relay.admin(), "POST", "/v1/tokens", &bad).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"), "{bad}");
    }
    assert!(relay.decisions().await.iter().all(|d| d.kind != "token-created"));
}

/// The answer to a request whose second half comes when `meanwhile` is over.
async fn slowly(
    relay: &Relay,
    who: &Dialler,
    (path, body): (&str, &str),
    meanwhile: impl AsyncFnOnce(),
) -> Answer {
    let mut stream = relay.connect(who).await.unwrap();
    let length = body.len();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let (first, second) = body.split_at(length / 2);
    stream.write_all((head + first).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // It has been let through by then, and waits for the rest.
    tokio::time::sleep(Duration::from_millis(300)).await;
    meanwhile().await;
    stream.write_all(second.as_bytes()).await.unwrap();
    read_answer(&mut stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_may_is_judged_when_their_request_is_there() {
    let relay = Relay::start().await;
    let id = relay.add_person("eve", vec![Role::Administrator]).await;
    let eve = relay.person_at(id, "eve", clock::now());
    let change = |change: UserChange| async {
        let by = Actor::Machine;
        relay.store.change_user("eve".parse().unwrap(), change, None, by).await.unwrap();
    };
    let back = ("/v1/users/eve", r#"{"disabled":false}"#);
    let answer = slowly(&relay, &eve, back, async || {
        change(UserChange { disabled: Some(true), ..UserChange::default() }).await;
    })
    .await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "user-disabled"), "{answer:?}");
    assert!(relay.store.user(id).await.unwrap().unwrap().disabled, "she let herself in again");

    change(UserChange { disabled: Some(false), ..UserChange::default() }).await;
    let administrator =
        UserChange { roles: Some(vec![Role::Administrator]), ..UserChange::default() };
    let administrator = serde_json::to_string(&administrator).unwrap();
    let answer = slowly(&relay, &eve, ("/v1/users/eve", &administrator), async || {
        change(UserChange { roles: Some(vec![Role::Auditor]), ..UserChange::default() }).await;
    })
    .await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "not-allowed"), "{answer:?}");
    assert_eq!(relay.store.user(id).await.unwrap().unwrap().roles, [Role::Auditor]);
    assert_eq!(relay.last("request-refused").await.user, Some(id));
}
