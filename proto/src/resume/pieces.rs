//! A queue of bytes in pieces: large ones kept as they came, small ones gathered.
//!
//! Its law: memory stays in proportion to the bytes held, whatever the sizes they came in. A small
//! slice would pin the whole block it was cut from, and a queue of single bytes would cost thirty
//! times what it holds; so pieces below [`KEEP_WHOLE`] are copied together.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

/// Pieces of at least this many bytes are kept without copying. Blocks read from an attachment are
/// of 64 KiB, so a piece pins at most four times itself; copying 16 KiB takes about a microsecond.
pub(super) const KEEP_WHOLE: usize = 16 * 1024;

/// How much is gathered into one piece.
const GATHER: usize = 64 * 1024;

/// What an empty queue may keep allocated, so that single keystrokes need no allocation.
const KEEP_ALLOCATED: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Pieces {
    whole: VecDeque<Bytes>,
    /// Comes after `whole`; never longer than [`GATHER`].
    gathered: BytesMut,
    length: usize,
}

impl Pieces {
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < KEEP_WHOLE {
            self.push_slice(&bytes);
            return;
        }
        self.close_gathered();
        self.length += bytes.len();
        self.whole.push_back(bytes);
    }

    pub(super) fn push_slice(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            if self.gathered.len() >= GATHER {
                self.close_gathered();
            }
            let fits = bytes.len().min(GATHER - self.gathered.len());
            let (now, later) = bytes.split_at(fits);
            self.gathered.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The first piece, at most `most` bytes of it.
    pub(super) fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close_gathered();
        }
        let first = self.whole.front_mut()?;
        let piece =
            if first.len() > most { first.split_to(most) } else { self.whole.pop_front()? };
        self.length -= piece.len();
        Some(piece)
    }

    /// Forgets the first `count` bytes; how many whole pieces went with them.
    pub(super) fn forget(&mut self, count: usize) -> usize {
        let mut left = count.min(self.length);
        self.length -= left;
        let mut gone = 0;
        while left > 0 {
            let Some(first) = self.whole.front_mut() else { break };
            if first.len() > left {
                first.advance(left);
                return gone;
            }
            left -= first.len();
            self.whole.pop_front();
            gone += 1;
        }
        self.gathered.advance(left.min(self.gathered.len()));
        if self.length == 0 && self.gathered.capacity() > KEEP_ALLOCATED {
            self.gathered = BytesMut::new();
        }
        gone
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Where byte `at` of the queue is.
    pub(super) fn find(&self, mut at: usize) -> Cursor {
        for (piece, bytes) in self.whole.iter().enumerate() {
            if at < bytes.len() {
                return Cursor { piece, within: at };
            }
            at -= bytes.len();
        }
        Cursor { piece: self.whole.len(), within: at }
    }

    /// Copies `length` bytes from the cursor on, and moves it behind them.
    pub(super) fn copy(&self, cursor: &mut Cursor, mut length: usize, out: &mut BytesMut) {
        while length > 0 {
            let piece = self.whole.get(cursor.piece);
            let bytes: &[u8] = piece.map_or(&self.gathered, |piece| piece);
            let Some(rest) = bytes.get(cursor.within..) else { return };
            let now = rest.get(..length).unwrap_or(rest);
            out.extend_from_slice(now);
            length -= now.len();
            if piece.is_none() {
                cursor.within += now.len();
                return;
            }
            cursor.pass(now.len(), bytes.len());
        }
    }

    /// Shares `length` bytes from the cursor on without copying, and moves it behind them.
    pub(super) fn share(&mut self, cursor: &mut Cursor, mut length: usize, out: &mut Vec<Bytes>) {
        while length > 0 {
            if cursor.piece == self.whole.len() {
                // The gathered bytes become the piece the cursor is at.
                self.close_gathered();
            }
            let Some(bytes) = self.whole.get(cursor.piece) else { return };
            let end = bytes.len().min(cursor.within.saturating_add(length));
            let now = bytes.slice(cursor.within..end);
            length -= now.len();
            cursor.pass(now.len(), bytes.len());
            // Empty where the cursor stood at the end of what was still being gathered.
            if !now.is_empty() {
                out.push(now);
            }
        }
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.whole.push_back(self.gathered.split().freeze());
        }
    }
}

/// A place in a queue: a whole piece, or the one after the last, which is the gathered bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) piece: usize,
    pub(super) within: usize,
}

impl Cursor {
    const fn pass(&mut self, count: usize, piece_length: usize) {
        self.within += count;
        if self.within >= piece_length {
            self.piece += 1;
            self.within = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 % 251) as u8).collect()
    }

    #[test]
    fn single_bytes_are_gathered_and_large_pieces_are_not_copied() {
        let mut pieces = Pieces::default();
        for byte in text(1000) {
            pieces.push(Bytes::from(vec![byte]));
        }
        assert_eq!((pieces.whole.len(), pieces.len()), (0, 1000));
        let large = Bytes::from(text(KEEP_WHOLE));
        pieces.push(large.clone());
        assert_eq!(pieces.whole.len(), 2);
        assert_eq!(pieces.pop(usize::MAX).unwrap(), text(1000));
        assert_eq!(pieces.pop(usize::MAX).unwrap().as_ptr(), large.as_ptr());
        assert_eq!(pieces.pop(usize::MAX), None);
    }

    #[test]
    fn a_cursor_reads_on_whatever_is_pushed_and_forgotten() {
        let whole = text(300_000);
        let mut pieces = Pieces::default();
        let (mut cursor, mut read, mut forgotten, mut at) = (Cursor::default(), 0, 0, 0);
        for step in 0usize.. {
            let n = [1, 100, 20_000, 16_384, 70_000, 3][step % 6].min(whole.len() - at);
            if step % 2 == 0 {
                pieces.push_slice(&whole[at..at + n]);
            } else {
                pieces.push(Bytes::copy_from_slice(&whole[at..at + n]));
            }
            at += n;
            let length = (at - read).min(1 + step * 977 % 30_000);
            let mut out = Vec::new();
            if step % 3 == 0 {
                pieces.share(&mut cursor, length, &mut out);
            } else {
                let mut copy = BytesMut::new();
                pieces.copy(&mut cursor, length, &mut copy);
                out.push(copy.freeze());
            }
            assert_eq!(out.concat(), &whole[read..read + length]);
            read += length;
            let forget = (read - forgotten).min(step * 613 % 25_000);
            let gone = pieces.forget(forget);
            forgotten += forget;
            if cursor.piece > gone {
                cursor.piece -= gone;
            } else {
                cursor = pieces.find(read - forgotten);
            }
            assert_eq!(pieces.len(), at - forgotten);
            if read == whole.len() {
                break;
            }
        }
    }
}
