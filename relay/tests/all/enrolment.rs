//! A device enrols, or is told why not.
#![allow(clippy::unwrap_used, reason = "tests")]

use belay_proto::api::{EnrolAnswer, EnrolRequest};
use belay_proto::time::UnixTime;
use belay_proto::token::{Invitation, Secret};
use belay_relay::store::NewToken;
use belay_tunnel::clock;
use belay_tunnel::pki::{Identity, PeerCertificate, TlsKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::support::{Answer, Relay, ssh_key};

pub(crate) fn request(token: &Invitation, key: &TlsKey) -> EnrolRequest {
    EnrolRequest {
        secret: token.secret.to_hex(),
        csr: key.request_pem().unwrap(),
        ssh_host_key: ssh_key().0,
        name: None,
        hostname: "Pump_17.plant.example".into(),
        platform: "linux/aarch64".into(),
        software: "belay-agent/0.1.0".into(),
        clock: clock::now(),
    }
}

async fn enrol(relay: &Relay, request: &EnrolRequest) -> Answer {
    relay.send(&relay.nobody(), "POST", "/v1/enrol", request).await
}

async fn refused(relay: &Relay, request: &EnrolRequest) -> String {
    let answer = enrol(relay, request).await;
    let code = answer.code();
    let recorded = relay.last("enrol-refused").await;
    assert_eq!(recorded.code.as_deref(), Some(code.as_str()), "each refusal is recorded");
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_what_it_needs_for_life() {
    let relay = Relay::start().await;
    let token = relay.token(json!({"lives_s": 3600, "uses": 2, "labels": {"site": "oslo"}})).await;
    assert_eq!(token.relay, relay.address.to_string());
    assert_eq!(token.ca, relay.authority.fingerprint());
    let key = TlsKey::generate().unwrap();
    let answer: EnrolAnswer = enrol(&relay, &request(&token, &key)).await.json();
    assert_eq!(answer.name.as_str(), "pump-17");
    let certificate = CertificateDer::from_pem_slice(answer.certificate.as_bytes()).unwrap();
    let certificate = PeerCertificate::from_der(&certificate).unwrap();
    assert_eq!(certificate.identity, Identity::Device(answer.device));
    assert_eq!(answer.ca, relay.authority.ca_pem());
    let host = ssh_key::Certificate::from_openssh(&answer.ssh_host_certificate).unwrap();
    assert!(host.valid_principals().iter().any(|p| p == "pump-17.belay"));
    assert_eq!(answer.ssh_user_cas, relay.authority.ssh_user_cas());
    assert!(answer.grant_keys.iter().all(|key| key.len() == 64));
    let record = relay.store.device_by_id(answer.device).await.unwrap().unwrap();
    assert!(record.has_key(&certificate.key_digest));
    assert_eq!(record.hostname, "Pump_17.plant.example");
    let recorded = relay.last("enrolled").await;
    assert_eq!(recorded.device, Some(answer.device));

    let again: EnrolAnswer = enrol(&relay, &request(&token, &key)).await.json();
    assert_eq!(again.device, answer.device, "a lost answer can be asked for again");
    let other: EnrolAnswer =
        enrol(&relay, &request(&token, &TlsKey::generate().unwrap())).await.json();
    assert_eq!(other.name.as_str(), "pump-17-2");
    let third = request(&token, &TlsKey::generate().unwrap());
    assert_eq!(refused(&relay, &third).await, "token-used-up");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_to_refuse_has_its_code_and_its_record() {
    let relay = Relay::start().await;
    let key = TlsKey::generate().unwrap();
    let token = relay.token(json!({"lives_s": 3600, "uses": 9, "name": "oslo-*"})).await;
    let good = EnrolRequest { name: Some("oslo-1".into()), ..request(&token, &key) };

    let unknown = Secret::from_bytes([9; 20]).to_hex();
    let unknown = EnrolRequest { secret: unknown, ..good.clone() };
    assert_eq!(refused(&relay, &unknown).await, "wrong-secret");
    let nonsense = EnrolRequest { secret: "'; DROP TABLE tokens; --".into(), ..good.clone() };
    assert_eq!(refused(&relay, &nonsense).await, "wrong-secret");

    let ended = Secret::from_bytes([8; 20]);
    let expired = NewToken {
        digest: ended.digest(),
        expires: UnixTime(clock::now().0 - 1),
        uses: 1,
        pattern: None,
        labels: [].into(),
    };
    relay.store.create_token(expired, relay.admin, relay.address).await.unwrap();
    let expired = EnrolRequest { secret: ended.to_hex(), ..good.clone() };
    assert_eq!(refused(&relay, &expired).await, "token-expired");

    for name in ["bergen-1", "Oslo-1", "a b", "oslo-0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e-"] {
        let named = EnrolRequest { name: Some(name.into()), ..good.clone() };
        assert_eq!(refused(&relay, &named).await, "name-refused", "{name}");
    }
    let by_hostname = EnrolRequest { name: None, ..good.clone() };
    assert_eq!(refused(&relay, &by_hostname).await, "name-refused");

    let no_proof = EnrolRequest { csr: "not a request".into(), ..good.clone() };
    assert_eq!(refused(&relay, &no_proof).await, "bad-request");
    let old_key = EnrolRequest { ssh_host_key: "ssh-rsa AAAA".into(), ..good.clone() };
    assert_eq!(refused(&relay, &old_key).await, "bad-request");

    assert_eq!(enrol(&relay, &good).await.status, 200, "none of that used the token up");
    let clash = request(&token, &TlsKey::generate().unwrap());
    let clash = EnrolRequest { name: Some("oslo-1".into()), ..clash };
    assert_eq!(refused(&relay, &clash).await, "name-refused");
    let second = relay.token(json!({"lives_s": 3600, "uses": 9})).await;
    let twice = EnrolRequest { name: Some("twice".into()), ..request(&second, &key) };
    assert_eq!(refused(&relay, &twice).await, "bad-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_says_1970_enrols_and_is_told_the_time() {
    let relay = Relay::start().await;
    let token = relay.token(json!({"lives_s": 3600, "uses": 1})).await;
    let key = TlsKey::generate().unwrap();
    let asked = EnrolRequest { clock: UnixTime(7), ..request(&token, &key) };
    let answer: EnrolAnswer = enrol(&relay, &asked).await.json();
    assert!(answer.clock.distance(clock::now()).as_secs() < 60);
    let detail = relay.last("enrolled").await.detail.unwrap();
    assert!(detail.contains("days behind"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_says_of_itself_is_kept_harmless() {
    let relay = Relay::start().await;
    let token = relay.token(json!({"lives_s": 3600, "uses": 1})).await;
    let key = TlsKey::generate().unwrap();
    let asked = EnrolRequest {
        hostname: "\u{1b}]0;pwned\u{7}<script>\u{202e}".into(),
        platform: "x".repeat(5000),
        ..request(&token, &key)
    };
    let answer: EnrolAnswer = enrol(&relay, &asked).await.json();
    let listed = relay.get(&relay.admin(), "/v1/devices").await;
    assert!(!listed.body.contains("\\u001b") && !listed.body.contains('\u{202e}'), "{listed:?}");
    let record = relay.store.device_by_id(answer.device).await.unwrap().unwrap();
    assert_eq!(record.platform.len(), 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_tokens_is_slowed_down_and_others_are_not() {
    let relay = Relay::start_with("enrol_per_source_per_minute = 30\n").await;
    let key = TlsKey::generate().unwrap();
    let token = relay.token(json!({"lives_s": 3600, "uses": 1})).await;
    let guess =
        EnrolRequest { secret: Secret::from_bytes([1; 20]).to_hex(), ..request(&token, &key) };
    let mut busy = 0;
    for _ in 0..20 {
        let answer = enrol(&relay, &guess).await;
        busy += u32::from(answer.status == 429 && answer.code() == "busy");
    }
    assert!(busy >= 10, "{busy}");
    let body = serde_json::to_string(&request(&token, &key)).unwrap();
    let from = "127.0.9.1".parse().unwrap();
    let stream = relay.connect_from(&relay.nobody(), from).await.unwrap();
    let answer = crate::support::exchange(stream, "POST", "/v1/enrol", Some(&body), "").await;
    assert_eq!(answer.unwrap().status, 200, "another source");
}
