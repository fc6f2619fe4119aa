//! Words: what an index knows lines by, and whether a line has a text.
//!
//! Its law: a block that has a line in which [`Wanted::is_in`] is true has all words of [`Wanted::query`],
//! whole or as a beginning, and all signs that the `may_be_among` functions ask for; so nothing is left out
//! that is to be found.

use super::signs::{first, marks, may_have, pairs, word};

/// Longest word kept, in characters: what is longer is known by its beginning.
pub(super) const WORD_MAX: usize = 32;

/// Beginnings of words up to this long, in characters, are words of their own: of the words that begin
/// so, there are too many to look each up.
const BEGINNING_MAX: usize = 3;

/// Stands before a beginning. It is in no word, being neither letter nor digit.
const BEGINNING: char = '\u{e000}';

/// Words of several lines in small letters, each once, and their beginnings.
pub(super) fn all(lines: &str) -> String {
    let words = lines.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut words: Vec<&str> = words.map(|word| first(word, WORD_MAX)).collect();
    words.sort_unstable();
    words.dedup();
    let mut all = String::with_capacity(lines.len());
    let mut before = [""; BEGINNING_MAX];
    for word in words {
        all.push_str(word);
        all.push(' ');
        for (length, before) in (1..).zip(&mut before) {
            let begin = first(word, length);
            // They are sorted, so that one that comes again follows itself.
            if begin != *before && begin.chars().count() == length {
                all.push(BEGINNING);
                all.push_str(begin);
                all.push(' ');
                *before = begin;
            }
        }
    }
    all.truncate(all.trim_end().len());
    all
}

/// A text that is searched for.
#[derive(Debug, Clone)]
pub struct Wanted {
    text: String,
    /// A word must begin where the text does.
    begins: bool,
    /// Words that a line with it has.
    whole: Vec<String>,
    /// The beginning of one more.
    beginning: Option<String>,
    /// Signs of it: what stands side by side, what is between words, and the words.
    pairs: Vec<u64>,
    marks: Vec<u64>,
    words: Vec<u64>,
}

impl Wanted {
    /// The text: a part of one line. Where it begins with a letter or digit, a word must begin there.
    pub fn new(text: &str) -> Self {
        let text = lower(text);
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let mut whole: Vec<String> = words.map(|word| first(word, WORD_MAX).to_owned()).collect();
        let ends_in_word = text.chars().next_back().is_some_and(char::is_alphanumeric);
        let mut beginning = if ends_in_word { whole.pop() } else { None };
        let begins = text.chars().next().is_some_and(char::is_alphanumeric);
        // What is as long as a kept word may be is cut as those are.
        if let Some(long) = beginning.take_if(|word| word.chars().count() >= WORD_MAX) {
            whole.push(long);
        }
        whole.sort();
        whole.dedup();
        let (mut all_pairs, mut all_marks) = (Vec::new(), Vec::new());
        pairs(&text, true, &mut all_pairs);
        marks(&text, &mut all_marks);
        let begin = beginning.as_ref().map(|word| first(word, BEGINNING_MAX));
        let mut words: Vec<u64> = whole.iter().map(|one| word(one)).collect();
        words.extend(begin.map(|begin| word(&format!("{BEGINNING}{begin}"))));
        Self { text, begins, whole, beginning, pairs: all_pairs, marks: all_marks, words }
    }

    /// What to ask an index of words ([`super::Block::words`]) for, in the language of SQLite's FTS5;
    /// nothing when every block may have it.
    pub fn query(&self) -> Option<String> {
        let mut parts: Vec<String> = self.whole.iter().map(|word| format!("\"{word}\"")).collect();
        parts.extend(self.beginning.iter().map(|word| {
            if word.chars().count() <= BEGINNING_MAX {
                format!("\"{BEGINNING}{word}\"")
            } else {
                format!("\"{word}\"*")
            }
        }));
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }

