//! Bytes as they come, as text: a character that was cut in two is one again, and what is no UTF-8
//! is replaced (U+FFFD), as a terminal would show it.

/// Longest character in UTF-8 (RFC 3629).
const CHARACTER_MAX: usize = 4;

/// Decodes UTF-8 from pieces that end anywhere.
#[derive(Debug, Clone, Default)]
pub struct Utf8 {
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Utf8 {
    /// Appends what can be told of `bytes` to `out`. At most three bytes wait for the next piece.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut rest = bytes;
        while !self.begun.is_empty() {
            let Some((byte, after)) = rest.split_first() else { return };
            self.begun.push(*byte);
            match std::str::from_utf8(&self.begun) {
                Ok(character) => {
                    out.push_str(character);
                    self.begun.clear();
                    rest = after;
                }
                Err(error) if error.error_len().is_none() && self.begun.len() < CHARACTER_MAX => {
                    rest = after;
                }
                // The byte is none of the character's; it is looked at again by itself.
                Err(_) => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.begun.clear();
                }
            }
        }
        // As good as always, and several times faster.
        if let Ok(text) = std::str::from_utf8(rest) {
            return out.push_str(text);
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let is_last = chunks.peek().is_none();
            let unfinished =
                std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if is_last && unfinished {
                self.begun.extend_from_slice(invalid);
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Nothing follows: what waited is replaced.
    pub fn finish(&mut self, out: &mut String) {
        if !self.begun.is_empty() {
            self.begun.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(bytes: &[u8], step: usize) -> String {
        let (mut utf8, mut out) = (Utf8::default(), String::new());
        for piece in bytes.chunks(step) {
            utf8.push(piece, &mut out);
        }
        utf8.finish(&mut out);
        out
    }

    #[test]
    fn a_character_cut_anywhere_is_one() {
        let text = "aé世🦀\u{7f}\r\n";
        for step in 1..=text.len() {
            assert_eq!(in_pieces(text.as_bytes(), step), text, "{step}");
        }
    }

    proptest! {
        /// However the bytes are cut, the text is the one the whole makes.
        #[test]
        fn the_cut_makes_no_difference(
            bytes in prop::collection::vec(
                prop::sample::select(vec![b'a', 0xc3, 0xa9, 0xe4, 0xb8, 0x96, 0xf0, 0x9f, 0xa6, 0x80, 0xff, 0xed]),
                0..60,
            ),
            step in 1_usize..9,
        ) {
            prop_assert_eq!(in_pieces(&bytes, step), String::from_utf8_lossy(&bytes));
        }
    }
}
