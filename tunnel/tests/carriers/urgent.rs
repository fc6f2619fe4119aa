//! A stream that sends little beside many that fill the line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belay_tunnel::carrier::SendHalf;
use belay_tunnel::carrier::picker::Kind;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::rig::{Rig, within};
use crate::thin::Thin;

const TRANSFERS: usize = 30;

const KEYS: usize = 20;

/// Bytes of the transfers that arrive while a key is on its way: the middle of many keys, for only
/// the line's own queue is meant to be before it, whatever that is at the moment.
async fn before_a_key(kind: Kind) -> u64 {
    let rig = Rig::new().await;
    let thin = Thin::before(rig.address, kind).await;
    let (dialler, relay, _rig) = rig.pair_through(kind, thin.address).await;
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let mut opened = Vec::new();
    for _ in 0..TRANSFERS {
        let (mut send, recv) = dialler.open().await.unwrap();
        send.send(Bytes::from_static(b"!")).await.unwrap();
        let (back, mut there) = relay.accept().await.unwrap();
        let arrived = Arc::clone(&arrived);
        tasks.spawn(async move {
            let mut pieces = [const { Bytes::new() }; 16];
            while let Ok(Some(count)) = there.receive(&mut pieces).await {
                let bytes: usize = pieces[..count].iter().map(Bytes::len).sum();
                arrived.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        });
        opened.push((send, recv, back));
    }
    let (mut typing, _back) = dialler.open().await.unwrap();
    typing.send(Bytes::from_static(b"!")).await.unwrap();
    let (_send, mut typed) = relay.accept().await.unwrap();
    typed.read_u8().await.unwrap();
    let mut held = Vec::new();
    for (send, recv, back) in opened {
        tasks.spawn(fill(send));
        held.push((recv, back));
    }
    // Past what each is given while it counts as one that sends little.
    let full = (TRANSFERS * 96 * 1024) as u64;
    while arrived.load(Ordering::Relaxed) < full {
        tokio::task::yield_now().await;
    }
    let mut all = Vec::new();
    for _ in 0..KEYS {
        let before = arrived.load(Ordering::Relaxed);
        typing.send(Bytes::from_static(b"k")).await.unwrap();
        typed.read_u8().await.unwrap();
        all.push(arrived.load(Ordering::Relaxed) - before);
    }
    all.sort_unstable();
    println!("{kind:?}: {} bytes before a key, at most {}", all[KEYS / 2], all[KEYS - 1]);
    all[KEYS / 2]
}

async fn fill(mut send: SendHalf) {
    let piece = Bytes::from(vec![7; 64 * 1024]);
    while send.send(piece.clone()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_waits_for_no_transfer_over_quic() {
    let waited = within(before_a_key(Kind::Quic)).await;
    // A packet of each transfer would be 42,000 more.
    assert!(waited < 35_000, "{waited} bytes went first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_waits_for_no_transfer_over_websocket() {
    let waited = within(before_a_key(Kind::WebSocket)).await;
    // What stands in the kernel and in one message goes first in any case; a turn of each transfer
    // would be 491,000 more.
    assert!(waited < 400_000, "{waited} bytes went first");
}
