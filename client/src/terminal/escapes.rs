//! `~.` and its like, after a newline only, as ssh(1) has them under ESCAPE CHARACTERS.
//!
//! A pure state machine over what is typed. Everything else passes byte for byte, also when a
//! multi-byte character is cut between two reads.

use bytes::{Bytes, BytesMut};

const ESCAPE: u8 = b'~';
const CONTROL_Z: u8 = 0x1a;

/// What a piece of typing turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the device.
    Bytes(Bytes),
    /// `~.`
    Disconnect,
    /// `~^Z`
    Suspend,
    /// `~?`
    Help,
}

/// Where in a line the typing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    AfterEscape,
    Inside,
}

/// The state machine. It begins at the start of a line.
#[derive(Debug)]
pub struct Escapes {
    at: At,
}

impl Default for Escapes {
    fn default() -> Self {
        Self::new()
    }
}

impl Escapes {
    /// What `~?` shows.
    pub const HELP: &str = "~?\n\
        Escapes, at the start of a line:\n \
        ~.   disconnect\n \
        ~^Z  suspend belay\n \
        ~~   send one ~\n \
        ~?   this help";

    /// At the start of a line.
    pub const fn new() -> Self {
        Self { at: At::LineStart }
    }

    /// Takes what was typed and says what it is, in order.
    pub fn feed(&mut self, typed: &Bytes) -> Vec<Typed> {
        // Nearly always there is nothing to find, and nothing is copied.
        if self.at != At::AfterEscape && !typed.contains(&ESCAPE) {
            if let Some(last) = typed.last() {
                self.at = after(*last);
            }
            return if typed.is_empty() { Vec::new() } else { vec![Typed::Bytes(typed.clone())] };
        }
        let mut found = Vec::new();
        let mut plain = BytesMut::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (self.at, byte) {
                (At::LineStart, ESCAPE) => self.at = At::AfterEscape,
                (At::AfterEscape, b'.' | b'?' | CONTROL_Z) => {
                    flush(&mut plain, &mut found);
                    found.push(match byte {
                        b'.' => Typed::Disconnect,
                        b'?' => Typed::Help,
                        _ => Typed::Suspend,
                    });
                    self.at = At::LineStart;
                }
                (At::AfterEscape, ESCAPE) => {
                    plain.extend_from_slice(&[ESCAPE]);
                    self.at = At::Inside;
                }
                (At::AfterEscape, _) => {
                    plain.extend_from_slice(&[ESCAPE, byte]);
                    self.at = after(byte);
                }
                (At::LineStart | At::Inside, _) => {
                    plain.extend_from_slice(&[byte]);
                    self.at = after(byte);
                }
            }
        }
        flush(&mut plain, &mut found);
        found
    }
}

const fn after(byte: u8) -> At {
    if matches!(byte, b'\r' | b'\n') { At::LineStart } else { At::Inside }
}

fn flush(plain: &mut BytesMut, found: &mut Vec<Typed>) {
    if !plain.is_empty() {
        found.push(Typed::Bytes(plain.split().freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Typed>) {
        let mut escapes = Escapes::new();
        let (mut bytes, mut rest) = (Vec::new(), Vec::new());
        for piece in pieces {
            for input in escapes.feed(&Bytes::copy_from_slice(piece)) {
                match input {
                    Typed::Bytes(plain) => bytes.extend_from_slice(&plain),
                    other @ (Typed::Disconnect | Typed::Suspend | Typed::Help) => rest.push(other),
                }
            }
        }
        (bytes, rest)
    }

    #[test]
    fn an_escape_counts_only_at_the_start_of_a_line() {
        assert_eq!(typed(&[b"~."]), (vec![], vec![Typed::Disconnect]));
        assert_eq!(typed(&[b"ls\r~."]), (b"ls\r".to_vec(), vec![Typed::Disconnect]));
        assert_eq!(typed(&[b"ls\n", b"~", b"."]), (b"ls\n".to_vec(), vec![Typed::Disconnect]));
        assert_eq!(typed(&[b"ls ~."]), (b"ls ~.".to_vec(), vec![]));
        assert_eq!(typed(&[b"cd ~/x\r"]), (b"cd ~/x\r".to_vec(), vec![]));
    }

    #[test]
    fn help_and_suspend_leave_the_line_at_its_start() {
        assert_eq!(
            typed(&[b"~?~\x1a~."]),
            (vec![], vec![Typed::Help, Typed::Suspend, Typed::Disconnect])
        );
    }

    #[test]
    fn a_doubled_escape_is_one_and_an_unknown_one_is_itself() {
        assert_eq!(typed(&[b"~~."]), (b"~.".to_vec(), vec![]));
        assert_eq!(typed(&[b"~x~."]), (b"~x~.".to_vec(), vec![]));
        assert_eq!(typed(&[b"~\r~."]), (b"~\r".to_vec(), vec![Typed::Disconnect]));
    }

    #[test]
    fn everything_else_passes_byte_for_byte_however_it_is_cut() {
        let text = "grün 温度 \u{1b}[A \0 ~ tilde\r~ x\r".as_bytes();
        for at in 0..=text.len() {
            let (a, b) = text.split_at(at);
            assert_eq!(typed(&[a, b]), (text.to_vec(), vec![]), "{at}");
        }
    }
}
