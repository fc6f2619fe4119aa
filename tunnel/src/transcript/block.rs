//! Lines of one recording, packed: what an index keeps of them.

use std::io;

use minicbor::{Decode, Encode};

use zstd::bulk::Decompressor;

use super::signs::{MARKS, PAIRS, filter, marks, pairs, word};
use super::words::{Wanted, lower};

/// Text of one block, in bytes: it compresses well, and is looked through in tens of microseconds.
const BLOCK_TEXT: usize = 16 * 1024;

/// Lines of one block.
const BLOCK_LINES: usize = 512;

/// Longest line kept, in bytes.
pub const LINE_MAX: usize = 4096;

/// Longest command kept with the lines it made, in bytes.
pub(super) const COMMAND_MAX: usize = 200;

/// Largest text of a block, unpacked.
const TEXT_MAX: usize = BLOCK_TEXT + LINE_MAX + BLOCK_LINES;

/// Largest account of a block's lines, unpacked: each line's command, and the numbers around it.
const ABOUT_MAX: usize = BLOCK_LINES * (COMMAND_MAX + 48);

/// Fast, and about a fifth of the size.
const LEVEL: i32 = 3;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A terminal or a command showed it.
    #[n(0)]
    Output,
    /// It was run.
    #[n(1)]
    Command,
    /// Something that happened.
    #[n(2)]
    Fact,
    /// It stood on a screen that a full-screen program drew.
    #[n(3)]
    Screen,
}

impl Kind {
    /// As the API has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Command => "command",
            Self::Fact => "fact",
            Self::Screen => "screen",
        }
    }
}

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which terminal or command.
    pub track: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Milliseconds since the track began.
    pub offset_ms: u64,
    /// What it is.
    pub kind: Kind,
    /// Without its end; at most [`LINE_MAX`] bytes.
    pub text: String,
    /// The command that made it.
    pub command: Option<String>,
}

/// A line without its text. The times are what they are more than the line's before, which is little.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct About {
    #[n(0)]
    track: u32,
    #[n(1)]
    at_more: i64,
    /// Of when the track began.
    #[n(2)]
    begun_more: i64,
    #[n(3)]
    kind: Kind,
    #[n(4)]
    command: Option<String>,
}

/// Times of a line, to tell the next one's by.
#[derive(Default, Clone, Copy)]
struct Times {
    at: u64,
    begun: u64,
}

impl Line {
    /// With texts cut to what is kept.
    pub(super) fn bounded(mut self) -> Self {
        cut(&mut self.text, LINE_MAX);
        if self.text.contains('\n') {
            self.text = self.text.replace('\n', " ");
        }
        if let Some(command) = &mut self.command {
            cut(command, COMMAND_MAX);
        }
        self
    }
}

/// Cuts a text to so many bytes.
pub(super) fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

/// Lines that are gathered for a block.
#[derive(Debug, Default)]
pub struct Gathering {
    lines: Vec<Line>,
    text: usize,
}

/// A block, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// When the newest of its lines was shown, in milliseconds since 1970.
    pub last_ms: u64,
    /// Its words with spaces between them, for an index of words.
    pub words: String,
    /// What words stand side by side in it, in few bits: [`Wanted::may_be_among_pairs`] reads it.
    pub pairs: Vec<u8>,
    /// What stands between words: [`Wanted::may_be_among_marks`] reads it.
    pub marks: Vec<u8>,
    /// [`Reader`] reads it: the length of the packed text in four bytes, the packed text, and what its
    /// lines are, packed.
    pub packed: Vec<u8>,
}

impl Block {
    /// The same words in few bits, where there is no index of them: [`Wanted::may_be_among_words`] reads
    /// it.
    pub fn word_signs(&self) -> Vec<u8> {
        filter(self.words.split(' ').map(word).collect(), MARKS)
    }
}

impl Gathering {
    /// Takes a line; gives a block back when one is full.
    ///
    /// # Errors
    /// When memory is short.
    pub fn push(&mut self, line: Line) -> io::Result<Option<Block>> {
        self.text += line.text.len();
        self.lines.push(line);
        if self.text >= BLOCK_TEXT || self.lines.len() >= BLOCK_LINES {
            return self.finish();
        }
        Ok(None)
    }

