//! Bytes of one stream that have arrived and were not read yet.
//!
//! Its law: what is kept is copied into pieces of its own size. A slice of a message would keep the
//! whole message, and a peer could make a window of memory many times its size.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces below this are put together: a peer that sends single bytes costs no more than one that
/// sends many.
const SMALL: usize = 4 * 1024;

/// Where a piece put together from small ones is handed on.
const TOGETHER: usize = 16 * 1024;

/// The bytes, in order.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Inbox {
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.length += data.len();
        if data.len() >= SMALL {
            self.close_tail();
            self.whole.push_back(Bytes::copy_from_slice(data));
            return;
        }
        self.tail.extend_from_slice(data);
        if self.tail.len() >= TOGETHER {
            self.close_tail();
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// The next piece, of at most `most` bytes.
    pub(super) fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close_tail();
        }
        let first = self.whole.front_mut()?;
        let piece = if first.len() > most {
            first.split_to(most)
        } else {
            self.whole.pop_front().unwrap_or_default()
        };
        self.length -= piece.len();
        Some(piece)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn single_bytes_are_kept_as_cheaply_as_many() {
        let mut inbox = Inbox::default();
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for byte in sent.chunks(1) {
            inbox.push(byte);
        }
        assert!(inbox.whole.len() <= sent.len() / TOGETHER);
        inbox.push(&sent);
        let mut got = Vec::new();
        while let Some(piece) = inbox.pop(1000) {
            assert!(piece.len() <= 1000);
            got.extend_from_slice(&piece);
            assert_eq!(inbox.length(), 2 * sent.len() - got.len());
        }
        assert!(got[..sent.len()] == sent && got[sent.len()..] == sent);
    }
}
