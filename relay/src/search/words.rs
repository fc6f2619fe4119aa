//! Words: what the index knows lines by, and whether a line has a text.
//!
//! Its law: a block that has a line in which [`Wanted::is_in`] is true has all words of [`Wanted::query`],
//! whole or as a beginning; so the index leaves out nothing that is to be found.

use std::collections::BTreeSet;

/// Longest word kept, in characters: what is longer is known by its beginning.
const WORD_MAX: usize = 32;

/// Shortest beginning of a word that is looked up: shorter ones begin half of all words.
const BEGINNING_MIN: usize = 2;

/// The words of a line, in small letters, cut to [`WORD_MAX`].
pub(super) fn words(line: &str) -> Vec<String> {
    let line = lower(line);
    let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.chars().take(WORD_MAX).collect()).collect()
}

/// Words of several lines, each once.
pub(super) fn all<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let words: BTreeSet<String> = lines.flat_map(words).collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// A text that is searched for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    text: String,
    /// A word must begin where the text does.
    begins: bool,
    /// Words that a line with it has.
    whole: Vec<String>,
    /// The beginning of one more.
    beginning: Option<String>,
}

impl Wanted {
    pub(super) fn new(text: &str) -> Self {
        let lowered = lower(text);
        let mut whole = words(text);
        let ends_in_word = lowered.chars().next_back().is_some_and(char::is_alphanumeric);
        let beginning = if ends_in_word { whole.pop() } else { None };
        let begins = lowered.chars().next().is_some_and(char::is_alphanumeric);
        // What is as long as a kept word may be is cut as those are.
        let long = beginning.as_ref().is_some_and(|word| word.chars().count() >= WORD_MAX);
        let beginning = if long {
            whole.extend(beginning);
            None
        } else {
            beginning.filter(|word| word.chars().count() >= BEGINNING_MIN)
        };
        whole.sort();
        whole.dedup();
        Self { text: lowered, begins, whole, beginning }
    }

    /// What to ask the index for, in FTS5's language; nothing when every block may have it.
    pub(super) fn query(&self) -> Option<String> {
        let mut parts: Vec<String> = self.whole.iter().map(|word| format!("\"{word}\"")).collect();
        parts.extend(self.beginning.iter().map(|word| format!("\"{word}\"*")));
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }

    /// Whether one of these lines may have it: none has when this is false.
    pub(super) fn may_be_in(&self, lines: &str) -> bool {
        lower(lines).contains(&self.text)
    }

    /// Whether a line has it.
    pub(super) fn is_in(&self, line: &str) -> bool {
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

fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(Wanted::new("rm -rf").query().as_deref(), Some("\"rm\" AND \"rf\"*"));
        assert_eq!(Wanted::new("rm -r").query().as_deref(), Some("\"rm\""));
        assert_eq!(Wanted::new("rm -rf /").query().as_deref(), Some("\"rf\" AND \"rm\""));
        assert_eq!(Wanted::new(" && ").query(), None);
    }

    proptest! {
        /// Whatever is found, the index has known.
        #[test]
        fn what_is_in_a_line_is_among_its_words(
            line in "[a-cA-C0-1iÄßİŁ\u{301}\u{307} /.-]{0,40}", from in 0_usize..40, length in 1_usize..12,
        ) {
            let text: String = line.chars().skip(from).take(length).collect();
            let wanted = Wanted::new(&text);
            if wanted.is_in(&line) {
                prop_assert!(wanted.may_be_in(&line));
                let known: BTreeSet<String> = words(&line).into_iter().collect();
                for word in &wanted.whole {
                    prop_assert!(known.contains(word), "{word:?} of {text:?} in {line:?}");
                }
                if let Some(begin) = &wanted.beginning {
                    prop_assert!(known.iter().any(|word| word.starts_with(begin.as_str())));
                }
            }
        }
    }
}
