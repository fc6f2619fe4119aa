//! Every route × every kind of caller: who gets through, who is refused with what, and that each
//! refusal left its record.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use belay_proto::ids::{DeviceId, UserId};
use belay_proto::policy::{AdminRight, Role};
use belay_relay::api::{Need, ROUTES, Route};
use belay_relay::ca::Authority;
use belay_tunnel::clock;
use uuid::Uuid;

use crate::support::{Answer, Dialler, LOCAL, Relay, person_of};

pub(crate) fn engineer_role() -> Role {
    serde_json::from_value(serde_json::json!({
        "role": "engineer", "selector": {"site": "oslo"}, "logins": ["support"],
    }))
    .unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

/// Kinds of callers, and what the gate must answer them where more than nothing is needed:
/// status and code, or `None` where it depends on rights.
const CALLERS: &[(&str, Option<(u16, &str)>)] = &[
    ("administrator", None),
    ("engineer", None),
    ("auditor", None),
    ("person without a role", None),
    ("nobody", Some((401, "unknown-identity"))),
    ("device", Some((401, "not-allowed"))),
    ("disabled person", Some((403, "user-disabled"))),
    ("expired certificate", Some((401, "certificate-expired"))),
    ("certificate not yet valid", Some((401, "certificate-not-yet-valid"))),
    ("person the relay has forgotten", Some((401, "unknown-identity"))),
];

async fn caller(relay: &Relay, kind: &str) -> Dialler {
    let now = clock::now();
    match kind {
        "administrator" => relay.admin(),
        "engineer" => {
            let id = relay.add_person("eng", vec![engineer_role()]).await;
            relay.person_at(id, "eng", now)
        }
        "auditor" => {
            let id = relay.add_person("ida", vec![Role::Auditor]).await;
            relay.person_at(id, "ida", now)
        }
        "person without a role" => {
            let id = relay.add_person("new", vec![]).await;
            relay.person_at(id, "new", now)
        }
        "nobody" => relay.nobody(),
        "device" => relay.device(DeviceId::from_uuid(Uuid::now_v7())),
        "disabled person" => {
            let id = relay.add_person("gone", vec![Role::Administrator]).await;
            let change = serde_json::json!({"disabled": true});
            let done = relay.send(&relay.admin(), "PATCH", "/v1/users/gone", &change).await;
            assert_eq!(done.status, 200, "{done:?}");
            relay.person_at(id, "gone", now)
        }
        "expired certificate" => relay.person_at(relay.admin, "root", now.minus(13 * HOUR)),
        "certificate not yet valid" => relay.person_at(relay.admin, "root", now.plus(HOUR)),
        "person the relay has forgotten" => {
            relay.person_at(UserId::from_uuid(Uuid::now_v7()), "ghost", now)
        }
        _ => panic!("{kind}"),
    }
}

/// A path with names in it that nobody has.
fn filled(route: &Route, name: &str) -> String {
    let path = route.path.replace("{device}", name).replace("{user}", name);
    path.replace("{session}", name).replace("{from}", "0").replace("{hold}", "0")
}

async fn ask(relay: &Relay, who: &Dialler, route: &Route) -> Answer {
    let path = filled(route, "none");
    let body = (route.method != "GET").then_some("{}");
    relay.ask(who, route.method, &path, body, "").await.unwrap()
}

/// What comes back from a handler that was reached with an empty request.
fn was_reached(route: &Route, answer: &Answer) -> bool {
    match route.method {
        "GET" if route.path.contains("{session}") => answer.status == 400,
        "GET" => answer.status == 200,
        // An unknown object, or a request that lacks what it needs.
        _ => {
            matches!(answer.status, 400 | 404) && answer.code() != "unknown-identity"
                || route.path.contains("{user}") && answer.status == 404
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_caller_gets_exactly_what_each_route_allows() {
    let mut cells = 0;
    for (kind, refusal) in CALLERS {
        let relay = Relay::start().await;
        let who = caller(&relay, kind).await;
        for route in ROUTES {
            let before = relay.decisions().await.len();
            let answer = ask(&relay, &who, route).await;
            let cell = format!("{kind} at {} {}: {answer:?}", route.method, route.path);
            let expected = match (route.need, refusal) {
                (Need::Nothing, _) => None,
                (_, Some(refusal)) => Some(*refusal),
                (Need::Person, None) => None,
                (Need::OneOf(rights), None) => {
                    let allowed = match *kind {
                        "administrator" => true,
                        "engineer" => rights.contains(&AdminRight::ListDevices),
                        "auditor" => rights.iter().any(|right| {
                            [
                                AdminRight::ListDevices,
                                AdminRight::ReadEvidence,
                                AdminRight::HoldEvidence,
                            ]
                            .contains(right)
                        }),
                        _ => false,
                    };
                    (!allowed).then_some((403, "not-allowed"))
                }
            };
            match expected {
                None => assert!(was_reached(route, &answer), "{cell}"),
                Some((status, code)) => {
                    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{cell}");
                    let recorded = relay.decisions().await.split_off(before);
                    assert!(
                        recorded.iter().any(|d| d.kind == "request-refused"
                            && d.code.as_deref() == Some(code)
                            && d.source.as_deref() == Some(LOCAL)),
                        "{cell}: {recorded:?}"
                    );
                }
            }
            assert!(answer.head.contains("cache-control: no-store"), "{cell}");
            cells += 1;
        }
    }
    assert_eq!(cells, CALLERS.len() * ROUTES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_does_not_get_through_tls_and_is_recorded() {
    let relay = Relay::start().await;
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::make(dir.path(), LOCAL, clock::now()).unwrap();
    let who = person_of(&relay.authority, &other, relay.admin, "root", clock::now());
    let answer = relay.ask(&who, "GET", "/v1/whoami", None, "").await;
    assert!(answer.is_err(), "{answer:?}");
    let recorded = relay.eventually("peer-refused").await;
    assert_eq!(recorded.code.as_deref(), Some("foreign-certificate"));
    assert_eq!(recorded.source.as_deref(), Some(LOCAL));
    assert_eq!(relay.get(&relay.admin(), "/v1/whoami").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_a_browser_are_turned_away_whatever_certificate_they_carry() {
    let relay = Relay::start().await;
    for header in ["origin: https://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
        for route in ROUTES {
            let path = filled(route, "x");
            let body = (route.method != "GET").then_some("{}");
            let answer =
                relay.ask(&relay.admin(), route.method, &path, body, header).await.unwrap();
            assert_eq!((answer.status, answer.code().as_str()), (403, "not-allowed"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_table_is_not_there() {
    let relay = Relay::start().await;
    let admin = relay.admin();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/tokens", 405),
        ("DELETE", "/v1/users/root", 405),
        ("GET", "/v1/../v1/users", 404),
        ("GET", "/v1/users?all=1", 400),
    ] {
        let answer = relay.ask(&admin, method, path, None, "").await.unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.code(), "bad-request");
    }
    let unknown_field = serde_json::json!({"disabled": true, "admin": true});
    let answer = relay.send(&admin, "PATCH", "/v1/users/root", &unknown_field).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"));
    let form = relay.ask(&admin, "POST", "/v1/users", None, "content-type: text/plain\r\n").await;
    assert_eq!(form.unwrap().status, 415);
}
