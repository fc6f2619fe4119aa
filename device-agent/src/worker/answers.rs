//! What a terminal answers by itself, told from what a person types.
//!
//! A program asks its terminal what it is, where the cursor stands, which colours it has; every window
//! that shows the program gets the question, and each would answer. One answer is the program's, and the
//! session's own client gives it: those of a guest's terminal are left out here.
//!
//! What it is not: complete. What could be a key is one, such as a cursor report for the first row,
//! which looks like a function key with modifiers.

/// Longest sequence that is held back to be looked at.
const HELD_MAX: usize = 256;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Typed,
    /// After an escape that something follows.
    Escape,
    /// In a control sequence (ECMA-48, 5.4).
    Control,
    /// In a string that no key sends: device control, operating system command and the like.
    Answer,
    /// In one, after an escape: it ends, or goes on.
    Ending,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    state: State,
    held: Vec<u8>,
}

impl Answers {
    /// What of these bytes was typed. The beginning of a sequence may come with the next ones.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes.iter().copied().peekable();
        while let Some(byte) = rest.next() {
            self.step(byte, rest.peek().is_none(), &mut out);
        }
        out
    }

    fn step(&mut self, byte: u8, is_last: bool, out: &mut Vec<u8>) {
        match (self.state, byte) {
            // The key: nobody waits for what may follow it.
            (State::Typed, ESC) if is_last => out.push(byte),
            (State::Typed, ESC) => {
                self.held.push(byte);
                self.state = State::Escape;
            }
            (State::Typed, _) => out.push(byte),
            (State::Escape, b'[') => {
                self.held.push(byte);
                self.state = State::Control;
            }
            // OSC, DCS, APC, PM, SOS.
            (State::Escape, b']' | b'P' | b'_' | b'^' | b'X') if !is_last => {
                self.held.clear();
                self.state = State::Answer;
            }
            (State::Escape, _) => self.let_go(byte, out),
            (State::Control, b' '..=b'?') if self.held.len() < HELD_MAX => self.held.push(byte),
            (State::Control, b'@'..=b'~') if is_answer(&self.held, byte) => {
                self.held.clear();
                self.state = State::Typed;
            }
            (State::Control, _) => self.let_go(byte, out),
            (State::Answer, 0x07) => self.state = State::Typed,
            (State::Answer, ESC) => self.state = State::Ending,
            (State::Answer, _) => {}
            (State::Ending, b'\\') => self.state = State::Typed,
            (State::Ending, ESC) => {}
            (State::Ending, _) => self.state = State::Answer,
        }
    }

    fn let_go(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        out.push(byte);
        self.state = State::Typed;
    }
}

const ESC: u8 = 0x1b;

/// Whether a control sequence is an answer (xterm's `ctlseqs`): device attributes, status, cursor,
/// modes, window.
fn is_answer(held: &[u8], last: u8) -> bool {
    let parameters = held.get(2..).unwrap_or_default();
    match last {
        b'c' => matches!(parameters.first(), Some(b'?' | b'>' | b'=')),
        b'n' | b't' => true,
        b'y' => parameters.ends_with(b"$"),
        b'R' => parameters.contains(&b';') && !parameters.starts_with(b"1;"),
        // Kitty's keyboard, asked for.
        b'u' => parameters.starts_with(b"?"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> String {
        let mut answers = Answers::default();
        let bytes: Vec<u8> =
            pieces.iter().flat_map(|piece| answers.typed(piece.as_bytes())).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn what_a_person_types_passes_as_it_is() {
        let keys = [
            "ls -l\r",
            "\x1b",
            "\x1b[A",
            "\x1bOP",
            "\x1b[1;2R",
            "\x1b[15~",
            "\x1b[<0;10;5M",
            "\x1b[200~pasted\x1b[201~",
            "\x1bx",
            "\x1b]",
            "\x1bP",
            "é世",
            "\x1b\x1b[A",
            "\x1b[I",
        ];
        for key in keys {
            assert_eq!(typed(&[key]), key, "{key:?}");
        }
        assert_eq!(typed(&["a\x1b[", "1;5C"]), "a\x1b[1;5C", "in two pieces");
    }

    #[test]
    fn what_a_terminal_answers_does_not() {
        let answers = [
            "\x1b[?62;22c",
            "\x1b[>1;10;0c",
            "\x1b[0n",
            "\x1b[24;80R",
            "\x1b[?24;80R",
            "\x1b[8;24;80t",
            "\x1b[?2026;2$y",
            "\x1b]11;rgb:0000/0000/0000\x07",
            "\x1b]11;rgb:ffff/ffff/ffff\x1b\\",
            "\x1bP1+r436f=323536\x1b\\",
            "\x1bP>|xterm(370)\x1b\\",
            "\x1b_Gi=31;OK\x1b\\",
        ];
        for answer in answers {
            assert_eq!(typed(&[&format!("a{answer}b")]), "ab", "{answer:?}");
            // Cut shorter it is a key.
            for at in 3..answer.len() {
                let (begun, rest) = answer.split_at(at);
                assert_eq!(typed(&["a", begun, rest, "b"]), "ab", "{answer:?} cut at {at}");
            }
        }
    }

    #[test]
    fn little_is_held_back() {
        let mut answers = Answers::default();
        let long = "\x1b[".to_owned() + &"1;".repeat(10_000);
        let out = answers.typed(long.as_bytes());
        assert!(answers.held.len() <= HELD_MAX && out.len() >= long.len() - HELD_MAX);
    }
}
