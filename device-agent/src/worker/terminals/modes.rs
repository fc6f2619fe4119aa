//! What a program has switched on at its terminal and the screen's own state does not show.
//!
//! The screen library keeps what it draws by. Bracketed paste, mouse and focus reports and the
//! keypad change nothing it draws, so it forgets them; a client that attaches has to switch them
//! on again. Beside them this notes whether margins may be set, which nobody can ask the library.

/// Private modes (`CSI ? n h`) that are told to a client that attaches: mouse reports and their
/// encodings, focus reports, bracketed paste (xterm's `ctlseqs`).
const TOLD: [u16; 8] = [1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004];

/// DECAWM.
const AUTO_WRAP: u16 = 7;

/// Longest control sequence looked at; longer ones set nothing that matters here.
const SEQUENCE_MAX: usize = 64;

/// Watches what is fed to a screen.
#[derive(Debug, Default)]
pub(super) struct Modes {
    /// By place in [`TOLD`].
    on: [bool; TOLD.len()],
    keypad: bool,
    margins: bool,
    cut_off: bool,
    state: State,
    sequence: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    Control,
}

impl Modes {
    /// Looks at bytes in the order the screen gets them, cut anywhere.
    pub(super) fn watch(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.state == State::Ground {
                let Some(at) = bytes.iter().position(|byte| *byte == ESC) else { return };
                bytes = bytes.get(at + 1..).unwrap_or_default();
                self.state = State::Escape;
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.step(*byte);
        }
    }

    /// Whether something other than the whole screen may scroll.
    pub(super) fn has_margins(&self) -> bool {
        self.margins
    }

    /// Whether a line that is too long goes on in the next (DECAWM).
    pub(super) fn wraps(&self) -> bool {
        !self.cut_off
    }

    /// What switches on, at a terminal that was just reset, what is on here.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for (mode, _) in TOLD.iter().zip(self.on).filter(|(_, on)| *on) {
            told.push_str(&format!("\x1b[?{mode}h"));
        }
        if self.keypad {
            told.push_str("\x1b=");
        }
        told
    }

    fn step(&mut self, byte: u8) {
        match (self.state, byte) {
            (_, ESC) => {
                self.sequence.clear();
                self.state = State::Escape;
            }
            (State::Escape, b'[') => self.state = State::Control,
            (State::Escape, b'=') => self.simple(|modes| modes.keypad = true),
            (State::Escape, b'>') => self.simple(|modes| modes.keypad = false),
            // RIS: everything as at the beginning.
            (State::Escape, b'c') => *self = Self::default(),
            (State::Control, b'@'..=b'~') => {
                let sequence = std::mem::take(&mut self.sequence);
                self.state = State::Ground;
                self.control(&sequence, byte);
            }
            (State::Control, b' '..=b'?') if self.sequence.len() < SEQUENCE_MAX => {
                self.sequence.push(byte);
            }
            (State::Ground | State::Escape | State::Control, _) => self.simple(|_| {}),
        }
    }

    fn simple(&mut self, change: impl FnOnce(&mut Self)) {
        self.sequence.clear();
        self.state = State::Ground;
        change(self);
    }

    fn control(&mut self, sequence: &[u8], last: u8) {
        match (sequence.split_first(), last) {
            (Some((b'?', numbers)), b'h' | b'l') => {
                for number in numbers.split(|byte| *byte == b';') {
                    let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
                    if number == Some(AUTO_WRAP) {
                        self.cut_off = last == b'l';
                    }
                    let place = TOLD.iter().position(|mode| Some(*mode) == number);
                    if let Some(on) = place.and_then(|place| self.on.get_mut(place)) {
                        *on = last == b'h';
                    }
                }
            }
            // DECSTBM; without numbers it is the whole screen.
            (first, b'r')
                if first.is_none_or(|(byte, _)| byte.is_ascii_digit() || *byte == b';') =>
            {
                self.margins = first.is_some();
            }
            // DECSTR.
            (Some((b'!', [])), b'p') => {
                self.margins = false;
                self.cut_off = false;
                self.keypad = false;
            }
            _ => {}
        }
    }
}

const ESC: u8 = 0x1b;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[&str]) -> Modes {
        let mut modes = Modes::default();
        for piece in pieces {
            modes.watch(piece.as_bytes());
        }
        modes
    }

    #[test]
    fn what_is_on_is_told_and_what_was_switched_off_is_not() {
        let modes = after(&["text\x1b[?2004h$ \x1b[?1000;1006h\x1b=more", "\x1b[?1000l\x1b[31m"]);
        assert_eq!(modes.told(), "\x1b[?1006h\x1b[?2004h\x1b=");
        assert_eq!(after(&["\x1b[?2004h\x1b=", "\x1bc"]).told(), "");
        assert_eq!(after(&["\x1b[?25l\x1b[?1049h\x1b[2004h"]).told(), "");
    }

    #[test]
    fn a_sequence_may_be_cut_anywhere() {
        let text = "a\x1b[?2004hb";
        for at in 0..text.len() {
            let (one, two) = text.split_at(at);
            assert_eq!(after(&[one, two]).told(), "\x1b[?2004h", "{at}");
        }
    }

    #[test]
    fn margins_are_noted_until_they_are_reset() {
        assert!(after(&["\x1b[2;10r"]).has_margins());
        for off in ["\x1b[r", "\x1bc", "\x1b[!p"] {
            assert!(!after(&["\x1b[2;10r", off]).has_margins(), "{off:?}");
        }
        assert!(!after(&["\x1b[?1r\x1b[31mr"]).has_margins());
        assert!(after(&["\x1b[?7l\x1b[?7h"]).wraps() && !after(&["\x1b[?7l"]).wraps());
    }

    #[test]
    fn an_endless_sequence_takes_no_memory() {
        let mut modes = after(&["\x1b["]);
        modes.watch(&[b'1'; 100_000]);
        assert!(modes.sequence.capacity() <= 2 * SEQUENCE_MAX);
    }
}
