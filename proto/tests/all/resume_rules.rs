//! What an end of a resumable stream says, byte for byte, and what it does not put up with.

use std::time::Duration;

use belay_proto::resume::{Config, Output, Received, ResetCode, Resume, Violation};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::heap::peak;

const START: &[u8] = &[1, 10, 1, 0, 0x80, 0x40, 0, 0, 0x80, 0x40, 0, 0];

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fresh() -> Resume {
    let mut end = Resume::new(Config::default());
    end.handle_attached(ms(0));
    end
}

fn send(end: &mut Resume, bytes: &'static [u8]) {
    let mut bytes = Bytes::from_static(bytes);
    end.handle_send(&mut bytes);
    assert!(bytes.is_empty());
}

fn said(end: &mut Resume, now: Duration) -> Vec<u8> {
    let mut pieces = Vec::new();
    end.poll_transmit(usize::MAX, now, &mut pieces);
    pieces.concat()
}

fn hear(end: &mut Resume, bytes: &[u8], now: Duration) -> Result<(), Violation> {
    end.handle_bytes(Bytes::copy_from_slice(bytes), now)
}

/// START of a peer that has `received` (below 64) bytes and gives room up to 64 KiB.
fn start(received: u8) -> Vec<u8> {
    vec![1, 10, 1, received, 0x80, 1, 0, 0, 0x80, 1, 0, 0]
}

#[test]
fn a_conversation_has_the_bytes_of_the_first_release() {
    let mut end = fresh();
    send(&mut end, b"hello");
    assert_eq!(said(&mut end, ms(0)), [START, &[2, 0, 5], b"hello"].concat());
    hear(&mut end, &[&start(0)[..], &[3, 5, 0x80, 1, 0, 0, 2, 0, 2], b"hi"].concat(), ms(7))
        .unwrap();
    assert_eq!(end.round_trip(), Some(ms(7)));
    assert_eq!(said(&mut end, ms(7)), b"", "an acknowledgement waits for company");
    assert_eq!(end.poll_timeout(), Some(ms(27)));
    end.handle_timeout(ms(27));
    assert_eq!(said(&mut end, ms(27)), [3, 2, 0x80, 0x40, 0, 0], "no news of room for two bytes");
    assert_eq!(end.poll_received(), Some(Received::Data(Bytes::from_static(b"hi"))));
    hear(&mut end, &[2, 2, 1, b'!', 7, 9], ms(30)).unwrap();
    send(&mut end, b"?");
    end.handle_finish();
    let rest = said(&mut end, ms(31));
    assert_eq!(rest, [8, 9, 3, 3, 0x80, 0x40, 0, 2, 2, 5, 1, b'?', 4, 6]);
    hear(&mut end, &[3, 7, 0x80, 1, 0, 0, 4, 3], ms(40)).unwrap();
    assert!(!end.is_closed());
    assert_eq!(said(&mut end, ms(40)), [3, 4, 0x80, 0x40, 0, 2]);
    assert!(end.is_closed() && end.poll_timeout().is_none());
    assert_eq!(end.poll_output(), Some(Output::Closed));
    assert_eq!(end.poll_received(), Some(Received::Data(Bytes::from_static(b"!"))));
    assert_eq!(end.poll_received(), Some(Received::End));
    assert_eq!((end.poll_received(), end.poll_output()), (None, None));
}

#[test]
fn an_end_holds_twice_as_much_on_a_path_that_is_long_and_not_behind_a_long_queue() {
    let answered = |after: &[u64]| {
        let mut end = fresh();
        for (n, after) in (1..).zip(after) {
            send(&mut end, b"x");
            said(&mut end, ms(n * 10_000));
            let start = if n == 1 { start(0) } else { Vec::new() };
            let ack = [3, u8::try_from(n).unwrap(), 0x80, 1, 0, 0];
            hear(&mut end, &[&start[..], &ack].concat(), ms(n * 10_000 + after)).unwrap();
        }
        end.handle_detached();
        end.room()
    };
    let usual = Config::default().replay;
    assert_eq!(answered(&[299, 5_000, 5_000]), usual);
    assert_eq!(answered(&[5_000, 299]), 2 * usual, "what was once given is not taken back");
    assert_eq!(answered(&[650, 5_000]), 2 * usual);
}

