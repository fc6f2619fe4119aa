//! What both carriers do alike. Each test runs over QUIC and over WebSocket.

use std::time::{Duration, Instant};

use belay_tunnel::carrier::picker::Kind;
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf, StreamError, splice};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::rig::{Rig, within};

macro_rules! over_both {
    ($($name:ident)*) => { $(
        mod $name {
            use super::Kind;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_quic() {
                super::within(super::$name(Kind::Quic)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_websocket() {
                super::within(super::$name(Kind::WebSocket)).await;
            }
        }
    )* };
}

over_both! {
    an_end_of_one_direction_leaves_the_other_open
    a_reset_and_a_stop_carry_their_codes
    a_dropped_half_is_no_clean_end
    a_writer_hears_that_all_was_taken
    a_stopped_reader_harms_no_neighbour
    a_reader_that_stops_stops_the_writer_through_a_splice
    the_reason_of_a_close_reaches_the_peer
    the_last_handle_dropped_ends_the_carrier
    ten_thousand_streams_come_and_go
    an_open_waits_for_the_peers_limit
    a_large_transfer_arrives_as_it_was_sent
}

/// A stream's two ends.
async fn stream(a: &Carrier, b: &Carrier) -> ((SendHalf, RecvHalf), (SendHalf, RecvHalf)) {
    let mut ours = a.open().await.unwrap();
    ours.0.send(Bytes::from_static(b"!")).await.unwrap();
    let mut theirs = b.accept().await.unwrap();
    assert_eq!(theirs.1.read_u8().await.unwrap(), b'!');
    (ours, theirs)
}

async fn an_end_of_one_direction_leaves_the_other_open(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    for (a, b) in [(&dialler, &relay), (&relay, &dialler)] {
        let ((mut send, mut recv), (mut back, mut there)) = stream(a, b).await;
        send.send(Bytes::from_static(b"question")).await.unwrap();
        send.finish();
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        back.write_all(b"answer").await.unwrap();
        back.shutdown().await.unwrap();
        let mut heard = String::new();
        recv.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
    }
}

async fn a_reset_and_a_stop_carry_their_codes(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    for (a, b) in [(&dialler, &relay), (&relay, &dialler)] {
        let ((mut send, mut recv), (back, mut there)) = stream(a, b).await;
        send.reset(ResetCode(41));
        let mut place = [Bytes::new()];
        let error = there.receive(&mut place).await.unwrap_err();
        assert_eq!(error, StreamError::Reset(ResetCode(41)));
        recv.stop(ResetCode(42));
        assert_eq!(back.stopped().await, Err(StreamError::Reset(ResetCode(42))));
        let mut back = back;
        let error = back.send(Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error, StreamError::Reset(ResetCode(42)));
    }
}

async fn a_dropped_half_is_no_clean_end(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let ((send, recv), (back, mut there)) = stream(&dialler, &relay).await;
    drop(send);
    let error = there.receive(&mut [Bytes::new()]).await.unwrap_err();
    assert_eq!(error, StreamError::Reset(ResetCode::GONE));
    drop(recv);
    assert_eq!(back.stopped().await, Err(StreamError::Reset(ResetCode::DONE)));
}

async fn a_writer_hears_that_all_was_taken(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let ((mut send, _recv), (_back, mut there)) = stream(&dialler, &relay).await;
    send.send(Bytes::from(vec![5; 100_000])).await.unwrap();
    send.finish();
    let mut got = Vec::new();
    there.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), 100_000);
    assert_eq!(send.stopped().await, Ok(()));
}

async fn fill(send: &mut SendHalf, piece: &Bytes) -> usize {
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(300), send.send(piece.clone())).await.is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "nothing holds the writer");
    }
    sent
}

async fn a_stopped_reader_harms_no_neighbour(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let ((mut stuck, _r1), (_s1, mut unread)) = stream(&dialler, &relay).await;
    let ((mut send, _r2), (_s2, mut there)) = stream(&dialler, &relay).await;
    let piece = Bytes::from(vec![3; 64 * 1024]);
    let held = fill(&mut stuck, &piece).await;
    let writer = tokio::spawn(async move {
        for _ in 0..1024 {
            send.send(piece.clone()).await.unwrap();
        }
        send.finish();
        send
    });
    let mut got = 0;
    let mut places = [const { Bytes::new() }; 32];
    while let Some(count) = there.receive(&mut places).await.unwrap() {
        got += places[..count].iter().map(Bytes::len).sum::<usize>();
    }
    assert_eq!(got, 64 << 20);
    drop(writer.await.unwrap());
    // What was held back goes on when its reader does.
    stuck.finish();
    let mut rest = Vec::new();
    unread.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() >= held, "{} of {held}", rest.len());
}

