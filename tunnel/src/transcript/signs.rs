//! Signs of a text: what stands side by side in it, in a few bits.
//!
//! A block that has every word of what is wanted need not have them beside each other, and some texts
//! have no word at all. So each block has Bloom filters of two kinds of signs. Of *pairs*: a word, what is between
//! it and the next, and how that begins; and the same of three words. Of *marks*: up to three
//! characters in a row, letters and digits being all the same, where one of them is neither.
//!
//! Its law: a block that has a line with what is wanted has all signs of it. The hash is our own, since
//! what was written must be found by the next version too.

use super::words::WORD_MAX;

/// Bits of a filter for each of its signs. There are many pairs, and a text has several: one of twelve
/// that are not there passes for one that is. Of marks it is one of twenty.
pub(super) const PAIRS: usize = 6;
/// See [`PAIRS`].
pub(super) const MARKS: usize = 8;

/// A filter is so many bytes, or a multiple.
const STEP: usize = 32;

/// Of the next word, so many characters.
const NEXT: usize = 2;

/// Characters in a row.
const ROW: usize = 3;

/// In the place of letters and digits.
const ALNUM: char = '\u{0}';

/// FNV-1a, and a mixing of its bits at the end (that of MurmurHash3).
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const fn new(kind: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(kind)
    }

    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
    }

    fn text(self, text: &str) -> Self {
        text.bytes().fold(self, Self::byte).byte(0xff)
    }

    const fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }
}

/// The first so many characters.
pub(super) fn first(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// A line in pieces: letters and digits in turn with everything else, and which it is.
fn pieces(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let is_word = rest.chars().next()?.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at_checked(end)?;
        rest = after;
        Some((piece, is_word))
    })
}

/// Pairs of words of a line in small letters, and threes. Where it is `open`, the last word may go on, as that
/// of a text does which is searched for.
pub(super) fn pairs(line: &str, open: bool, out: &mut Vec<u64>) {
    // The word before, and what was before that, hashed with it.
    let (mut before, mut two): (Option<Hash>, Option<Hash>) = (None, None);
    let mut between = "";
    let mut left = line.len();
    for (piece, is_word) in pieces(line) {
        left -= piece.len();
        if !is_word {
            between = first(piece, WORD_MAX);
            continue;
        }
        let (begin, word) = (first(piece, NEXT), first(piece, WORD_MAX));
        let known = !open || left > 0 || piece.chars().nth(NEXT - 1).is_some();
        let next = |hash: Hash| hash.text(between);
        if known {
            out.extend([before, two].into_iter().flatten().map(|h| next(h).text(begin).finish()));
        }
        two = before.map(|before| next(before).text(word).byte(3));
        before = Some(Hash::new(1).text(word));
    }
}

/// Marks of a line.
pub(super) fn marks(line: &str, out: &mut Vec<u64>) {
    let mut row = [ALNUM; ROW];
    let mut length = 0;
    for c in line.chars() {
        row.rotate_left(1);
        if let Some(last) = row.last_mut() {
            *last = if c.is_alphanumeric() { ALNUM } else { c };
        }
        length = ROW.min(length + 1);
        for count in 1..=length {
            let these = row.get(ROW - count..).unwrap_or_default();
            if these.iter().all(|c| *c == ALNUM) {
                continue;
            }
            let hash = these.iter().fold(Hash::new(2), |hash, c| {
                (*c as u32).to_le_bytes().into_iter().fold(hash, Hash::byte)
            });
            out.push(hash.finish());
        }
    }
}

/// The sign of a word, for whoever has no index of words.
pub(super) fn word(word: &str) -> u64 {
    Hash::new(3).text(word).finish()
}

/// The two bits of a sign in a filter of so many bytes.
fn places(sign: u64, bytes: usize) -> [(usize, u8); 2] {
    let bits = bytes as u64 * 8;
    [sign & 0xffff_ffff, sign >> 32].map(|half| {
        let bit = (half * bits) >> 32;
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

/// A filter of these signs, with so many bits for each.
pub(super) fn filter(mut signs: Vec<u64>, bits: usize) -> Vec<u8> {
    signs.sort_unstable();
    signs.dedup();
    let bytes = (signs.len() * bits / 8).next_multiple_of(STEP).max(STEP);
    let mut filter = vec![0; bytes];
    for sign in signs {
        for (at, bit) in places(sign, bytes) {
            if let Some(byte) = filter.get_mut(at) {
                *byte |= bit;
            }
        }
    }
    filter
}

/// Whether all these signs may be in a filter.
pub(super) fn may_have(filter: &[u8], signs: &[u64]) -> bool {
    signs.iter().all(|sign| {
        let mut places = places(*sign, filter.len()).into_iter();
        places.all(|(at, bit)| filter.get(at).is_some_and(|byte| byte & bit != 0))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    type Signs = fn(&str, &mut Vec<u64>);

    const BLOCK: [Signs; 2] = [|line, out| pairs(line, false, out), marks];
    const WANTED: [Signs; 2] = [|text, out| pairs(text, true, out), marks];

    /// Filters of pairs and of marks.
    fn filters(lines: &[&str]) -> [Vec<u8>; 2] {
        BLOCK.map(|signs| {
            let mut all = Vec::new();
            lines.iter().for_each(|line| signs(line, &mut all));
            filter(all, PAIRS)
        })
    }

    fn may(filters: &[Vec<u8>; 2], text: &str) -> [bool; 2] {
        let mut filters = filters.iter();
        WANTED.map(|signs| {
            let mut wanted = Vec::new();
            signs(text, &mut wanted);
            filters.next().is_some_and(|filter| may_have(filter, &wanted))
        })
    }

    #[test]
    fn what_stands_side_by_side_is_told_from_what_stands_apart() {
        let filters = filters(&["$ sudo rm -rf /srv; echo done", "a && b", "sudo rm all"]);
        for text in [
            "rm -rf",
            "rm -r",
            "rm -",
            "sudo rm",
            "sudo rm -rf",
            "/srv; echo",
            "a && b",
            "&& ",
            "; e",
        ] {
            assert_eq!(may(&filters, text), [true, true], "{text}");
        }
        for text in ["rm /srv", "sudo -rf", "echo rm", "sudo rm /srv", "rm sudo rm"] {
            assert!(!may(&filters, text)[0], "{text}");
        }
        for text in ["&& ;;", "|", "; ;"] {
            assert!(!may(&filters, text)[1], "{text}");
        }
    }

    #[test]
    fn few_pass_for_what_is_there() {
        let lines: Vec<String> = (0..2000).map(|n| format!("w{n} v{n}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let filters = filters(&lines);
        assert!(filters[0].len() < 1600 && filters[1].len() == STEP, "{}", filters[0].len());
        let passed = (0..10_000).filter(|n| may(&filters, &format!("x{n} v1"))[0]).count();
        assert!((600..1100).contains(&passed), "{passed}");
    }
}