#[test]
fn a_later_attachment_sends_only_what_is_missing_and_only_once_that_is_known() {
    let mut end = fresh();
    send(&mut end, b"abcdef");
    said(&mut end, ms(0));
    end.handle_detached();
    send(&mut end, b"gh");
    assert_eq!(said(&mut end, ms(1)), b"");
    end.handle_attached(ms(2));
    assert_eq!(said(&mut end, ms(2)), START);
    hear(&mut end, &start(4), ms(3)).unwrap();
    assert_eq!(said(&mut end, ms(3)), [&[2, 4, 4], &b"efgh"[..]].concat());
    assert_eq!(end.round_trip(), None, "what was sent again measures nothing");
}

#[test]
fn what_comes_twice_is_kept_once_wherever_it_is_cut() {
    let bytes =
        [&start(0)[..], &[2, 0, 3], b"abc", &[2, 1, 3], b"bcd", &[2, 0, 2], b"ab", &[4, 4, 4, 4]]
            .concat();
    for cut in 0..bytes.len() {
        let mut end = fresh();
        hear(&mut end, &bytes[..cut], ms(1)).unwrap();
        hear(&mut end, &bytes[cut..], ms(1)).unwrap();
        let mut got = Vec::new();
        while let Some(Received::Data(bytes)) = end.poll_received() {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, b"abcd", "cut at {cut}");
    }
}

#[test]
fn a_reset_that_comes_too_late_needs_no_confirmation() {
    let mut end = fresh();
    send(&mut end, b"a");
    end.handle_finish();
    said(&mut end, ms(0));
    hear(&mut end, &[&start(0)[..], &[4, 0]].concat(), ms(1)).unwrap();
    // The other end has all and is closed, but its last ACK was lost.
    end.handle_reset(ResetCode(9));
    end.handle_attached(ms(2));
    assert!(!end.is_closed());
    hear(&mut end, &start(2), ms(3)).unwrap();
    assert!(end.is_closed());
}

#[test]
fn a_reset_is_said_on_each_attachment_until_it_is_confirmed() {
    let mut end = fresh();
    send(&mut end, b"gone");
    end.handle_reset(ResetCode(9));
    assert_eq!(said(&mut end, ms(0)), [START, &[5, 9]].concat());
    end.handle_attached(ms(1));
    assert_eq!(said(&mut end, ms(1)), [START, &[5, 9]].concat());
    assert!(!end.is_closed());
    hear(&mut end, &[&start(0)[..], &[6]].concat(), ms(2)).unwrap();
    assert!(end.is_closed());
    end.handle_attached(ms(3));
    assert_eq!(said(&mut end, ms(3)), START);

    let mut other = fresh();
    said(&mut other, ms(0));
    hear(&mut other, &[&start(0)[..], &[2, 0, 1, b'x', 5, 9]].concat(), ms(1)).unwrap();
    assert_eq!(other.poll_received(), Some(Received::Reset(ResetCode(9))));
    assert_eq!(other.room(), 0);
    assert!(!other.is_closed());
    assert_eq!(said(&mut other, ms(1)), [6]);
    assert!(other.is_closed());
    other.handle_attached(ms(2));
    assert_eq!(said(&mut other, ms(2)), [1, 10, 1, 1, 0x80, 0x40, 0, 1, 0x80, 0x40, 0, 0, 6]);
}

#[test]
fn silence_is_asked_about_once_told_once_and_taken_back() {
    let mut end = fresh();
    said(&mut end, ms(0));
    hear(&mut end, &start(0), ms(100)).unwrap();
    assert_eq!(end.poll_timeout(), None, "nothing to say, nothing to wait for");
    send(&mut end, b"x");
    said(&mut end, ms(1000));
    assert_eq!(end.poll_timeout(), Some(ms(2500)));
    end.handle_timeout(ms(2500));
    assert_eq!(said(&mut end, ms(2500)), [7, 1]);
    end.handle_timeout(ms(4000));
    assert_eq!(end.poll_output(), Some(Output::Silent));
    assert_eq!((end.poll_timeout(), end.poll_output()), (None, None));
    hear(&mut end, &[8, 1], ms(5000)).unwrap();
    assert_eq!(end.poll_output(), Some(Output::Heard));
    assert_eq!(end.round_trip(), Some(ms(2500)));
}

