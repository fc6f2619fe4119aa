#![allow(clippy::unwrap_used, reason = "tests")]
use std::net::SocketAddr;

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const DEAD: Duration = Duration::from_millis(600);

/// One end, and the raw other end.
async fn end(
    side: Side,
    pace: Pace,
) -> (Multiplexed, WebSocketStream<DuplexStream>, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (here, there) = match side {
        Side::Dialler => (Role::Client, Role::Server),
        Side::Acceptor => (Role::Server, Role::Client),
    };
    let socket = WebSocketStream::from_raw_socket(ours, here, None).await;
    let raw = WebSocketStream::from_raw_socket(theirs, there, None).await;
    let address = SocketAddr::from(([192, 0, 2, 1], 4));
    let peer = Peer { address, certificate: None, streams: 2, stranger: false };
    let (carrier, driver) = Driver::new(side, peer, socket, pace, Duration::ZERO);
    (carrier, raw, tokio::spawn(driver))
}

const QUIET: Pace = Pace { dead: DEAD, ask: None, ask_when_waiting: DEAD };

#[tokio::test]
async fn a_peer_that_vanished_is_noticed_in_time_and_the_task_ends() {
    let (carrier, raw, driver) = end(Side::Acceptor, QUIET).await;
    let began = Instant::now();
    assert_eq!(carrier.closed().await, End::Silent);
    assert!(began.elapsed() >= DEAD && began.elapsed() < DEAD * 3, "{:?}", began.elapsed());
    timeout(GOODBYE * 2, driver).await.unwrap().unwrap();
    drop(raw);
}

#[tokio::test]
async fn a_peer_that_asks_keeps_a_quiet_carrier() {
    let (carrier, mut raw, _driver) = end(Side::Acceptor, QUIET).await;
    for round in 0..8_u8 {
        sleep(DEAD / 3).await;
        raw.send(Message::Ping(vec![round].into())).await.unwrap();
        let pong = Message::Pong(vec![round].into());
        while raw.next().await.unwrap().unwrap() != pong {}
    }
    assert_eq!(carrier.end(), None);
}

#[tokio::test]
async fn a_dialler_asks_on_a_quiet_carrier_again_and_again() {
    let pace = Pace { dead: DEAD, ask: Some(DEAD / 4), ask_when_waiting: DEAD / 4 };
    let (carrier, mut raw, _driver) = end(Side::Dialler, pace).await;
    let mut asked = 0;
    let until = Instant::now() + DEAD * 3;
    while let Ok(message) = tokio::time::timeout_at(until, raw.next()).await {
        // Reading answers it.
        asked += usize::from(message.unwrap().unwrap().is_ping());
    }
    assert!((6..=13).contains(&asked), "{asked} questions in twelve quarters");
    assert_eq!(carrier.end(), None);
    assert!(carrier.round_trip() < DEAD);
}

#[tokio::test]
async fn what_is_sent_and_not_answered_makes_a_dialler_ask_soon() {
    let pace = Pace {
        dead: Duration::from_secs(600),
        ask: Some(Duration::from_secs(300)),
        ask_when_waiting: Duration::from_millis(50),
    };
    let (carrier, mut raw, _driver) = end(Side::Dialler, pace).await;
    // The first words, about streams, are answered and make it quiet.
    raw.send(Message::Binary(vec![6, 0, 0, 0, 9].into())).await.unwrap();
    let (send, _recv) = carrier.open().await.unwrap();
    let (_, heard) = carrier.bytes();
    send.send(Bytes::from_static(b"key")).await.unwrap();
    let asked = async { while !raw.next().await.unwrap().unwrap().is_ping() {} };
    timeout(Duration::from_secs(5), asked).await.unwrap();
    raw.flush().await.unwrap();
    let answered = async {
        while carrier.bytes().1 == heard {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), answered).await.unwrap();
}
