//! The frames of an attachment, to bytes and back. A DATA frame here is its header alone: payload
//! is never gathered.
//!
//! Its law: a header is at most [`MAX_HEADER`] bytes and is refused as soon as it cannot be right.
//! Whether a frame may come now is not asked here.

use bytes::{BufMut as _, BytesMut};

use super::{MAX_PAYLOAD, ResetCode, VERSION, Violation, varint};

/// Longest body of a START, fields of later versions included.
const MAX_START: u64 = 255;

/// Longest header of any frame: a START, whose length takes up to eight bytes.
pub(super) const MAX_HEADER: usize = 1 + 8 + 255;

/// What an end says of itself at the head of each attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) version: u64,
    /// Offset up to which it has everything.
    pub(super) received: u64,
    /// Offset up to which it takes data.
    pub(super) limit: u64,
    /// Bytes its replay buffer holds: how often it needs an ACK.
    pub(super) replay: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Start(Start),
    Data { offset: u64, length: usize },
    Ack { received: u64, limit: u64 },
    Fin { offset: u64 },
    Reset(ResetCode),
    Confirm,
    Ping(u64),
    Pong(u64),
}

const START: u8 = 0x01;
const DATA: u8 = 0x02;
const ACK: u8 = 0x03;
const FIN: u8 = 0x04;
const RESET: u8 = 0x05;
const CONFIRM: u8 = 0x06;
const PING: u8 = 0x07;
const PONG: u8 = 0x08;

impl Frame {
    pub(super) fn put(self, out: &mut BytesMut) {
        match self {
            Self::Start(start) => {
                let mut body = BytesMut::with_capacity(32);
                for field in [start.version, start.received, start.limit, start.replay] {
                    varint::put(field, &mut body);
                }
                numbers(START, &[body.len() as u64], out);
                out.put_slice(&body);
            }
            Self::Data { offset, length } => numbers(DATA, &[offset, length as u64], out),
            Self::Ack { received, limit } => numbers(ACK, &[received, limit], out),
            Self::Fin { offset } => numbers(FIN, &[offset], out),
            Self::Reset(code) => numbers(RESET, &[u64::from(code.0)], out),
            Self::Confirm => numbers(CONFIRM, &[], out),
            Self::Ping(number) => numbers(PING, &[number], out),
            Self::Pong(number) => numbers(PONG, &[number], out),
        }
    }

    /// The frame `bytes` begins with and the header's length, or `None` when more are needed.
    pub(super) fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
        let taken = match *kind {
            START => start(rest)?,
            DATA => data(rest)?,
            ACK => two(rest).map(|(received, limit, rest)| (Self::Ack { received, limit }, rest)),
            FIN => varint::take(rest).map(|(offset, rest)| (Self::Fin { offset }, rest)),
            RESET => match varint::take(rest) {
                Some((code, rest)) => {
                    let code = u32::try_from(code).map_err(|_| Violation::ResetCode(code))?;
                    Some((Self::Reset(ResetCode(code)), rest))
                }
                None => None,
            },
            CONFIRM => Some((Self::Confirm, rest)),
            PING => varint::take(rest).map(|(number, rest)| (Self::Ping(number), rest)),
            PONG => varint::take(rest).map(|(number, rest)| (Self::Pong(number), rest)),
            unknown => return Err(Violation::UnknownFrame(unknown)),
        };
        Ok(taken.map(|(frame, rest)| (frame, bytes.len() - rest.len())))
    }
}

fn numbers(kind: u8, values: &[u64], out: &mut BytesMut) {
    out.put_u8(kind);
    for value in values {
        varint::put(*value, out);
    }
}

type Taken<'b> = Option<(Frame, &'b [u8])>;

fn two(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (first, rest) = varint::take(bytes)?;
    let (second, rest) = varint::take(rest)?;
    Some((first, second, rest))
}

fn data(bytes: &[u8]) -> Result<Taken<'_>, Violation> {
    let Some((offset, length, rest)) = two(bytes) else { return Ok(None) };
    match usize::try_from(length) {
        Ok(0) => Err(Violation::DataEmpty),
        Ok(length) if length <= MAX_PAYLOAD => Ok(Some((Frame::Data { offset, length }, rest))),
        _ => Err(Violation::DataTooLong(length)),
    }
}