/// After START both ways and the bytes `ab` sent.
fn broken_by(bytes: &[u8]) -> Violation {
    let mut end = fresh();
    send(&mut end, b"ab");
    said(&mut end, ms(0));
    hear(&mut end, &start(0), ms(1)).unwrap();
    let violation = hear(&mut end, bytes, ms(2)).unwrap_err();
    assert_eq!(said(&mut end, ms(2)), [5, 2], "the other end is told");
    assert!(hear(&mut end, &[0xff; 9], ms(3)).is_ok(), "and not listened to any more");
    violation
}

#[test]
fn every_violation_is_seen_and_named() {
    use Violation as V;
    assert_eq!(
        broken_by(&[3, 3, 0x80, 1, 0, 0]),
        V::AcknowledgedUnsent { acknowledged: 3, sent: 2 }
    );
    let back = [3, 2, 0x80, 1, 0, 0, 3, 1, 0x80, 1, 0, 0];
    assert_eq!(broken_by(&back), V::AcknowledgementWentBack { from: 2, to: 1 });
    assert_eq!(broken_by(&[3, 2, 63]), V::LimitWentBack { from: 65_536, to: 63 });
    assert_eq!(broken_by(&[2, 1, 1, 0]), V::Gap { expected: 0, got: 1 });
    assert_eq!(broken_by(&[4, 1]), V::Gap { expected: 0, got: 1 });
    assert_eq!(broken_by(&[4, 0, 2, 0, 1]), V::AfterEnd { end: 0, got: 1 });
    assert_eq!(broken_by(&[2, 0, 2, 1, 2, 4, 1]), V::AfterEnd { end: 1, got: 2 });
    assert_eq!(broken_by(&[6]), V::UnaskedConfirmation);
    assert_eq!(broken_by(&start(0)), V::SecondStart);
    assert_eq!(broken_by(&[0]), V::UnknownFrame(0));
    assert_eq!(hear(&mut fresh(), &[7, 1], ms(1)), Err(V::NoStart));
    let unsent = V::AcknowledgedUnsent { acknowledged: 1, sent: 0 };
    assert_eq!(hear(&mut fresh(), &start(1), ms(1)), Err(unsent));

    let mut end = fresh();
    send(&mut end, b"ab");
    said(&mut end, ms(0));
    hear(&mut end, &start(2), ms(1)).unwrap();
    end.handle_attached(ms(2));
    let lost = hear(&mut end, &start(0), ms(3)).unwrap_err();
    assert_eq!(
        lost.to_string(),
        "the other end lost the session's state: it has 0 bytes and had acknowledged 2"
    );
}

#[test]
fn nobody_sends_beyond_the_room_he_was_given() {
    let config = Config { replay: 1 << 20, window: 1 << 16 };
    let (mut end, mut more) = (Resume::new(config), Bytes::from(vec![0; 200_000]));
    end.handle_attached(ms(0));
    end.handle_send(&mut more);
    assert_eq!(said(&mut end, ms(0)).len(), 12 + 6 + (1 << 16));
    assert_eq!(said(&mut end, ms(0)).len(), 0);
    hear(&mut end, &start(0), ms(1)).unwrap();
    let whole = [&[2, 0, 0x80, 1, 0, 0][..], &vec![0; 1 << 16]].concat();
    hear(&mut end, &whole, ms(1)).unwrap();
    let beyond = Violation::BeyondLimit { end: 65_537, limit: 65_536 };
    assert_eq!(hear(&mut end, &[2, 0x80, 1, 0, 0, 1, 0], ms(1)), Err(beyond));
}

