//! Which part of a flood of plain text leaves no trace on a screen.
//!
//! A screen reads about 40 MB a second, a program that prints a large file writes several times
//! that. But of plain lines only the last ones are seen again: those that still stand on the screen
//! or in its scrollback. What is before them need not be read, as long as nothing in the whole of it
//! can reach back: no cursor moved up, no margins, no other screen.
//!
//! It is exact where the screen is not in the middle of a sequence, but for one thing: where lines end without a carriage return (a raw terminal, on
//! which they make a staircase), the column of the first line that is left is lost.

/// What can be left out at the front, and what is to be read in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Bytes; what follows begins a line.
    pub(super) bytes: usize,
    /// Ends a text (a title, say) that was under way, sets the colours that may still hold, and
    /// begins a line.
    pub(super) instead: Vec<u8>,
}

const ESC: u8 = 0x1b;

/// ECMA-48: ends a sequence under way.
const CAN: u8 = 0x18;

/// Each byte of eight.
const ONES: u64 = u64::MAX / 0xff;
/// The highest bit of each.
const HIGH: u64 = ONES << 7;

/// How many bytes at the front are printable ASCII.
fn printable(bytes: &[u8]) -> usize {
    let mut count = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        // Below a space, above a tilde: the lowest byte that is marked is marked rightly, those above it
        // may have been borrowed from or carried into.
        let below = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
        let above = word.wrapping_add(ONES * u64::from(0x7f - b'~')) | word;
        let other = (below | above) & HIGH;
        if other != 0 {
            return count + other.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    count + rest.iter().take_while(|byte| (b' '..=b'~').contains(*byte)).count()
}

/// One line: where the next begins, and the least number of rows it takes.
#[derive(Clone, Copy)]
struct Line {
    end: usize,
    rows: usize,
}

/// Looks for what may be left out so that at least `rows` rows are left, on a screen that scrolls as
/// a whole and wraps after so many `columns`. `None` where nothing may be left out.
pub(super) fn skip(bytes: &[u8], rows: usize, columns: usize) -> Option<Skipped> {
    let mut lines = Vec::new();
    let mut colours = Vec::new();
    let (mut at, mut printed, mut plain) = (0, 0_usize, true);
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b' '..=b'~' => {
                let length = printable(bytes.get(at..).unwrap_or_default());
                printed += length;
                length
            }
            b'\n' => {
                let rows = if plain { printed.div_ceil(columns.max(1)).max(1) } else { 1 };
                lines.push(Line { end: at + 1, rows });
                (printed, plain) = (0, true);
                1
            }
            b'\r' => {
                plain &= bytes.get(at + 1) == Some(&b'\n');
                1
            }
            0x08 => {
                plain = false;
                1
            }
            ESC => {
                let sequence = bytes.get(at..).unwrap_or_default();
                let length = harmless(sequence)?;
                let sequence = sequence.get(..length).unwrap_or_default();
                if sequence.last() == Some(&b'm') {
                    colours.push((at, sequence));
                }
                length
            }
            // A C1 control in UTF-8.
            0xc2 if bytes.get(at + 1).is_some_and(|next| (0x80..0xa0).contains(next)) => {
                return None;
            }
            b'\t' | 0x07 | 0x80.. => 1,
            _ => return None,
        };
    }
    let mut left = 0;
    let cut = lines.iter().rev().find(|line| {
        let enough = left >= rows;
        left += line.rows;
        enough
    })?;
    let mut instead = vec![CAN];
    for (_, sequence) in colours.iter().filter(|(at, _)| *at < cut.end) {
        // A reset forgets all that was before it.
        if matches!(*sequence, b"\x1b[m" | b"\x1b[0m") {
            instead.truncate(1);
        }
        instead.extend_from_slice(sequence);
    }
    instead.extend_from_slice(b"\r\n");
    Some(Skipped { bytes: cut.end, instead })
}

/// The length of a sequence that only colours, or erases in its own line. One that is not there to
/// its end is looked at when it is.
fn harmless(sequence: &[u8]) -> Option<usize> {
    match sequence.get(1) {
        None => return Some(1),
        Some(b'[') => {}
        Some(_) => return None,
    }
    for (at, byte) in sequence.iter().enumerate().skip(2) {
        match byte {
            b'0'..=b'9' | b';' | b':' => {}
            b'm' | b'K' => return Some(at + 1),
            _ => return None,
        }
    }
    Some(sequence.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_rows_are_left_and_the_colours_before_them() {
        let text = b"\x1b[31mone\r\n\x1b[0m\x1b[1mtwo\x1b[32m\r\nthree\r\nfour";
        let skipped = skip(text, 1, 80).unwrap();
        assert_eq!(&text[skipped.bytes..], b"three\r\nfour");
        assert_eq!(skipped.instead, b"\x18\x1b[0m\x1b[1m\x1b[32m\r\n");
        assert_eq!(skip(text, 3, 80), None, "there are not so many");
        let skipped = skip(text, 3, 2).unwrap();
        assert_eq!(&text[skipped.bytes..], b"three\r\nfour", "a long line takes several");
    }

    #[test]
    fn whatever_may_reach_back_is_left_to_the_screen() {
        for reaching in
            ["\x1b[A", "\x1b[2J", "\x1bM", "\x1b]0;title\x07", "\x0e", "\u{9b}A", "\x1b[?1049h"]
        {
            for text in [format!("a{reaching}\r\nb\r\nc"), format!("a\r\nb\r\nc{reaching}")] {
                assert_eq!(skip(text.as_bytes(), 1, 80), None, "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn printable_bytes_are_counted_as_one_by_one(
            bytes in prop::collection::vec(
                prop_oneof![9 => b' '..=b'~', 1 => prop::sample::select(vec![
                    0, 0x1f, b' ', b'~', 0x7f, 0x80, 0x9f, 0xfe, 0xff, b'\n',
                ])],
                0..40,
            ),
        ) {
            let one_by_one = bytes.iter().take_while(|byte| (b' '..=b'~').contains(*byte)).count();
            prop_assert_eq!(printable(&bytes), one_by_one);
        }

        /// What is left out is not missed: the screens are the same.
        #[test]
        fn a_screen_that_skips_shows_what_one_that_reads_all_does(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "word", "\r\n", "\r\n", "\r\n", "\t", "\r", "\x1b[31m", "\x1b[0m", "\x1b[K", "é",
                    "\x1b[1;44m", "much longer than the screen is wide, and then some", "\x08",
                    "\x1b[mx", "世", "e\u{301}",
                ]),
                0..400,
            ),
            begin in prop::sample::select(vec!["", "\x1b[3;4Hx", "\x1b[35m"]),
        ) {
            let (columns, rows, history) = (12, 4, 6);
            let screen = || avt::Terminal::with_scrollback(columns, rows, Some(history)).unwrap();
            let (mut all, mut some) = (screen(), screen());
            all.feed(begin);
            some.feed(begin);
            let text = words.concat();
            all.feed(text.as_str());
            match skip(text.as_bytes(), rows + history + 1, columns) {
                Some(skipped) => {
                    some.feed(std::str::from_utf8(&skipped.instead).unwrap());
                    some.feed(&text[skipped.bytes..]);
                }
                None => some.feed(text.as_str()),
            }
            prop_assert_eq!(all.dump(), some.dump());
            let shown = |terminal: &avt::Terminal| {
                terminal.primary_screen().all_lines().map(|line| line.text()).collect::<Vec<_>>()
            };
            prop_assert_eq!(shown(&all), shown(&some));
        }
    }
}
