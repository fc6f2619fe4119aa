//! Lines of one recording, packed: what the index keeps of them.

use std::io;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::words::Wanted;

/// Text of one block, in bytes: it compresses well, and is looked through in tens of microseconds.
pub(super) const BLOCK_TEXT: usize = 16 * 1024;

/// Lines of one block.
const BLOCK_LINES: usize = 512;

/// Longest line kept, in bytes.
pub(super) const LINE_MAX: usize = 4096;

/// Longest command kept with the lines it made, in bytes.
pub(super) const COMMAND_MAX: usize = 200;

/// Largest block, unpacked: the text, each line's command, and the numbers around them.
const UNPACKED_MAX: usize = BLOCK_TEXT + LINE_MAX + BLOCK_LINES * (COMMAND_MAX + 48);

/// Fast, and about a fifth of the size.
const LEVEL: i32 = 3;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Kind {
    /// A terminal or a command showed it.
    #[n(0)]
    Output,
    /// It was run.
    #[n(1)]
    Command,
    /// Something that happened.
    #[n(2)]
    Fact,
}

impl Kind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Command => "command",
            Self::Fact => "fact",
        }
    }
}

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) track: u32,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    /// Milliseconds since the track began.
    pub(super) offset_ms: u64,
    pub(super) kind: Kind,
    pub(super) text: String,
    /// The command that made it.
    pub(super) command: Option<String>,
}

/// A line without its text.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct About {
    #[n(0)]
    track: u32,
    #[n(1)]
    at_ms: u64,
    #[n(2)]
    offset_ms: u64,
    #[n(3)]
    kind: Kind,
    #[n(4)]
    command: Option<String>,
}

/// A block, before it is compressed. The text stands in one piece, so that most blocks are known not
/// to have what is wanted without looking at a line of them.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Packed<'b> {
    /// All lines, with line feeds between them.
    #[b(0)]
    text: &'b str,
    /// [`About`] each of them.
    #[b(1)]
    about: &'b ByteSlice,
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
pub(super) struct Gathering {
    lines: Vec<Line>,
    text: usize,
}

/// A block, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// When the newest of its lines was shown.
    pub(super) last_ms: u64,
    /// Its words, for the index.
    pub(super) words: String,
    /// [`lines_with`] reads them.
    pub(super) packed: Vec<u8>,
}

impl Gathering {
    /// Takes a line; gives a block back when one is full.
    pub(super) fn push(&mut self, line: Line) -> io::Result<Option<Block>> {
        self.text += line.text.len();
        self.lines.push(line);
        if self.text >= BLOCK_TEXT || self.lines.len() >= BLOCK_LINES {
            return self.finish();
        }
        Ok(None)
    }

    /// What is left.
    pub(super) fn finish(&mut self) -> io::Result<Option<Block>> {
        let lines = std::mem::take(&mut self.lines);
        self.text = 0;
        let Some(last_ms) = lines.iter().map(|line| line.at_ms).max() else { return Ok(None) };
        let words = super::words::all(lines.iter().map(|line| line.text.as_str()));
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let text = texts.join("\n");
        let about: Vec<About> = lines
            .iter()
            .map(|line| {
                let Line { track, at_ms, offset_ms, kind, command, .. } = line.clone();
                About { track, at_ms, offset_ms, kind, command }
            })
            .collect();
        let about = minicbor::to_vec(about).map_err(io::Error::other)?;
        let packed = Packed { text: &text, about: about.as_slice().into() };
        let packed = minicbor::to_vec(packed).map_err(io::Error::other)?;
        let packed = zstd::bulk::compress(&packed, LEVEL)?;
        Ok(Some(Block { last_ms, words, packed }))
    }
}

/// The lines of a block that have what is wanted.
pub(super) fn lines_with(packed: &[u8], wanted: &Wanted) -> io::Result<Vec<Line>> {
    let bytes = zstd::bulk::decompress(packed, UNPACKED_MAX)?;
    let Packed { text, about } = minicbor::decode(&bytes).map_err(io::Error::other)?;
    if !wanted.may_be_in(text) {
        return Ok(Vec::new());
    }
    let about: Vec<About> = minicbor::decode(about).map_err(io::Error::other)?;
    let lines = about.into_iter().zip(text.split('\n'));
    let found = lines.filter(|(_, text)| wanted.is_in(text)).map(|(about, text)| {
        let About { track, at_ms, offset_ms, kind, command } = about;
        Line { track, at_ms, offset_ms, kind, text: text.to_owned(), command }
    });
    Ok(found.collect())
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
            blocks.iter().flat_map(|one| lines_with(&one.packed, &wanted).unwrap()).collect()
        };
        let lines = [with("x"), with("é")].concat();
        assert_eq!(lines.len(), 2 * BLOCK_LINES);
        assert_eq!(with("nothing"), []);
        assert!(lines.iter().all(|line| line.text.len() <= LINE_MAX));
        assert_eq!(blocks.iter().map(|one| one.last_ms).max(), Some(u64::MAX));
    }
}
