//! Between a guest's terminal and the session it joins: the two processes' one wire.
//!
//! Both run as the same login user, on the same device: the guest's helper ([`mod@super::join_helper`])
//! and the host's worker ([`super::terminals`]). The supervisor only brings them together; no byte of
//! this passes through it. A frame is its kind, its length (16 bits, big-endian), and so many bytes:
//!
//! | kind | from | what |
//! |---|---|---|
//! | `I` | guest | typed |
//! | `S` | guest | its window: columns and rows, 16 bits each. The first frame of a guest |
//! | `O` | host | what the terminal shows |
//! | `E` | host | the last frame: why it ends, one line of UTF-8 |
//!
//! Its law: neither end believes the other; a frame that is too long or of no known kind ends it. What
//! it is not: it judges nobody. That a guest who looks on types nothing is the host's to see to.

use belay_proto::wire::open::Join;
use bytes::{Buf as _, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes in one frame.
pub(super) const FRAME_MAX: usize = 16 * 1024;

/// Kind and length.
const HEAD: usize = 3;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The guest typed this.
    Input(Bytes),
    /// The guest's window.
    Size { columns: u16, rows: u16 },
    /// The terminal shows this.
    Output(Bytes),
    /// It ends, and why.
    End(String),
}

/// The other end does not speak this.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum BadFrame {
    #[error("a frame of {0} bytes, more than {FRAME_MAX}")]
    TooLong(usize),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a size that is not four bytes")]
    Size,
}

impl Frame {
    /// Appends it. What is longer than a frame goes into several; an end is cut.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut one = |kind: u8, bytes: &[u8]| {
            // No longer than a frame, which is less than 64 KiB.
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            out.push(kind);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Input(bytes) => bytes.chunks(FRAME_MAX).for_each(|piece| one(b'I', piece)),
            Self::Output(bytes) => bytes.chunks(FRAME_MAX).for_each(|piece| one(b'O', piece)),
            Self::Size { columns, rows } => {
                let [a, b] = columns.to_be_bytes();
                let [c, d] = rows.to_be_bytes();
                one(b'S', &[a, b, c, d]);
            }
            Self::End(why) => {
                let bytes = why.as_bytes();
                one(b'E', bytes.get(..FRAME_MAX).unwrap_or(bytes));
            }
        }
    }

    fn read(kind: u8, bytes: Bytes) -> Result<Self, BadFrame> {
        match (kind, &*bytes) {
            (b'I', _) => Ok(Self::Input(bytes)),
            (b'O', _) => Ok(Self::Output(bytes)),
            (b'S', &[a, b, c, d]) => Ok(Self::Size {
                columns: u16::from_be_bytes([a, b]),
                rows: u16::from_be_bytes([c, d]),
            }),
            (b'S', _) => Err(BadFrame::Size),
            (b'E', text) => Ok(Self::End(String::from_utf8_lossy(text).into_owned())),
            (kind, _) => Err(BadFrame::Kind(kind)),
        }
    }
}

/// Frames out of bytes, however they come.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    /// The next one, if all of it is here.
    fn cut(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(&[kind, high, low]) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > FRAME_MAX {
            return Err(BadFrame::TooLong(length));
        }
        if self.0.len() < HEAD + length {
            return Ok(None);
        }
        self.0.advance(HEAD);
        Frame::read(kind, self.0.split_to(length).freeze()).map(Some)
    }

    /// The next one from the other end; `None` at its end, also where it breaks. Cancel-safe.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Frame>, BadFrame> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Some(frame));
            }
            self.0.reserve(FRAME_MAX / 4);
            match from.read_buf(&mut self.0).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }
}

/// What the supervisor says at a host's door for a guest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Knock {
    /// The guest's name.
    #[n(0)]
    pub name: String,
    /// The guest's own session.
    #[n(1)]
    pub session: String,
    /// Which terminal, and whether the guest may type.
    #[n(2)]
    pub join: Join,
}

/// The host's worker's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Answer {
    /// The number of the terminal, where there is a seat at it.
    #[n(0)]
    pub(super) terminal: Option<u32>,
    /// Why there is none.
    #[n(1)]
    pub(super) refused: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Size { columns: 80, rows: 24 },
            Frame::Input(Bytes::from_static(b"ls\r")),
            Frame::Output(Bytes::from(vec![7; FRAME_MAX])),
            Frame::Output(Bytes::new()),
            Frame::End("the session's terminal has ended".into()),
        ]
    }

    #[tokio::test]
    async fn frames_are_told_apart_however_they_come() {
        let mut bytes = Vec::new();
        let sent = frames();
        sent.iter().for_each(|frame| frame.write(&mut bytes));
        let sent: Vec<_> =
            sent.into_iter().filter(|frame| *frame != Frame::Output(Bytes::new())).collect();
        for step in [1, 2, 5, bytes.len()] {
            let mut pieces = tokio_test_reader(&bytes, step);
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            while let Some(frame) = frames.next(&mut pieces).await.unwrap() {
                got.push(frame);
            }
            assert_eq!(got, sent, "in pieces of {step}");
        }
    }

    /// A reader that gives so many bytes at once.
    fn tokio_test_reader(bytes: &[u8], step: usize) -> impl AsyncRead + Unpin {
        let (mut near, far) = tokio::io::duplex(step);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            drop(tokio::io::AsyncWriteExt::write_all(&mut near, &bytes).await);
        });
        far
    }

    #[tokio::test]
    async fn what_is_longer_than_a_frame_goes_into_several() {
        let mut bytes = Vec::new();
        Frame::Input(Bytes::from(vec![1; FRAME_MAX + 1])).write(&mut bytes);
        let mut from = bytes.as_slice();
        let mut frames = Frames::default();
        let mut lengths = Vec::new();
        while let Some(Frame::Input(piece)) = frames.next(&mut from).await.unwrap() {
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [FRAME_MAX, 1]);
    }

    #[tokio::test]
    async fn nonsense_ends_it_before_anything_is_kept() {
        let cases: [(&[u8], BadFrame); 3] = [
            (b"I\xff\xff", BadFrame::TooLong(0xffff)),
            (b"x\0\0", BadFrame::Kind(b'x')),
            (b"S\0\x03abc", BadFrame::Size),
        ];
        for (bytes, wanted) in cases {
            let mut from = bytes;
            assert_eq!(Frames::default().next(&mut from).await, Err(wanted));
        }
        let mut half: &[u8] = b"I\0\x05ab";
        assert_eq!(Frames::default().next(&mut half).await, Ok(None), "half a frame is none");
    }
}
