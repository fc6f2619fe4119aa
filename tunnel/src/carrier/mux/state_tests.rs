#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::super::stream::FIRST_WINDOW;
use super::*;

/// Both ends, with what is between them.
struct Pair(State, State);

impl Pair {
    fn new(device_streams: u32) -> Self {
        let dialler = State::new(Side::Dialler, device_streams, false);
        Self(dialler, State::new(Side::Acceptor, 0, true))
    }

    /// Passes messages until both are quiet.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(message) = self.0.poll_message() {
                self.1.handle_message(&message).unwrap();
                moved = true;
            }
            while let Some(message) = self.1.poll_message() {
                self.0.handle_message(&message).unwrap();
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }
}

fn message(frames: &[Frame<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    for frame in frames {
        frame.encode(&mut out);
    }
    out
}

#[test]
fn a_stranger_opens_two_streams_and_an_admitted_peer_more() {
    let mut pair = Pair::new(0);
    pair.settle();
    assert!(pair.0.open().is_some() && pair.0.open().is_some());
    assert_eq!(pair.0.open(), None);
    assert_eq!(pair.1.open(), None, "the dialler lets nobody open");
    pair.1.admit(5);
    pair.settle();
    assert_eq!((0..9).map_while(|_| pair.0.open()).count(), 3);
}

#[test]
fn who_goes_past_a_bound_is_cut_off() {
    let data = vec![7; 60_000];
    let too_much: Vec<_> = std::iter::repeat_n(Frame::Data(0, &data), 5).collect();
    let cases: [&[Frame<'_>]; 8] = [
        &[Frame::Data(4, b"x")],
        &[Frame::Data(1, b"x")],
        &too_much,
        &[Frame::Fin(0), Frame::Data(0, b"x")],
        &[Frame::Fin(0), Frame::Fin(0)],
        &[Frame::Reset(0, ResetCode(1)), Frame::Reset(0, ResetCode(1))],
        &[Frame::Credit(0, MAX_CREDIT)],
        &[Frame::Stop(3, ResetCode(0))],
    ];
    for frames in cases {
        let mut relay = State::new(Side::Acceptor, 0, true);
        relay.handle_message(&message(frames)).unwrap_err();
    }
}

#[test]
fn a_stranger_that_sends_its_share_is_not_heard_until_it_is_admitted() {
    let mut relay = State::new(Side::Acceptor, 0, true);
    let data = vec![7; 60_000];
    for heard in [true, true, false] {
        relay.handle_message(&message(&[Frame::Data(0, &data)])).unwrap();
        assert_eq!(relay.may_receive(), heard);
    }
    relay.admit(8);
    assert!(relay.may_receive());
}

#[test]
fn ended_streams_leave_nothing_behind() {
    let mut pair = Pair::new(0);
    pair.1.admit(4);
    for round in 0..1000_u32 {
        let id = pair.0.open().unwrap();
        pair.0.push(id, Bytes::from_static(b"question"));
        match round % 4 {
            0 => pair.0.finish(id),
            1 => pair.0.reset(id, ResetCode(1)),
            2 => pair.0.stop(id, ResetCode(2)),
            _ => {}
        }
        pair.settle();
        let there = pair.1.accept().unwrap();
        assert_eq!(there, id);
        match round % 3 {
            0 => pair.1.finish(id),
            1 => pair.1.reset(id, ResetCode(3)),
            _ => pair.1.stop(id, ResetCode(4)),
        }
        pair.settle();
        for end in [&mut pair.0, &mut pair.1] {
            end.reset(id, ResetCode(9));
            end.stop(id, ResetCode(9));
            end.let_go(id, |stream| stream.send_held = false);
            end.let_go(id, |stream| stream.recv_held = false);
        }
        pair.settle();
        for end in [&pair.0, &pair.1] {
            assert!(end.streams.is_empty(), "round {round}: {:?}", end.streams);
            assert!(end.due.is_empty() && end.accept.is_empty());
            assert!(end.row.is_empty());
        }
    }
}

#[test]
fn a_stopped_reader_holds_its_own_stream_only() {
    let mut pair = Pair::new(0);
    pair.1.admit(4);
    let (stopped, moving) = (pair.0.open().unwrap(), pair.0.open().unwrap());
    let block = Bytes::from(vec![1; 64 * 1024]);
    for _ in 0..64 {
        pair.0.push(stopped, block.clone());
        pair.0.push(moving, block.clone());
        pair.settle();
        while pair.1.take(moving, usize::MAX).is_some() {}
        pair.settle();
    }
    assert_eq!(pair.0.streams[&moving].out_length, 0);
    assert_eq!(pair.1.streams[&stopped].inbox.length(), FIRST_WINDOW as usize);
    assert!(pair.1.streams[&moving].allowed > FIRST_WINDOW, "its window grew");
}

#[test]
fn a_key_waits_for_one_message_and_a_turn_of_each_other_stream() {
    let mut pair = Pair::new(0);
    pair.1.admit(5);
    pair.settle();
    let bulk: Vec<_> = (0..4).map(|_| pair.0.open().unwrap()).collect();
    let typed = pair.0.open().unwrap();
    for id in &bulk {
        pair.0.push(*id, vec![1; 200_000].into());
    }
    pair.0.poll_message().unwrap();
    pair.0.push(typed, Bytes::from_static(b"key"));
    let mut before = 0;
    while let Some(message) = pair.0.poll_message() {
        let mut rest = &message[..];
        while let Some(frame) = Frame::decode(&mut rest).unwrap() {
            let Frame::Data(id, data) = frame else { continue };
            if id == typed {
                assert_eq!(data, b"key");
                assert!(before <= bulk.len() * TURN, "{before} bytes were first");
                return;
            }
            before += data.len();
        }
    }
    panic!("the key was not sent");
}

#[test]
fn a_goodbye_arrives_whole_and_ends_everything() {
    let mut pair = Pair::new(0);
    let id = pair.0.open().unwrap();
    pair.0.push(id, Bytes::from_static(b"lost"));
    pair.0.close(ResetCode(7), &"ä".repeat(2000));
    pair.settle();
    let Some(End::Peer(code, reason)) = &pair.1.end else { panic!("{:?}", pair.1.end) };
    assert_eq!(*code, ResetCode(7));
    assert!(reason.len() <= MAX_REASON && reason.chars().all(|c| c == 'ä'));
    assert!(pair.1.streams.is_empty() && pair.0.streams.is_empty());
}
