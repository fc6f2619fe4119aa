//! Bounds on what anybody can make the HTTPS listener hold.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use belay_proto::api::MAX_BODY;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::support::{Relay, read_answer};

/// Longer than the listener's own deadlines of ten seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether the other end closes within the patience.
async fn closes(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match timeout(PATIENCE, stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused_declared_or_not() {
    let relay = Relay::start().await;
    let big = "x".repeat(MAX_BODY + 1);
    let answer = relay.ask(&relay.admin(), "POST", "/v1/users", Some(&big), "").await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "bad-request"));
    let mut stream = relay.connect(&relay.admin()).await.unwrap();
    let head = "POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("4000\r\n{}\r\n", "y".repeat(0x4000));
    for _ in 0..5 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.flush().await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!(answer.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_head_is_cut_off() {
    let relay = Relay::start().await;
    let mut stream = relay.connect(&relay.nobody()).await.unwrap();
    stream.write_all(b"GET /v1/whoami HTTP/1.1\r\n").await.unwrap();
    let header = format!("x: {}\r\n", "z".repeat(1000));
    let mut sent = 0;
    while sent < 10_000_000 {
        if stream.write_all(header.as_bytes()).await.is_err() {
            break;
        }
        sent += header.len();
    }
    assert!(sent < 10_000_000, "it read {sent} bytes of one head");
    assert_eq!(relay.get(&relay.admin(), "/v1/whoami").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_never_speak_hold_a_bounded_number_of_places_for_a_bounded_time() {
    let relay = Relay::start_with("https_connections_per_source = 8\n").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(relay.tcp_from("127.0.0.1".parse().unwrap()).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(relay.get(&relay.admin(), "/v1/whoami").await.status, 200, "who asks gets in");
    let oldest = timeout(Duration::from_secs(2), closes(silent.first_mut().unwrap())).await;
    assert_eq!(oldest, Ok(true), "the oldest of the silent made room");
    let other = relay.connect_from(&relay.admin(), "127.0.0.2".parse().unwrap()).await.unwrap();
    let answer = crate::support::exchange(other, "GET", "/v1/whoami", None, "").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "others do not notice");
    for stream in &mut silent {
        assert!(closes(stream).await, "the silent are let go");
    }
    // A place is free a moment after its connection was seen to close.
    let again = async {
        while relay.ask(&relay.admin(), "GET", "/v1/whoami", None, "").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(Duration::from_secs(2), again).await, Ok(()), "their places are free");
    let recorded = relay.eventually("peer-refused").await;
    assert_eq!(recorded.code.as_deref(), Some("protocol"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_total_of_connections_is_bounded_and_the_next_waits_its_turn() {
    let relay = Relay::start_with("https_connections = 4\nhttps_handshakes = 2\n").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(relay.connect(&relay.admin()).await.unwrap());
    }
    let admin = relay.admin();
    let fifth = relay.ask(&admin, "GET", "/v1/whoami", None, "");
    tokio::pin!(fifth);
    assert!(timeout(Duration::from_millis(700), fifth.as_mut()).await.is_err(), "no fifth");
    drop(held.pop());
    let answer = timeout(Duration::from_secs(5), fifth).await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_and_a_body_that_stops_are_cut() {
    let relay = Relay::start().await;
    let mut head = relay.connect(&relay.nobody()).await.unwrap();
    head.write_all(b"GET /v1/whoami HTT").await.unwrap();
    let (mut tcp, _) = head.into_inner();
    let mut idle = relay.connect(&relay.nobody()).await.unwrap();
    idle.flush().await.unwrap();
    let (mut idle, _) = idle.into_inner();
    let (a, b) = tokio::join!(closes(&mut tcp), closes(&mut idle));
    assert!(a && b, "a half head and an idle connection both end");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_and_old_tls_leave_the_relay_as_it_was() {
    let relay = Relay::start().await;
    let mut noise = vec![0; 4096];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    for bytes in [
        noise.as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut tcp = relay.tcp_from("127.0.0.1".parse().unwrap()).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert!(closes(&mut tcp).await);
    }
    assert_eq!(relay.get(&relay.admin(), "/v1/whoami").await.status, 200);
    assert_eq!(relay.eventually("peer-refused").await.code.as_deref(), Some("protocol"));
}

/// Sends a request's head, and returns once its handler waits for the body.
async fn begin_request(stream: &mut TlsStream<TcpStream>, length: usize) {
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    timeout(PATIENCE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "{go_on:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_takes_nothing_new_and_cuts_nothing_in_flight() {
    let relay = Relay::start().await;
    let mut stream = relay.connect(&relay.admin()).await.unwrap();
    let body = r#"{"lives_s": 600, "uses": 1}"#;
    begin_request(&mut stream, body.len()).await;
    relay.stop.cancel();
    let closed = async {
        while relay.tcp_from("127.0.0.1".parse().unwrap()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(Duration::from_secs(2), closed).await, Ok(()), "the port is closed");
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    timeout(Duration::from_secs(5), relay.served).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    let relay = Relay::start_with("drain_seconds = 1\n").await;
    let mut stream = relay.connect(&relay.admin()).await.unwrap();
    begin_request(&mut stream, 10).await;
    relay.stop.cancel();
    timeout(Duration::from_secs(5), relay.served).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_leaves_few_records_and_is_counted() {
    let relay = Relay::start().await;
    for _ in 0..200 {
        assert_eq!(relay.get(&relay.nobody(), "/v1/whoami").await.status, 401);
    }
    let records = relay.decisions().await;
    let refused = records.iter().filter(|d| d.kind == "request-refused").count();
    assert!((1..=60).contains(&refused), "{refused}");
    let at_once = CancellationToken::new();
    at_once.cancel();
    relay.strangers.sum_up(at_once).await;
    let sum = relay.last("suppressed").await.detail.unwrap();
    assert!(sum.starts_with(&format!("{} refusals", 200 - refused)), "{sum}");
}