#[test]
fn an_end_takes_in_what_its_line_carries_and_without_a_line_all_it_may() {
    let mut end = fresh();
    let mut given = Bytes::from(vec![0; 8 << 20]);
    send(&mut end, b"x");
    said(&mut end, ms(0));
    end.handle_send(&mut given);
    assert_eq!(end.unacknowledged(), 256 * 1024, "of a line that nothing is known of");
    let room = 0x8000_0000 | (1 << 29);
    let mut ack = |end: &mut Resume, received: u32, at: u64| {
        let start = if at == 40 { start(0) } else { Vec::new() };
        let ack = [&[3][..], &(0x8000_0000 | received).to_be_bytes(), &u32::to_be_bytes(room)];
        hear(end, &[&start[..], &ack.concat()].concat(), ms(at)).unwrap();
        end.handle_send(&mut given);
        said(end, ms(at));
    };
    // 200 KB/s, 40 ms away: 330 ms of it, once it has shown no greater rate for a while.
    for turn in 0..40_u32 {
        ack(&mut end, 1 + turn * 20_000, 40 + u64::from(turn) * 100);
    }
    let held = end.unacknowledged();
    assert!((30_000..100_000).contains(&held), "{held}");
    end.handle_detached();
    assert_eq!(end.room() + held, Config::default().replay);
    end.handle_attached(ms(9_000));
    assert_eq!(end.room(), 0, "the next line is taken for one like the last");
}

#[test]
fn memory_follows_the_bytes_held_not_the_pieces_they_came_in() {
    let mut end = fresh();
    said(&mut end, ms(0));
    hear(&mut end, &start(0), ms(1)).unwrap();
    const BYTES: u64 = 250_000;
    let (_, most) = peak(|| {
        for offset in 0..BYTES {
            // One byte of data in a block of its own, pinned if it were kept as it came.
            let offset = u32::try_from(offset).unwrap() | 0x8000_0000;
            let mut block = BytesMut::with_capacity(4096);
            block.extend_from_slice(&[&[2], &offset.to_be_bytes()[..], &[1, 0]].concat());
            end.handle_bytes(block.freeze(), ms(1)).unwrap();
            assert_eq!(end.handle_send_slice(&[0]), 1);
            said(&mut end, ms(1));
        }
    });
    assert_eq!((end.bytes_waiting() as u64, end.unacknowledged() as u64), (BYTES, BYTES));
    assert!(most < 4 * 2 * BYTES as usize, "{most} bytes for {BYTES} each way");
}

proptest! {
    /// Whatever comes, in whatever cuts: no panic, no more kept than the window, and the same
    /// verdict as when it comes at once.
    #[test]
    fn any_bytes_in_any_cuts_have_one_meaning(
        frames in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                (0..4u8, 1..9u8).prop_map(|(offset, n)| [vec![2, offset, n], vec![7; n.into()]].concat()),
                (0..12u8).prop_map(|offset| vec![4, offset]),
                (0..4u8).prop_map(|n| vec![3, n, 0x80, 1, 0, 0]),
                (5..9u8, 0..64u8).prop_map(|(kind, n)| if kind == 6 { vec![6] } else { vec![kind, n] }),
            ],
            0..12,
        ),
        cuts in prop::collection::vec(1..9usize, 1..20),
    ) {
        let bytes = [start(0), frames.concat()].concat();
        let mut whole = fresh();
        send(&mut whole, b"abc");
        said(&mut whole, ms(0));
        let verdict = hear(&mut whole, &bytes, ms(1));
        let mut cut = fresh();
        send(&mut cut, b"abc");
        said(&mut cut, ms(0));
        let (mut left, mut verdict_cut) = (&bytes[..], Ok(()));
        for length in cuts.iter().cycle() {
            if left.is_empty() || verdict_cut.is_err() {
                break;
            }
            let (now, later) = left.split_at(left.len().min(*length));
            verdict_cut = hear(&mut cut, now, ms(1));
            left = later;
        }
        prop_assert_eq!(verdict, verdict_cut);
        prop_assert_eq!(said(&mut whole, ms(1)), said(&mut cut, ms(1)));
        prop_assert_eq!(whole.bytes_received(), cut.bytes_received());
        prop_assert_eq!(whole.bytes_acknowledged(), cut.bytes_acknowledged());
        prop_assert_eq!(whole.is_closed(), cut.is_closed());
        while let Some(received) = whole.poll_received() {
            let mut other = cut.poll_received();
            if let (Received::Data(all), Some(Received::Data(first))) = (&received, &other) {
                let mut first = BytesMut::from(&first[..]);
                while first.len() < all.len() {
                    let Some(Received::Data(more)) = cut.poll_received() else { break };
                    first.extend_from_slice(&more);
                }
                other = Some(Received::Data(first.freeze()));
            }
            prop_assert_eq!(Some(received), other);
        }
    }
}
