//! One frame in, one frame out. Lengths are checked before anything is allocated.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};

use crate::limits::{MAX_FRAME, MAX_NESTING};

/// Bytes before the payload.
pub const LENGTH_BYTES: usize = 4;

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is above the limit.
    #[error("a frame of {0} bytes; the limit is {MAX_FRAME}")]
    TooLong(u64),
    /// The payload is not the message expected.
    #[error("a malformed message")]
    Malformed(#[source] minicbor::decode::Error),
    /// The payload nests deeper than any message does.
    #[error("a message nested more than {MAX_NESTING} deep")]
    TooDeep,
    /// Bytes follow the message inside its frame.
    #[error("{0} bytes after the message")]
    Trailing(usize),
    /// The message cannot be encoded.
    #[error("cannot encode a message: {0}")]
    Encode(String),
}

/// The payload's length from a frame's first bytes.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_FRAME`].
pub fn payload_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(n) if n <= MAX_FRAME => Ok(n),
        _ => Err(FrameError::TooLong(u64::from(length))),
    }
}

/// A message with its length in front, in a buffer of just that size.
///
/// # Errors
/// [`FrameError::TooLong`] when it would not fit; nothing is allocated then.
pub fn encode_frame<M: Encode<()>>(message: &M) -> Result<Vec<u8>, FrameError> {
    let failed = |cause: String| FrameError::Encode(cause);
    let mut length = Length(0);
    minicbor::encode(message, &mut length).map_err(|error| failed(error.to_string()))?;
    let Length(length) = length;
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or(FrameError::TooLong(length as u64))?;
    let mut frame = Vec::with_capacity(LENGTH_BYTES + length);
    frame.extend_from_slice(&prefix.to_be_bytes());
    minicbor::encode(message, &mut frame).map_err(|error| failed(error.to_string()))?;
    Ok(frame)
}

/// Counts what is written.
struct Length(usize);

impl minicbor::encode::Write for Length {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

/// The message of one whole payload.
///
/// # Errors
/// When it is malformed, nested too deep or followed by anything.
pub fn decode_payload<'b, M: Decode<'b, ()>>(payload: &'b [u8]) -> Result<M, FrameError> {
    if payload.len() > MAX_FRAME {
        return Err(FrameError::TooLong(payload.len() as u64));
    }
    check_shape(payload)?;
    let mut decoder = Decoder::new(payload);
    let message = decoder.decode().map_err(FrameError::Malformed)?;
    match payload.len() - decoder.position() {
        0 => Ok(message),
        trailing => Err(FrameError::Trailing(trailing)),
    }
}

/// Walks the payload once without building anything: bounded depth, definite lengths, no duplicate
/// key in a map (RFC 8949 §5.6 leaves those to the decoder, and two decoders may differ).
fn check_shape(payload: &[u8]) -> Result<(), FrameError> {
    let mut decoder = Decoder::new(payload);
    shape(&mut decoder, 0)
}

fn shape(d: &mut Decoder<'_>, depth: usize) -> Result<(), FrameError> {
    if depth > MAX_NESTING {
        return Err(FrameError::TooDeep);
    }
    let malformed = FrameError::Malformed;
    let message = |text| malformed(minicbor::decode::Error::message(text));
    match d.datatype().map_err(malformed)? {
        Type::Array => {
            let items = d.array().map_err(malformed)?;
            for _ in 0..items.unwrap_or(0) {
                shape(d, depth + 1)?;
            }
            Ok(())
        }
        Type::Map => {
            let entries = d.map().map_err(malformed)?.unwrap_or(0);
            let mut last: Option<u64> = None;
            for _ in 0..entries {
                let key = d.u64().map_err(malformed)?;
                // Our encoder writes keys in ascending order (deterministic encoding, RFC 8949
                // §4.2.1), which makes a duplicate visible without remembering keys.
                if last.is_some_and(|last| key <= last) {
                    return Err(message("map keys must ascend"));
                }
                last = Some(key);
                shape(d, depth + 1)?;
            }
            Ok(())
        }
        Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef => {
            Err(message("indefinite lengths are not used"))
        }
        Type::Tag => Err(message("tags are not used")),
        Type::Break | Type::Unknown(_) => Err(message("not a value")),
        Type::Bool
        | Type::Null
        | Type::Undefined
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int
        | Type::F16
        | Type::F32
        | Type::F64
        | Type::Simple
        | Type::Bytes
        | Type::String => d.skip().map_err(malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Message {
        #[n(0)]
        a: Option<u64>,
        #[n(2)]
        b: Option<String>,
    }

    fn payload(bytes: &[u8]) -> Result<Message, FrameError> {
        decode_payload(bytes)
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_it_is_believed() {
        assert!(matches!(payload_length([0xff; 4]), Err(FrameError::TooLong(_))));
        assert_eq!(payload_length([0, 1, 0, 0]).unwrap(), MAX_FRAME);
        assert!(payload_length([0, 1, 0, 1]).is_err());
    }

    #[test]
    fn a_frame_is_as_large_as_its_message_and_one_too_large_is_not_made() {
        for text in [0, 100, MAX_FRAME - 6] {
            let message = Message { a: Some(7), b: Some("x".repeat(text)) };
            let frame = encode_frame(&message);
            if text == MAX_FRAME - 6 {
                let Err(FrameError::TooLong(length)) = frame else { panic!("{frame:?}") };
                assert_eq!(length, MAX_FRAME as u64 + 1);
                continue;
            }
            let frame = frame.unwrap();
            assert_eq!(frame.capacity(), frame.len());
            let (length, rest) = frame.split_first_chunk().unwrap();
            assert_eq!(payload_length(*length).unwrap(), rest.len());
            assert_eq!(payload(rest).unwrap(), message);
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_absent_ones_default() {
        // {0: 7, 1: "new", 9: [1, {0: 1}]}
        let bytes = [0xa3, 0, 7, 1, 0x63, b'n', b'e', b'w', 9, 0x82, 1, 0xa1, 0, 1];
        assert_eq!(payload(&bytes).unwrap(), Message { a: Some(7), b: None });
        assert_eq!(payload(&[0xa0]).unwrap(), Message { a: None, b: None });
    }

    #[test]
    fn duplicates_depth_indefinite_lengths_tags_and_trailing_bytes_are_refused() {
        assert!(payload(&[0xa2, 0, 1, 0, 2]).is_err());
        let mut deep = vec![0xa1, 5];
        deep.extend(std::iter::repeat_n(0x81, 1000));
        deep.push(0);
        assert!(matches!(payload(&deep), Err(FrameError::TooDeep)));
        assert!(payload(&[0xbf, 0, 1, 0xff]).is_err());
        assert!(payload(&[0xa1, 0, 0xc1, 1]).is_err());
        assert!(matches!(payload(&[0xa0, 0]), Err(FrameError::Trailing(1))));
    }

    #[test]
    fn a_claimed_count_costs_nothing() {
        // An array said to have 2^63 items, and a map likewise.
        assert!(payload(&[0xa1, 5, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(payload(&[0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