fn start(bytes: &[u8]) -> Result<Taken<'_>, Violation> {
    let Some((length, rest)) = varint::take(bytes) else { return Ok(None) };
    let length = usize::try_from(length).ok().filter(|_| length <= MAX_START);
    let Some((body, rest)) = rest.split_at_checked(length.ok_or(Violation::MalformedStart)?) else {
        return Ok(None);
    };
    let fields = |bytes| {
        let (version, received, rest) = two(bytes)?;
        // What follows is a later version's.
        let (limit, replay, _later) = two(rest)?;
        Some(Start { version, received, limit, replay })
    };
    let start = fields(body).ok_or(Violation::MalformedStart)?;
    if start.version < VERSION {
        return Err(Violation::Version(start.version));
    }
    Ok(Some((Frame::Start(start), rest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const START_FRAME: Frame =
        Frame::Start(Start { version: 1, received: 300, limit: 1 << 22, replay: 1 << 20 });

    /// Every frame with the bytes it has had since the first release.
    const FROZEN: [(Frame, &[u8]); 8] = [
        (START_FRAME, &[1, 11, 1, 0x41, 0x2c, 0x80, 0x40, 0, 0, 0x80, 0x10, 0, 0]),
        (Frame::Data { offset: 70, length: 65_536 }, &[2, 0x40, 70, 0x80, 1, 0, 0]),
        (Frame::Ack { received: 5, limit: 1 << 30 }, &[3, 5, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]),
        (Frame::Fin { offset: 63 }, &[4, 63]),
        (Frame::Reset(ResetCode(3)), &[5, 3]),
        (Frame::Confirm, &[6]),
        (Frame::Ping(64), &[7, 0x40, 64]),
        (Frame::Pong(1), &[8, 1]),
    ];

    #[test]
    fn every_frame_has_the_bytes_it_always_had() {
        for (frame, bytes) in FROZEN {
            let mut out = BytesMut::new();
            frame.put(&mut out);
            assert_eq!(out, bytes, "{frame:?}");
            assert_eq!(Frame::take(bytes), Ok(Some((frame, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(Frame::take(&bytes[..cut]), Ok(None), "{frame:?} cut at {cut}");
            }
            out.put_slice(b"more");
            assert_eq!(Frame::take(&out), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn what_a_later_start_adds_is_passed_over() {
        let taken = Frame::take(&[1, 6, 9, 7, 8, 9, 0xff, 0xff, 6]).unwrap();
        let start = Start { version: 9, received: 7, limit: 8, replay: 9 };
        assert_eq!(taken, Some((Frame::Start(start), 8)));
    }

    #[test]
    fn what_cannot_be_right_is_refused_from_its_header() {
        assert_eq!(Frame::take(&[0]), Err(Violation::UnknownFrame(0)));
        assert_eq!(Frame::take(&[9]), Err(Violation::UnknownFrame(9)));
        assert_eq!(Frame::take(&[2, 0, 0]), Err(Violation::DataEmpty));
        assert_eq!(Frame::take(&[2, 0, 0x80, 1, 0, 1]), Err(Violation::DataTooLong(65_537)));
        assert_eq!(Frame::take(&[1, 0x41, 0]), Err(Violation::MalformedStart));
        assert_eq!(Frame::take(&[1, 3, 1, 0, 0]), Err(Violation::MalformedStart));
        assert_eq!(Frame::take(&[1, 4, 0, 0, 0, 0]), Err(Violation::Version(0)));
        let large = [5, 0xc0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(Frame::take(&large), Err(Violation::ResetCode(1 << 32)));
    }

    #[test]
    fn the_longest_header_is_as_long_as_said() {
        let mut bytes = vec![START, 0xc0, 0, 0, 0, 0, 0, 0, 255, 1, 0, 0, 0];
        bytes.resize(MAX_HEADER, 0xff);
        let (_, length) = Frame::take(&bytes).unwrap().unwrap();
        assert_eq!(length, MAX_HEADER);
    }
}
