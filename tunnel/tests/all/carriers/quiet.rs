//! Lines at rest: the octet that keeps a mapping, and the reset that nobody asked for.

use std::net::SocketAddr;

use belay_proto::version::ALPN;
use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::quic::{self, Dialler, LineId, Resets, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::{Trust, within};

/// A device's line; the relay's end of it, its id there, and where the device is.
struct Line {
    device: Carrier,
    relay: Carrier,
    id: LineId,
    from: SocketAddr,
    resets: Resets,
    _relay: quinn::Endpoint,
}

async fn line() -> Line {
    let trust = Trust::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let (endpoint, resets) = quic::listen(any, trust.server(ALPN), 64, &[7; 64]).unwrap();
    let address = endpoint.local_addr().unwrap();
    let dialler = Dialler::new(Role::Device, trust.client(), address).unwrap();
    let accept = async {
        let (connecting, id) = quic::accept(endpoint.accept().await.unwrap()).unwrap();
        (connecting.await.unwrap(), id.unwrap())
    };
    let both = async { tokio::join!(dialler.dial(address, "127.0.0.1"), accept) };
    let (device, (connection, id)) = within(both).await;
    let from = connection.remote_address();
    let relay = quic::accepted(connection);
    Line { device: device.unwrap(), relay, id, from, resets, _relay: endpoint }
}

/// A word from the device to the relay and back.
async fn speaks(line: &Line) {
    let (mut send, mut recv) = line.device.open().await.unwrap();
    send.write_all(b"there?").await.unwrap();
    let (mut back, mut heard) = within(line.relay.accept()).await.unwrap();
    let mut word = [0; 6];
    within(heard.read_exact(&mut word)).await.unwrap();
    back.write_all(&word).await.unwrap();
    within(recv.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"there?");
}

#[tokio::test]
async fn a_line_at_rest_hears_from_a_restarted_relay_without_having_spoken() {
    let line = line().await;
    let LineId(id) = line.id;
    line.resets.send(line.from, LineId(id.map(|byte| byte ^ 1))).unwrap();
    speaks(&line).await;
    assert!(line.device.end().is_none(), "another connection's reset is nothing to it");
    line.resets.send(line.from, line.id).unwrap();
    within(line.device.closed()).await;
}

#[tokio::test]
async fn the_octet_that_keeps_a_mapping_is_passed_over() {
    let line = line().await;
    speaks(&line).await;
    for _ in 0..100 {
        line.device.keep_mapping();
    }
    speaks(&line).await;
    assert!(line.device.end().is_none() && line.relay.end().is_none());
    let wire = line.relay.wire_bytes();
    let (sent, received) = line.relay.bytes();
    assert!(wire >= sent + received + 2 * 28, "headers are counted: {wire}");
}
