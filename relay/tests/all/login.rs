//! A person logs in, or is told why not.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use belay_proto::api::{LoginAnswer, LoginProof, LoginRequest, WhoAmI};
use belay_proto::token::{Invitation, Purpose, Secret};
use belay_relay::store::{Actor, LoginCode};
use belay_tunnel::clock;
use belay_tunnel::pki::TlsKey;
use serde_json::json;

use crate::routes::engineer_role;
use crate::support::{Answer, Relay, ssh_key};

const PASSWORD: &str = "correct horse battery staple";

fn request(proof: LoginProof) -> LoginRequest {
    LoginRequest {
        proof,
        csr: TlsKey::generate().unwrap().request_pem().unwrap(),
        ssh_key: ssh_key().0,
        clock: clock::now(),
    }
}

fn by_code(secret: &Secret, password: &str) -> LoginProof {
    LoginProof::Code { secret: secret.to_hex(), new_password: password.into() }
}

fn by_password(user: &str, password: &str) -> LoginProof {
    LoginProof::Password { user: user.into(), password: password.into() }
}

async fn login(relay: &Relay, proof: LoginProof) -> Answer {
    relay.send(&relay.nobody(), "POST", "/v1/login", &request(proof)).await
}

async fn refused(relay: &Relay, proof: LoginProof) -> String {
    let answer = login(relay, proof).await;
    let code = answer.code();
    let recorded = relay.last("login-refused").await;
    assert_eq!(recorded.code.as_deref(), Some(code.as_str()), "{answer:?}");
    code
}