    /// What is left.
    ///
    /// # Errors
    /// When memory is short.
    pub fn finish(&mut self) -> io::Result<Option<Block>> {
        let lines = std::mem::take(&mut self.lines);
        self.text = 0;
        let Some(last_ms) = lines.iter().map(|line| line.at_ms).max() else { return Ok(None) };
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let text = texts.join("\n");
        let lowered = lower(&text);
        let words = super::words::all(&lowered);
        let (mut all_pairs, mut all_marks) = (Vec::new(), Vec::new());
        for line in lowered.split('\n') {
            pairs(line, false, &mut all_pairs);
            marks(line, &mut all_marks);
        }
        let (pairs, marks) = (filter(all_pairs, PAIRS), filter(all_marks, MARKS));
        let mut before = Times::default();
        let about: Vec<About> = lines
            .into_iter()
            .map(|line| {
                let Line { track, at_ms: at, offset_ms, kind, text: _, command } = line;
                let begun = at.wrapping_sub(offset_ms);
                let at_more = at.wrapping_sub(before.at).cast_signed();
                let begun_more = begun.wrapping_sub(before.begun).cast_signed();
                before = Times { at, begun };
                About { track, at_more, begun_more, kind, command }
            })
            .collect();
        let about = minicbor::to_vec(about).map_err(io::Error::other)?;
        let (text, about) =
            (zstd::bulk::compress(text.as_bytes(), LEVEL)?, zstd::bulk::compress(&about, LEVEL)?);
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let packed = [&length.to_le_bytes(), text.as_slice(), &about].concat();
        Ok(Some(Block { last_ms, words, pairs, marks, packed }))
    }
}

/// Reads blocks. It has the room for one, so nobody makes one a block.
pub struct Reader {
    zstd: Decompressor<'static>,
    text: Vec<u8>,
    lowered: String,
}

impl Reader {
    /// With nothing read yet.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new() -> io::Result<Self> {
        let (text, lowered) = (Vec::with_capacity(TEXT_MAX), String::new());
        Ok(Self { zstd: Decompressor::new()?, text, lowered })
    }

    /// The lines of a block ([`Block::packed`]) that have what is wanted.
    ///
    /// # Errors
    /// When it is no block.
    pub fn lines_with(&mut self, packed: &[u8], wanted: &Wanted) -> io::Result<Vec<Line>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is no block");
        let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)?;
        let (text, about) = rest.split_at_checked(length).ok_or_else(damaged)?;
        self.text.clear();
        self.zstd.decompress_to_buffer(text, &mut self.text)?;
        let text = std::str::from_utf8(&self.text).map_err(io::Error::other)?;
        if !wanted.may_be_in(text, &mut self.lowered) {
            return Ok(Vec::new());
        }
        let about = self.zstd.decompress(about, ABOUT_MAX)?;
        let about: Vec<About> = minicbor::decode(&about).map_err(io::Error::other)?;
        let mut times = Times::default();
        let mut found = Vec::new();
        for (about, text) in about.into_iter().zip(text.split('\n')) {
            let About { track, at_more, begun_more, kind, command } = about;
            times.at = times.at.wrapping_add_signed(at_more);
            times.begun = times.begun.wrapping_add_signed(begun_more);
            if wanted.is_in(text) {
                let offset_ms = times.at.wrapping_sub(times.begun);
                let text = text.to_owned();
                found.push(Line { track, at_ms: times.at, offset_ms, kind, text, command });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_largest_block_unpacks() {
        let mut gathering = Gathering::default();
        let mut blocks = Vec::new();
        for n in 0..2 * BLOCK_LINES as u64 {
            let line = Line {
                track: u32::MAX,
                at_ms: u64::MAX - n,
                offset_ms: u64::MAX,
                kind: Kind::Output,
                text: if n % 4 == 3 { "é".repeat(5000) } else { "x".repeat(31) },
                command: Some("y".repeat(5000)),
            };
            blocks.extend(gathering.push(line.bounded()).unwrap());
        }
        blocks.extend(gathering.finish().unwrap());
        let with = |text: &str| -> Vec<Line> {
            let wanted = Wanted::new(text);
            let mut reader = Reader::new().unwrap();
            blocks.iter().flat_map(|one| reader.lines_with(&one.packed, &wanted).unwrap()).collect()
        };
        let lines = [with("x"), with("é")].concat();
        assert_eq!(lines.len(), 2 * BLOCK_LINES);
        assert_eq!(with("nothing"), []);
        assert!(lines.iter().all(|line| line.text.len() <= LINE_MAX));
        assert!(lines.iter().all(|line| line.offset_ms == u64::MAX && line.track == u32::MAX));
        let mut at: Vec<u64> = lines.iter().map(|line| u64::MAX - line.at_ms).collect();
        at.sort_unstable();
        assert_eq!(at, (0..2 * BLOCK_LINES as u64).collect::<Vec<_>>());
        assert_eq!(blocks.iter().map(|one| one.last_ms).max(), Some(u64::MAX));
    }
}
