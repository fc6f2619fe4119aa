//! Lines over the HTTPS port: who is let through, and that it is the same line.
#![allow(clippy::unwrap_used, reason = "tests")]

use belay_proto::version;
use belay_proto::wire::control::{Hello, HelloAnswer};
use belay_tunnel::carrier::picker::{self, Choice, Kind, Wanted};
use belay_tunnel::carrier::quic::Role;
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf};
use belay_tunnel::proxy::Proxies;
use belay_tunnel::{clock, framed};
use rustls::ClientConfig;

use crate::support::Relay;

fn wanted(relay: &Relay, tls: ClientConfig) -> Wanted {
    Wanted {
        relay: relay.address.to_string().parse().unwrap(),
        tls,
        role: Role::Client,
        choice: Choice::Only(Kind::WebSocket),
        proxies: Proxies::none(),
        history: std::sync::Arc::default(),
        look_every: belay_tunnel::carrier::picker::LOOK_EVERY,
    }
}

async fn line(relay: &Relay) -> Carrier {
    let tls = ClientConfig::clone(&relay.admin());
    let dialled = picker::dial(&wanted(relay, tls)).await.unwrap();
    assert_eq!(dialled.kind, Kind::WebSocket);
    dialled.carrier
}

async fn greet(carrier: &Carrier) -> (HelloAnswer, SendHalf, RecvHalf) {
    let (mut send, mut recv) = carrier.open().await.unwrap();
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        ..Hello::default()
    };
    framed::write(&mut send, &hello).await.unwrap();
    let answer = framed::read(&mut recv).await.unwrap();
    (answer, send, recv)
}

#[tokio::test]
async fn a_person_is_welcomed_over_the_https_port_and_stays() {
    let relay = Relay::start().await;
    let carrier = line(&relay).await;
    let (answer, _send, _recv) = greet(&carrier).await;
    assert!(answer.welcome.is_some(), "{answer:?}");
    // Admitted: more streams than a stranger may have.
    for _ in 0..3 {
        carrier.open().await.unwrap();
    }
    assert!(carrier.end().is_none());
}

#[tokio::test]
async fn who_shows_no_certificate_gets_no_line() {
    let relay = Relay::start().await;
    let tls = ClientConfig::clone(&relay.nobody());
    let unreached = picker::dial(&wanted(&relay, tls)).await.unwrap_err();
    assert!(unreached.cause.contains("401"), "{unreached}");
}

#[tokio::test]
async fn strangers_over_the_https_port_have_as_many_places_as_over_quic() {
    let relay = Relay::start_with("quic_strangers_per_source = 2\n").await;
    let (first, _second) = (line(&relay).await, line(&relay).await);
    let tls = ClientConfig::clone(&relay.admin());
    let unreached = picker::dial(&wanted(&relay, tls.clone())).await.unwrap_err();
    assert_eq!(unreached.token, "relay-busy", "{unreached}");
    // Who is admitted leaves its place to others.
    let (answer, _send, _recv) = greet(&first).await;
    assert!(answer.welcome.is_some());
    picker::dial(&wanted(&relay, tls)).await.unwrap();
}