/// Adds a person through the interface; returns their code's secret.
async fn add(relay: &Relay, name: &str) -> Secret {
    let roles = vec![engineer_role()];
    let request = json!({"name": name, "roles": roles});
    let answer = relay.send(&relay.admin(), "POST", "/v1/users", &request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer: belay_proto::api::UserAnswer = answer.json();
    Invitation::from_text(&answer.login_code, Purpose::Login).unwrap().secret
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_once_then_a_password_and_the_certificates_work() {
    let relay = Relay::start().await;
    let secret = add(&relay, "anna").await;
    let key = TlsKey::generate().unwrap();
    let asked =
        LoginRequest { csr: key.request_pem().unwrap(), ..request(by_code(&secret, PASSWORD)) };
    let answer = relay.send(&relay.nobody(), "POST", "/v1/login", &asked).await;
    let answer: LoginAnswer = answer.json();
    assert_eq!(answer.user.as_str(), "anna");
    assert!(answer.expires.distance(clock::now()) <= Duration::from_secs(12 * 3600));
    let ssh = ssh_key::Certificate::from_openssh(&answer.ssh_certificate).unwrap();
    assert_eq!(ssh.valid_principals(), ["anna"]);
    assert_eq!(answer.ssh_host_cas, relay.authority.ssh_host_cas());

    let me = relay.person_at(answer.user_id, "anna", clock::now());
    let whoami: WhoAmI = relay.get(&me, "/v1/whoami").await.json();
    assert_eq!((whoami.user.as_str(), whoami.roles), ("anna", vec![engineer_role()]));
    assert_eq!(relay.last("logged-in").await.user, Some(answer.user_id));

    assert_eq!(refused(&relay, by_code(&secret, PASSWORD)).await, "token-used-up");
    assert_eq!(login(&relay, by_password("anna", PASSWORD)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_to_refuse_a_login_has_its_code_and_its_record() {
    let relay = Relay::start_with("login_per_source_per_minute = 1000\n").await;
    let secret = add(&relay, "anna").await;
    assert_eq!(
        refused(&relay, by_code(&Secret::from_bytes([9; 20]), PASSWORD)).await,
        "wrong-secret"
    );
    for weak in ["short", "aaaaaaaaaaaaaaaaaaaaaaaa", "annaannaannaanna"] {
        assert_eq!(refused(&relay, by_code(&secret, weak)).await, "bad-request", "{weak}");
    }
    let ended = Secret::from_bytes([8; 20]);
    let expires = clock::now().minus(Duration::from_secs(1));
    let code = LoginCode { digest: ended.digest(), expires };
    relay.store.new_code("root".parse().unwrap(), code, Actor::Machine).await.unwrap();
    assert_eq!(refused(&relay, by_code(&ended, PASSWORD)).await, "token-expired");

    let before_set = login(&relay, by_password("anna", PASSWORD)).await;
    assert_eq!(before_set.code(), "wrong-secret");
    assert_eq!(login(&relay, by_code(&secret, PASSWORD)).await.status, 200);
    let wrong = login(&relay, by_password("anna", "correct horse battery stapl")).await;
    let unknown = login(&relay, by_password("nobody", PASSWORD)).await;
    let no_name = login(&relay, by_password("No Such Name\n", PASSWORD)).await;
    let empty = login(&relay, by_password("anna", "")).await;
    let huge = login(&relay, by_password("anna", &"x".repeat(5000))).await;
    for answer in [&wrong, &unknown, &no_name, &empty, &huge] {
        assert_eq!((answer.status, answer.body.as_str()), (401, before_set.body.as_str()));
    }
    let anna = relay.last("logged-in").await.user;
    let named: Vec<_> = relay
        .decisions()
        .await
        .into_iter()
        .filter(|d| d.kind == "login-refused" && d.user == anna)
        .collect();
    assert_eq!(named.len(), 4, "attempts at a known name are recorded with it");

    let disable = json!({"disabled": true});
    let done = relay.send(&relay.admin(), "PATCH", "/v1/users/anna", &disable).await;
    assert_eq!(done.status, 200);
    assert_eq!(refused(&relay, by_password("anna", PASSWORD)).await, "user-disabled");
    let without = login(&relay, by_password("anna", "wrong wrong wrong wrong")).await;
    assert_eq!(without.code(), "wrong-secret", "only who knows the password learns of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_before_the_code_is_used() {
    let relay = Relay::start().await;
    let secret = add(&relay, "anna").await;
    let asked = LoginRequest {
        clock: clock::now().minus(Duration::from_secs(7200)),
        ..request(by_code(&secret, PASSWORD))
    };
    let answer = relay.send(&relay.nobody(), "POST", "/v1/login", &asked).await;
    assert_eq!(answer.code(), "clock-wrong");
    assert!(answer.body.contains("2 h behind"), "{answer:?}");
    assert_eq!(login(&relay, by_code(&secret, PASSWORD)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_race_with_one_code_do_not_both_get_in() {
    let relay = Relay::start().await;
    let secret = add(&relay, "anna").await;
    let (a, b) = tokio::join!(
        login(&relay, by_code(&secret, "the first of two passwords")),
        login(&relay, by_code(&secret, "the second of two passwords")),
    );
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403], "{a:?} {b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_a_name_is_slowed_down_without_locking_its_owner_out() {
    let settings = "login_per_source_per_minute = 1000\nlogin_per_user_per_minute = 6\n";
    let relay = Relay::start_with(settings).await;
    let secret = add(&relay, "anna").await;
    assert_eq!(login(&relay, by_code(&secret, PASSWORD)).await.status, 200);
    // Somebody elsewhere uses the name's allowance up.
    let body = serde_json::to_string(&request(by_password("anna", "wrong wrong wrong"))).unwrap();
    let mut busy = 0;
    for n in 1..=12 {
        let from = format!("127.0.{n}.1").parse().unwrap();
        let stream = relay.connect_from(&relay.nobody(), from).await.unwrap();
        let answer = crate::support::exchange(stream, "POST", "/v1/login", Some(&body), "").await;
        busy += u32::from(answer.unwrap().status == 429);
    }
    assert!(busy >= 4, "{busy}");
    let owner = login(&relay, by_password("anna", PASSWORD)).await;
    assert_eq!(owner.status, 200, "from where she logged in before: {owner:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_one_source_are_bounded() {
    let relay = Relay::start_with("login_per_source_per_minute = 6\n").await;
    let mut codes = Vec::new();
    for n in 0..12 {
        codes.push(login(&relay, by_password(&format!("user{n}"), PASSWORD)).await.code());
    }
    assert!(codes.iter().filter(|code| *code == "busy").count() >= 5, "{codes:?}");
    assert!(codes.iter().any(|code| code == "wrong-secret"));
}