async fn a_reader_that_stops_stops_the_writer_through_a_splice(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let ((send, _r1), (_s1, from)) = stream(&dialler, &relay).await;
    let ((to, _r2), (_s2, mut reader)) = stream(&relay, &dialler).await;
    let splicing = tokio::spawn(splice(from, to, |_| {}));
    reader.stop(ResetCode(9));
    // The writer has nothing to say and hears of it all the same.
    assert_eq!(send.stopped().await, Err(StreamError::Reset(ResetCode(9))));
    assert_eq!(splicing.await.unwrap(), Err(StreamError::Reset(ResetCode(9))));
}

async fn the_reason_of_a_close_reaches_the_peer(kind: Kind) {
    for from_relay in [true, false] {
        let (dialler, relay, _rig) = Rig::pair(kind).await;
        let (closer, other) = if from_relay { (&relay, &dialler) } else { (&dialler, &relay) };
        let ((_s, mut recv), _theirs) = stream(other, closer).await;
        closer.close(ResetCode(77), "wartung\nab 22 Uhr");
        let end = other.closed().await;
        let (code, said) = end.peer_said().unwrap();
        assert_eq!(code, ResetCode(77));
        assert!(said.starts_with("wartung") && !said.contains('\n'), "{said:?}");
        assert!(end.closed_by_peer() && !end.is_timeout());
        assert_eq!(recv.receive(&mut [Bytes::new()]).await, Err(StreamError::Carrier));
        assert!(other.open().await.is_err() && other.accept().await.is_err());
        assert!(closer.end().is_some() && other.end().is_some());
    }
}

async fn the_last_handle_dropped_ends_the_carrier(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let (ours, theirs) = stream(&dialler, &relay).await;
    drop(dialler);
    assert!(relay.end().is_none(), "a stream keeps its carrier");
    drop((ours, theirs));
    assert_eq!(relay.closed().await.peer_said().unwrap().0, ResetCode::DONE);
}

async fn ten_thousand_streams_come_and_go(kind: Kind) {
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let answering = tokio::spawn(async move {
        let mut answers = JoinSet::new();
        while let Ok((mut send, mut recv)) = relay.accept().await {
            answers.spawn(async move {
                let asked = recv.read_u32().await.unwrap();
                send.write_u32(asked + 1).await.unwrap();
                send.finish();
            });
            while answers.try_join_next().is_some() {}
        }
    });
    let mut early = 0;
    for number in 0..10_000_u32 {
        let (mut send, mut recv) = dialler.open().await.unwrap();
        send.write_u32(number).await.unwrap();
        send.finish();
        assert_eq!(recv.read_u32().await.unwrap(), number + 1);
        if number == 1_000 {
            early = resident();
        }
    }
    let grown = resident().saturating_sub(early);
    assert!(grown < 16 << 20, "9,000 streams left {grown} bytes behind");
    drop(dialler);
    answering.await.unwrap();
}

/// This process's resident memory, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn an_open_waits_for_the_peers_limit(kind: Kind) {
    let mut rig = Rig::new().await;
    let choice = belay_tunnel::carrier::picker::Choice::Only(kind);
    let wanted = belay_tunnel::carrier::picker::Wanted { choice, ..rig.wanted() };
    let dialler = belay_tunnel::carrier::picker::dial(&wanted).await.unwrap().carrier;
    let relay = rig.accepted().await;
    let _two = (dialler.open().await.unwrap(), dialler.open().await.unwrap());
    let third = tokio::time::timeout(Duration::from_millis(200), dialler.open()).await;
    assert!(third.is_err(), "a stranger opens two streams");
    relay.admit(3, u32::MAX);
    dialler.open().await.unwrap();
}

async fn a_large_transfer_arrives_as_it_was_sent(kind: Kind) {
    const ALL: usize = 256 << 20;
    let (dialler, relay, _rig) = Rig::pair(kind).await;
    let ((mut send, _r), (_s, mut there)) = stream(&dialler, &relay).await;
    let block: Bytes = (0..251_u8).cycle().take(251 * 522).collect();
    let sent = block.clone();
    let began = Instant::now();
    let writer = tokio::spawn(async move {
        let mut left = ALL;
        while left > 0 {
            let piece = sent.slice(..sent.len().min(left));
            left -= piece.len();
            send.send(piece).await.unwrap();
        }
        send.finish();
        send.stopped().await.unwrap();
    });
    let mut at = 0;
    let mut places = [const { Bytes::new() }; 64];
    while let Some(count) = there.receive(&mut places).await.unwrap() {
        for piece in &places[..count] {
            // The block is a whole number of periods, so every place has one right byte.
            for part in piece.chunks(block.len() - 251) {
                let shift = at % 251;
                assert!(*part == block[shift..shift + part.len()], "wrong bytes at {at}");
                at += part.len();
            }
        }
    }
    assert_eq!(at, ALL);
    writer.await.unwrap();
    let rate = ALL as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("{kind}: {rate:.0} MB/s");
}
