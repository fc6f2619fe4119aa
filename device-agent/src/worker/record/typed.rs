//! What is typed at a terminal, as far as the terminal echoed it.
//!
//! Its law: nothing is kept that was typed while the terminal did not echo. Whether it does (ECHO,
//! termios(3)) is asked before the bytes are written, and that alone would not do: the program may
//! turn it off before the kernel looks at them, or has turned it off and on again by the time anybody
//! asks a second time. So what was typed is held until the terminal has shown it too, and is kept only
//! if the terminal still echoes then. What is not shown soon, or is followed by something typed unseen,
//! is forgotten.
//!
//! So a password is not kept, and neither are keys that a program reads with echo off and draws by
//! itself (a shell's line editor, an editor): those stand in what the terminal shows. What was typed
//! ahead, before the program turned echo off, the terminal has echoed: it is in both.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::time::Duration;

use belay_proto::recording::cast::Code;
use rustix::termios::{LocalModes, tcgetattr};
use tokio::time::Instant;

use super::Track;

/// Kept or forgotten as one: a line, or so much of a longer one. The kernel echoes what comes in one
/// go in blocks of this size (`ECHO_BLOCK`, n_tty.c).
const PIECE_MAX: usize = 256;

/// Held at most. Between what is written to a terminal and its echo that is read there are three of
/// the kernel's buffers, of 8, 4 and 8 KiB.
const HELD_MAX: usize = 32 * 1024;

/// An echo comes at once; only a terminal that is not read holds it up.
const ECHOES_WITHIN: Duration = Duration::from_secs(2);

/// Some bytes typed while the terminal echoed.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Those before this were shown, or are not shown as they are.
    next: usize,
    at: Instant,
}

impl Piece {
    fn new(bytes: &[u8], at: Instant) -> Self {
        let mut piece = Self { bytes: bytes.to_vec(), next: 0, at };
        piece.pass();
        piece
    }

    /// Control characters are echoed in several ways or not at all, and are no secrets: they go with
    /// what is around them.
    fn pass(&mut self) {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        let passed = rest.iter().take_while(|byte| !is_shown(**byte)).count();
        self.next += passed;
    }

    fn see(&mut self, shown: u8) {
        let Some(wanted) = self.bytes.get(self.next) else { return };
        // The end of a line is one, however it was typed and is shown.
        if *wanted == shown || (is_line_end(*wanted) && is_line_end(shown)) {
            self.next += 1;
            self.pass();
        }
    }

    fn is_whole(&self) -> bool {
        self.next >= self.bytes.len()
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_shown(byte: u8) -> bool {
    is_line_end(byte) || !byte.is_ascii_control()
}

/// What was typed and was not shown yet, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Typing {
    held: VecDeque<Piece>,
    bytes: usize,
}

impl Typing {
    /// These were typed, and the terminal echoed just before. What there is no room for.
    fn typed(&mut self, bytes: &[u8], now: Instant) -> usize {
        let room = HELD_MAX.saturating_sub(self.bytes).min(bytes.len());
        let (taken, lost) = bytes.split_at(room);
        let lines = taken.split_inclusive(|byte| is_line_end(*byte));
        self.held.extend(lines.flat_map(|line| line.chunks(PIECE_MAX)).map(|p| Piece::new(p, now)));
        self.bytes += room;
        lost.len()
    }

    /// The terminal showed this.
    fn shown(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        let mut kept = self.whole();
        for byte in bytes {
            let Some(first) = self.held.front_mut() else { return kept };
            first.see(*byte);
            if first.is_whole() {
                kept.append(&mut self.whole());
            }
        }
        // Looked at after what was shown, which may have waited for its reader.
        while let Some(first) = self.held.front()
            && now.saturating_duration_since(first.at) > ECHOES_WITHIN
        {
            self.bytes -= first.bytes.len();
            self.held.pop_front();
        }
        kept
    }

    /// What is at the front and was shown.
    fn whole(&mut self) -> Vec<u8> {
        let mut kept = Vec::new();
        while let Some(first) = self.held.pop_front_if(|first| first.is_whole()) {
            self.bytes -= first.bytes.len();
            kept.extend(first.bytes);
        }
        kept
    }