    /// Whether [`Self::may_be_among_pairs`] says anything.
    pub fn has_pairs(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Whether a block with these pairs ([`super::Block::pairs`]) may have it: it has not when this is false.
    pub fn may_be_among_pairs(&self, pairs: &[u8]) -> bool {
        may_have(pairs, &self.pairs)
    }

    /// Whether [`Self::may_be_among_marks`] says anything.
    pub fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether a block with these marks ([`super::Block::marks`]) may have it: it has not when this is false.
    pub fn may_be_among_marks(&self, marks: &[u8]) -> bool {
        may_have(marks, &self.marks)
    }

    /// Whether a block with these words ([`super::Block::word_signs`]) may have it: it has not when this is
    /// false.
    pub fn may_be_among_words(&self, signs: &[u8]) -> bool {
        may_have(signs, &self.words)
    }

    /// Whether one of these lines may have it: none has when this is false. `room` is for the work.
    pub(super) fn may_be_in(&self, lines: &str, room: &mut String) -> bool {
        room.clear();
        if lines.is_ascii() {
            room.push_str(lines);
            room.make_ascii_lowercase();
        } else {
            room.extend(lines.chars().flat_map(char::to_lowercase));
        }
        room.contains(&self.text)
    }

    /// Whether a line has it.
    pub fn is_in(&self, line: &str) -> bool {
        let line = lower(line);
        let mut from = 0;
        while let Some(at) = line.get(from..).and_then(|rest| rest.find(&self.text)) {
            let at = from + at;
            let before = line.get(..at).and_then(|before| before.chars().next_back());
            if !self.begins || !before.is_some_and(char::is_alphanumeric) {
                return true;
            }
            from =
                at + line.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
        }
        false
    }
}

pub(super) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::signs::{MARKS, PAIRS, filter};
    use super::*;

    #[test]
    fn a_text_is_found_where_it_stands_and_a_word_begins() {
        let has = |text: &str, line: &str| Wanted::new(text).is_in(line);
        assert!(has("rm -rf", "$ sudo RM -RF /var/cache"));
        assert!(has("rm -r", "rm -rf x") && has("-rf", "rm -rf x"));
        assert!(!has("rm -rf", "term -rf"), "another word's end is not meant");
        assert!(has("term", "xterm term") && !has("term", "xterm"));
        assert!(has("ÄPFEL", "drei äpfel") && has("温度", "温度 21"));
        assert!(has("&&", "a && b") && !has("&&", "a & b"));
        let query = |text: &str| Wanted::new(text).query();
        assert_eq!(query("rm -rf").as_deref(), Some("\"rm\" AND \"\u{e000}rf\""));
        assert_eq!(query("rm -r").as_deref(), Some("\"rm\" AND \"\u{e000}r\""));
        assert_eq!(query("rm -rf /").as_deref(), Some("\"rf\" AND \"rm\""));
        assert_eq!(query("shadow").as_deref(), Some("\"shadow\"*"));
        assert_eq!(query(" && "), None);
        assert_eq!(
            all("ab abc.abcd b"),
            "ab \u{e000}a \u{e000}ab abc \u{e000}abc abcd b \u{e000}b"
        );
    }

    proptest! {
        /// Whatever is found, the index has known.
        #[test]
        fn what_is_in_a_line_is_among_its_words_and_signs(
            line in "[a-cA-C0-1iÄßİŁ\u{301}\u{307}\u{e000} /.-]{0,40}", from in 0_usize..40, length in 1_usize..12,
        ) {
            let text: String = line.chars().skip(from).take(length).collect();
            let wanted = Wanted::new(&text);
            if !text.is_empty() && wanted.is_in(&line) {
                let lowered = lower(&line);
                prop_assert!(wanted.may_be_in(&line, &mut String::new()));
                let known = all(&lowered);
                let known: BTreeSet<&str> = known.split(' ').collect();
                for word in &wanted.whole {
                    prop_assert!(known.contains(word.as_str()), "{word:?} of {text:?} in {line:?}");
                }
                if let Some(begin) = &wanted.beginning {
                    prop_assert!(known.iter().any(|word| word.starts_with(begin.as_str())));
                    let short = format!("{BEGINNING}{begin}");
                    prop_assert!(begin.chars().count() > BEGINNING_MAX || known.contains(short.as_str()));
                }
                let known = known.iter().map(|one| word(one)).collect();
                prop_assert!(wanted.may_be_among_words(&filter(known, MARKS)));
                let (mut all_pairs, mut all_marks) = (Vec::new(), Vec::new());
                pairs(&lowered, false, &mut all_pairs);
                marks(&lowered, &mut all_marks);
                prop_assert!(wanted.may_be_among_pairs(&filter(all_pairs, PAIRS)), "{text:?} in {line:?}");
                prop_assert!(wanted.may_be_among_marks(&filter(all_marks, MARKS)), "{text:?} in {line:?}");
            }
        }
    }
}
