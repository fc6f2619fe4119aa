//! What recordings showed, as lines of text, and looking through them: what the relay's index and an
//! auditor's own have in common.
//!
//! Its law: the lines are made of a hostile device's bytes, and bounded in every direction; what a block
//! is known by ([`Block::words`], [`Block::pairs`], [`Block::marks`]) only narrows where to look, and what
//! the line says ([`Wanted::is_in`]) decides. What it is not: it opens no file, knows no key, and remembers nothing.
//!
//! `lines`, `terminal` and `drawn` make text of segments, `block` packs it, `words` and `signs` are what a block
//! is known by.

mod block;
mod drawn;
mod lines;
mod signs;
mod terminal;
mod words;

pub use block::{Block, Gathering, Kind, LINE_MAX, Line, Reader};
pub use lines::{Lines, NoText};
pub use words::Wanted;