    /// The terminal does not echo: none of this is kept.
    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Whether the terminal echoes. One that cannot be asked does not.
fn echoes(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).is_ok_and(|termios| termios.local_modes.contains(LocalModes::ECHO))
}

impl Track {
    /// Writes to a terminal what a client typed, and records of it what is to be recorded. Whatever
    /// is typed goes this way, whoever types.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(in crate::worker) fn type_into(&self, master: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        let Some(typing) = &self.typing else { return Ok(rustix::io::write(master, bytes)?) };
        let mut typing = typing.lock().unwrap_or_else(PoisonError::into_inner);
        let echoed = echoes(master);
        let written = rustix::io::write(master, bytes)?;
        if !echoed {
            typing.forget();
            return Ok(written);
        }
        let lost = typing.typed(bytes.get(..written).unwrap_or_default(), Instant::now());
        let kept = typing.whole();
        drop(typing);
        self.keep(&kept);
        if lost > 0 {
            self.tell(0, |buffer, _| buffer.lose(lost));
        }
        Ok(written)
    }

    /// The terminal showed this.
    pub(in crate::worker) fn echoed(&self, master: &OwnedFd, bytes: &[u8]) {
        let Some(typing) = &self.typing else { return };
        let mut typing = typing.lock().unwrap_or_else(PoisonError::into_inner);
        if typing.held.is_empty() {
            return;
        }
        let kept = typing.shown(bytes, Instant::now());
        if !kept.is_empty() && !echoes(master) {
            return typing.forget();
        }
        drop(typing);
        self.keep(&kept);
    }

    /// Waits until more of what is typed can be recorded, where it is. Cancel-safe.
    pub(in crate::worker) async fn room_to_type(&self) {
        if self.typing.is_some() {
            self.room().await;
        }
    }

    /// Into the recording: it was typed, and shown.
    pub(super) fn keep(&self, typed: &[u8]) {
        if !typed.is_empty() {
            self.tell(typed.len(), |buffer, at| buffer.shown(Code::Input, typed, at));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn what_was_typed_is_kept_when_it_is_shown_and_not_before() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        assert_eq!(typing.typed(b"ls -l\r", now), 0);
        assert_eq!(typing.whole(), b"");
        assert_eq!(typing.shown(b"ls", now), b"");
        assert_eq!(typing.shown(b" -l\r\n", now), b"ls -l\r");
        assert_eq!((typing.held.len(), typing.bytes), (0, 0));
        typing.typed("\u{e9}".as_bytes(), now);
        assert_eq!(text(&typing.shown("\u{e9}".as_bytes(), now)), "\u{e9}");
    }

    #[test]
    fn controls_go_with_what_is_around_them() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.typed(b"\x03", now);
        assert_eq!(typing.whole(), b"\x03");
        typing.typed(b"ax\x7fb\x1b[A\n", now);
        typing.typed(b"\x04", now);
        assert_eq!(typing.whole(), b"");
        assert_eq!(typing.shown(b"ax\x08 \x08b^[[A\r\n", now), b"ax\x7fb\x1b[A\n\x04");
    }

    #[test]
    fn what_is_not_shown_is_forgotten_and_holds_nothing_up_for_long() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.typed(b"secret", now);
        assert_eq!(typing.shown(b"[sudo] password for root: ", now), b"");
        let later = now + 2 * ECHOES_WITHIN;
        typing.typed(b"id", later);
        assert_eq!(typing.shown(b"\r\n", later), b"");
        assert_eq!(typing.shown(b"id", later), b"id");
        typing.typed(b"secret", later);
        typing.forget();
        assert_eq!((typing.shown(b"secret", later), typing.bytes), (Vec::new(), 0));
    }

    #[test]
    fn a_line_is_kept_by_itself_and_what_is_held_is_bounded() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.typed(b"one\rtwo\r", now);
        assert_eq!(typing.shown(b"one\r\ntw", now), b"one\r");
        typing.forget();
        assert_eq!(typing.typed(&vec![b'x'; HELD_MAX + 7], now), 7);
        assert_eq!(typing.typed(b"y", now), 1);
        let shown = vec![b'x'; HELD_MAX];
        assert_eq!(typing.shown(&shown, now).len(), HELD_MAX);
        assert_eq!(typing.bytes, 0);
    }
}
