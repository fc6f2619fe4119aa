//! What holds for every message and for every byte string.

use belay_proto::limits::{MAX_FRAME, MAX_NESTING};
use belay_proto::token::{Invitation, Purpose};
use belay_proto::wire::control::{Control, Hello};
use belay_proto::wire::frame::{FrameError, LENGTH_BYTES, decode_payload, encode_frame};
use minicbor::{Decode, Encode};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::heap::peak;
use crate::{samples, strategies as any, targets};

/// Most bytes decoding may hold for each byte it was given. The worst honest encoding is a list of
/// empty strings: one byte each on the wire, 24 in memory, twice that while a list grows, and the
/// old half beside it.
const MEMORY_PER_BYTE: usize = 24 * 3;

/// And whatever the length: an error with its text.
const MEMORY_BASE: usize = 4096;

fn round_trip<M>(message: &M) -> Result<(), TestCaseError>
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    let frame = encode_frame(message).unwrap();
    let (_, payload) = frame.split_at(LENGTH_BYTES);
    let (read, most) = peak(|| decode_payload::<M>(payload));
    prop_assert_eq!(&read.unwrap(), message);
    prop_assert!(most <= MEMORY_BASE + MEMORY_PER_BYTE * payload.len());
    // Cut anywhere, it is refused: a message is whole or it is nothing.
    for cut in 0..payload.len() {
        prop_assert!(decode_payload::<M>(&payload[..cut]).is_err(), "cut at {}", cut);
    }
    Ok(())
}

macro_rules! every_message_reads_back {
    ($($name:ident)*) => { proptest! { $(
        #[test]
        fn $name(message in any::$name()) {
            round_trip(&message)?;
        }
    )* } };
}

every_message_reads_back! {
    hello hello_answer control open open_answer deliver deliver_answer grant signed_grant
}

/// Every target on these bytes; what they hold at their worst is bounded by what they were given.
fn survives(data: &[u8]) -> Result<(), TestCaseError> {
    for (name, target) in targets::ALL {
        target(data);
        prop_assert!(!name.is_empty());
    }
    let (_, most) = peak(|| drop(decode_payload::<Hello>(data)));
    prop_assert!(most <= MEMORY_BASE + MEMORY_PER_BYTE * data.len(), "{} of {}", most, data.len());
    let (_, most) = peak(|| drop(decode_payload::<Control>(data)));
    prop_assert!(most <= MEMORY_BASE + MEMORY_PER_BYTE * data.len(), "{} of {}", most, data.len());
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_break_a_decoder(data in prop::collection::vec(prop::num::u8::ANY, 0..600)) {
        survives(&data)?;
    }

    #[test]
    fn nothing_shaped_like_a_message_breaks_a_decoder(data in any::shaped()) {
        survives(&data)?;
    }

    #[test]
    fn no_damaged_message_breaks_a_decoder(
        which in prop::num::usize::ANY,
        changes in prop::collection::vec((prop::arbitrary::any::<Index>(), prop::num::u8::ANY), 1..5),
        cut in prop::option::of(prop::arbitrary::any::<Index>()),
    ) {
        let samples = samples::all();
        let mut data = samples[which % samples.len()].encoded.clone();
        if data.is_empty() {
            return Ok(());
        }
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Some(cut) = cut {
            data.truncate(cut.index(data.len() + 1));
        }
        survives(&data)?;
    }

    #[test]
    fn an_invitation_reads_back_however_it_was_wrapped(
        invitation in any::invitation(),
        breaks in prop::collection::vec(prop::arbitrary::any::<Index>(), 0..6),
    ) {
        for purpose in [Purpose::Enrol, Purpose::Login] {
            let mut text = invitation.to_text(purpose).unwrap();
            for at in &breaks {
                text.insert_str(at.index(text.len()), "\r\n  ");
            }
            prop_assert_eq!(Invitation::from_text(&text, purpose).unwrap(), invitation.clone());
        }
    }

    #[test]
    fn an_invitation_with_one_character_changed_is_refused(
        invitation in any::invitation(),
        at in prop::arbitrary::any::<Index>(),
        to in "[A-Za-z0-9_-]",
    ) {
        let text = invitation.to_text(Purpose::Enrol).unwrap();
        let at = at.index(text.len());
        let mut typed = text.clone();
        typed.replace_range(at..=at, &to);
        prop_assume!(typed != text);
        prop_assert!(Invitation::from_text(&typed, Purpose::Enrol).is_err());
    }
}

/// The largest frames, made to cost as much as they can.
#[test]
fn a_full_frame_costs_a_bounded_amount() {
    // {6: [ "", "", … ]}: capabilities by the ten thousand.
    let mut strings = vec![0xa1, 6, 0x99];
    let count = MAX_FRAME - 5;
    strings.extend(u16::try_from(count).unwrap().to_be_bytes());
    strings.resize(MAX_FRAME, 0x60);
    let (read, most) = peak(|| decode_payload::<Hello>(&strings).map(|hello| hello.capabilities));
    assert_eq!(read.unwrap().unwrap().len(), count);
    assert!(most <= MEMORY_BASE + MEMORY_PER_BYTE * MAX_FRAME, "{most}");

    // A list that ends in something else is refused, and gave its memory back.
    strings[MAX_FRAME - 1] = 0xff;
    let (read, most) = peak(|| decode_payload::<Hello>(&strings));
    assert!(matches!(read, Err(FrameError::Malformed(_))));
    assert!(most <= MEMORY_BASE, "refused by its shape before a string is made: {most}");

    let mut longer = strings.clone();
    longer.push(0);
    let (read, most) = peak(|| decode_payload::<Hello>(&longer));
    assert!(matches!(read, Err(FrameError::TooLong(_))));
    assert!(most <= MEMORY_BASE, "{most}");
}

/// Promised lengths and counts cost nothing before they are kept.
#[test]
fn a_claim_costs_nothing() {
    for head in ["9b", "bb", "5b", "7b"] {
        for size in ["00000000ffffffff", "7fffffffffffffff", "ffffffffffffffff"] {
            let data = crate::hex::read(&format!("a106{head}{size}"));
            let (read, most) = peak(|| decode_payload::<Hello>(&data));
            assert!(read.is_err(), "{head} {size}");
            assert!(most <= MEMORY_BASE, "{head} {size}: {most}");
        }
    }
}

#[test]
fn depth_is_bounded_and_our_own_messages_stay_below_it() {
    for open in [0x81_u8, 0xa1] {
        let mut deep = vec![0xa1, 5];
        for _ in 0..MAX_FRAME / 2 - 2 {
            deep.push(open);
            if open == 0xa1 {
                deep.push(0);
            }
        }
        deep.push(0);
        deep.truncate(MAX_FRAME);
        assert!(matches!(decode_payload::<Hello>(&deep), Err(FrameError::TooDeep)));
    }
    // A newer peer may nest one deeper than the deepest field of today, and two, and is read.
    let mut nested = vec![0xa1, 0x18, 99];
    nested.extend(std::iter::repeat_n(0x81, MAX_NESTING - 1));
    nested.push(0);
    assert_eq!(decode_payload::<Hello>(&nested).unwrap(), Hello::default());
}
