//! What stands in the binary messages of the fallback carrier: whole frames, one behind the other.
//!
//! A frame is one byte of kind and four of a number, big endian, mostly the stream's; what follows
//! depends on the kind. No frame crosses a message, so nothing is kept of one between messages.
//! The least significant bit of a stream's number says who opened it (0 the dialler, 1 the relay),
//! the rest counts them from zero.

use bytes::{BufMut as _, BytesMut};

use super::super::stream::ResetCode;

/// Longest message, in bytes. A peer that sends a longer one is cut off.
pub(in crate::carrier) const MAX_MESSAGE: usize = 64 * 1024;

/// Kind and number.
pub(super) const HEAD: usize = 5;

/// Head and length of a piece of data.
pub(super) const DATA_HEAD: usize = HEAD + 2;

/// Longest reason in a goodbye, as much as one QUIC packet would hold.
pub(super) const MAX_REASON: usize = 1024;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const FIN: u8 = 1;
    pub(super) const RESET: u8 = 2;
    pub(super) const STOP: u8 = 3;
    pub(super) const CREDIT: u8 = 4;
    pub(super) const TAKEN: u8 = 5;
    pub(super) const STREAMS: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Bytes of a stream, at least one.
    Data(u32, &'a [u8]),
    /// The sender's direction ends here.
    Fin(u32),
    /// The sender gives its direction up.
    Reset(u32, ResetCode),
    /// The sender will not read the other direction any more.
    Stop(u32, ResetCode),
    /// The other side may send this many bytes more on a stream.
    Credit(u32, u32),
    /// The sender has all of the other direction, its end included.
    Taken(u32),
    /// The other side may have opened this many streams, the ended ones included.
    Streams(u32),
    /// The sender ends the carrier.
    Close(ResetCode, &'a [u8]),
}

/// A message that is not a row of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame was cut off")]
    Cut,
    #[error("a frame of no known kind")]
    Kind,
    #[error("data without a byte")]
    Empty,
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], FrameError> {
    let (head, rest) = bytes.split_at_checked(count).ok_or(FrameError::Cut)?;
    *bytes = rest;
    Ok(head)
}

fn number(bytes: &mut &[u8]) -> Result<u32, FrameError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Cut)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*head))
}

fn length(bytes: &mut &[u8]) -> Result<usize, FrameError> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(FrameError::Cut)?;
    *bytes = rest;
    Ok(usize::from(u16::from_be_bytes(*head)))
}

impl<'a> Frame<'a> {
    /// Takes the first frame off a message; `None` at its end.
    pub(super) fn decode(bytes: &mut &'a [u8]) -> Result<Option<Self>, FrameError> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        *bytes = rest;
        let at = number(bytes)?;
        Ok(Some(match *kind {
            kind::DATA => {
                let length = length(bytes)?;
                match take(bytes, length)? {
                    [] => return Err(FrameError::Empty),
                    data => Self::Data(at, data),
                }
            }
            kind::FIN => Self::Fin(at),
            kind::RESET => Self::Reset(at, ResetCode(number(bytes)?)),
            kind::STOP => Self::Stop(at, ResetCode(number(bytes)?)),
            kind::CREDIT => Self::Credit(at, number(bytes)?),
            kind::TAKEN => Self::Taken(at),
            kind::STREAMS => Self::Streams(at),
            kind::CLOSE => {
                let length = length(bytes)?;
                Self::Close(ResetCode(at), take(bytes, length)?)
            }
            _ => return Err(FrameError::Kind),
        }))
    }

    /// Puts it behind what is in `out`.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let head = |out: &mut BytesMut, kind, at| {
            out.put_u8(kind);
            out.put_u32(at);
        };
        let counted = |out: &mut BytesMut, bytes: &[u8]| {
            let (bytes, length) = match u16::try_from(bytes.len()) {
                Ok(length) => (bytes, length),
                Err(_) => (bytes.get(..usize::from(u16::MAX)).unwrap_or_default(), u16::MAX),
            };
            out.put_u16(length);
            out.put_slice(bytes);
        };
        match self {
            Self::Data(at, data) => {
                head(out, kind::DATA, *at);
                counted(out, data);
            }
            Self::Fin(at) => head(out, kind::FIN, *at),
            Self::Reset(at, code) => {
                head(out, kind::RESET, *at);
                out.put_u32(code.0);
            }
            Self::Stop(at, code) => {
                head(out, kind::STOP, *at);
                out.put_u32(code.0);
            }
            Self::Credit(at, more) => {
                head(out, kind::CREDIT, *at);
                out.put_u32(*more);
            }
            Self::Taken(at) => head(out, kind::TAKEN, *at),
            Self::Streams(count) => head(out, kind::STREAMS, *count),
            Self::Close(code, reason) => {
                head(out, kind::CLOSE, code.0);
                counted(out, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const ALL: &[Frame<'static>] = &[
        Frame::Data(6, b"hello"),
        Frame::Fin(6),
        Frame::Reset(7, ResetCode(3)),
        Frame::Stop(u32::MAX, ResetCode(u32::MAX)),
        Frame::Credit(2, 65_536),
        Frame::Taken(0),
        Frame::Streams(66),
        Frame::Close(ResetCode(9), b"going"),
    ];

    /// The bytes are the protocol: they change for nobody.
    const BYTES: &[u8] = &[
        0, 0, 0, 0, 6, 0, 5, b'h', b'e', b'l', b'l', b'o', // data
        1, 0, 0, 0, 6, // fin
        2, 0, 0, 0, 7, 0, 0, 0, 3, // reset
        3, 255, 255, 255, 255, 255, 255, 255, 255, // stop
        4, 0, 0, 0, 2, 0, 1, 0, 0, // credit
        5, 0, 0, 0, 0, // taken
        6, 0, 0, 0, 66, // streams
        7, 0, 0, 0, 9, 0, 5, b'g', b'o', b'i', b'n', b'g', // close
    ];

    #[test]
    fn frames_are_written_as_they_always_were() {
        let mut out = BytesMut::new();
        for frame in ALL {
            frame.encode(&mut out);
        }
        assert_eq!(&out[..], BYTES);
        let mut rest = BYTES;
        for frame in ALL {
            assert_eq!(Frame::decode(&mut rest).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(Frame::decode(&mut rest), Ok(None));
    }

    #[test]
    fn a_cut_message_is_an_error_wherever_it_is_cut() {
        let mut whole = 0;
        for end in 0..BYTES.len() {
            let mut rest = &BYTES[..end];
            let error = loop {
                match Frame::decode(&mut rest) {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            match error {
                None => whole += 1,
                Some(error) => assert_eq!(error, FrameError::Cut),
            }
        }
        assert_eq!(whole, ALL.len(), "only at the end of a frame is a message whole");
        assert_eq!(Frame::decode(&mut &[9, 0, 0, 0, 0][..]), Err(FrameError::Kind));
        assert_eq!(Frame::decode(&mut &[0, 0, 0, 0, 0, 0, 0][..]), Err(FrameError::Empty));
    }
}
