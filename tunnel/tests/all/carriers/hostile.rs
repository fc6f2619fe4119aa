//! What a relay hears over WebSocket from peers that mean harm, or have gone.

use std::net::SocketAddr;
use std::time::Duration;

use belay_tunnel::carrier::{Carrier, ResetCode, websocket};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::rig::within;

/// A relay's carrier, and the raw other end of its WebSocket.
async fn relay() -> (Carrier, WebSocketStream<DuplexStream>, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let peer = SocketAddr::from(([192, 0, 2, 1], 4));
    let (carrier, driver) = websocket::accepted(ours, Vec::new(), peer, None).await;
    let raw = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (carrier, raw, tokio::spawn(driver))
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(stream.to_be_bytes());
    frame.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

#[tokio::test]
async fn what_is_no_row_of_frames_ends_the_carrier_and_is_told() {
    let garbage: Vec<Message> = vec![
        Message::Binary(vec![0xff; 300].into()),
        Message::Binary(vec![0, 0].into()),
        Message::Text("hello".into()),
        Message::Binary(data(4, b"a third stream").into()),
        Message::Binary(vec![0; 64 * 1024 + 1].into()),
    ];
    for message in garbage {
        let (carrier, mut raw, driver) = relay().await;
        raw.send(message).await.unwrap();
        let end = within(carrier.closed()).await;
        assert!(end.to_string().contains("broke the protocol"), "{end}");
        let mut told = false;
        while let Some(Ok(message)) = within(raw.next()).await {
            // A goodbye with code PROTOCOL.
            told |= message.into_data().starts_with(&[7, 0, 0, 0, 2]);
        }
        assert!(told, "{end}");
        drop(raw);
        within(driver).await.unwrap();
    }
}

#[tokio::test]
async fn a_stranger_is_heard_up_to_its_share_and_no_further() {
    let (carrier, mut raw, _driver) = relay().await;
    let block = data(0, &[1; 16 * 1024]);
    let mut sent = 0;
    while tokio::time::timeout(
        Duration::from_millis(300),
        raw.send(Message::Binary(block.clone().into())),
    )
    .await
    .is_ok_and(|sent| sent.is_ok())
    {
        sent += block.len();
        assert!(sent < 1 << 20, "nothing holds a stranger back");
    }
    assert!(carrier.end().is_none());
    let (_, received) = carrier.bytes();
    assert!((160 * 1024..192 * 1024).contains(&received), "{received}");
}

#[tokio::test]
async fn a_peer_that_never_reads_does_not_keep_a_closed_carrier() {
    let (carrier, raw, driver) = relay().await;
    carrier.close(ResetCode(1), "enough");
    let began = std::time::Instant::now();
    within(driver).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(raw);
}

#[tokio::test]
async fn a_connection_cut_without_a_word_ends_the_carrier_at_once() {
    let (carrier, raw, driver) = relay().await;
    drop(raw);
    let end = within(carrier.closed()).await;
    assert!(end.closed_by_peer() && end.peer_said().is_none(), "{end}");
    within(driver).await.unwrap();
}
