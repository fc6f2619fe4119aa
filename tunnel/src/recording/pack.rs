//! Text in zstd frames (RFC 8878).
//!
//! A payload is one frame or several, each at most [`FRAME_TEXT_MAX`] of text: so whoever records
//! holds one frame's text at a time, and a payload is filled with what it really holds. A frame of
//! little text is made with the dictionary that everybody has.
//!
//! Its law: nothing is unpacked whose length is not told, and allowed, before.

use std::io;

use belay_proto::recording::{DICTIONARY, DICTIONARY_ID, FRAME_TEXT_MAX, Segment, TEXT_MAX};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

/// Text up to here gains by the dictionary; more finds enough in itself.
const LITTLE: usize = 8 * 1024;

/// For little text: a tenth smaller than the fastest, at the same time within a microsecond's width.
const THOROUGH: i32 = 3;

/// For a flood.
const FAST: i32 = 1;

/// How far back a flood is looked at, as a power of two: 177 KiB for a compressor that would take 297 KiB for
/// a whole frame, and what it makes is 0 to 5 % longer.
const WINDOW: u32 = 15;

/// Makes frames. Once it has made a long one it holds about 250 KiB, so nobody keeps one for nothing.
pub struct Packer {
    flood: Option<Flood>,
}

/// What many long frames are made with.
struct Flood {
    compressor: Compressor<'static>,
    /// Where a frame is made, with room for a text that cannot be compressed.
    made: Vec<u8>,
}

impl Flood {
    fn new() -> io::Result<Self> {
        let mut compressor = Compressor::new(FAST)?;
        compressor.set_parameter(CParameter::WindowLog(WINDOW))?;
        let made = Vec::with_capacity(zstd_safe::compress_bound(FRAME_TEXT_MAX));
        Ok(Self { compressor, made })
    }

    fn frame(&mut self, text: &str) -> io::Result<Vec<u8>> {
        self.made.clear();
        self.compressor.compress_to_buffer(text.as_bytes(), &mut self.made)?;
        Ok(self.made.clone())
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl Packer {
    /// One that has allocated nothing.
    pub const fn new() -> Self {
        Self { flood: None }
    }

    /// A frame of this text, which is no longer than [`FRAME_TEXT_MAX`].
    ///
    /// # Errors
    /// When memory is short, or the text too long.
    pub fn frame(&mut self, text: &str) -> io::Result<Vec<u8>> {
        if text.len() > FRAME_TEXT_MAX {
            return Err(io::Error::other("more text than a frame may have"));
        }
        // What is left over in a flood is made with what is there, not with as much again.
        if text.len() <= LITTLE && self.flood.is_none() {
            return Compressor::with_dictionary(THOROUGH, DICTIONARY)?.compress(text.as_bytes());
        }
        match &mut self.flood {
            Some(flood) => flood.frame(text),
            none => none.insert(Flood::new()?).frame(text),
        }
    }
}

/// A payload is not what one should be.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not frames, or damaged ones.
    #[error("it is not compressed as a segment is")]
    Damaged,
    /// A frame does not say how long it becomes, or it is too long.
    #[error("it would become longer than a segment may be")]
    TooLong,
    /// A frame needs what this build does not have.
    #[error("it needs dictionary {0}, which this build does not have; use a newer one")]
    Dictionary(u32),
    /// Its text is none.
    #[error("it is no text")]
    NoText,
    /// Encrypted; it has to be opened first.
    #[error("it is sealed")]
    Sealed,
}

/// The text of a segment that is not sealed.
///
/// # Errors
/// [`UnpackError`]. Not more than [`TEXT_MAX`] is ever allocated for it.
pub fn unpack(segment: &Segment) -> Result<String, UnpackError> {
    if segment.sealed == Some(true) {
        return Err(UnpackError::Sealed);
    }
    unpack_payload(&segment.payload, segment.compressed == Some(true))
}

/// The text of a payload that is not encrypted, or not any more.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack_payload(payload: &[u8], compressed: bool) -> Result<String, UnpackError> {
    let bytes = if compressed { frames(payload)? } else { payload.to_vec() };
    String::from_utf8(bytes).map_err(|_| UnpackError::NoText)
}

fn frames(mut payload: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut text = Vec::new();
    while !payload.is_empty() {
        let length = zstd_safe::find_frame_compressed_size(payload);
        let length = length.map_err(|_| UnpackError::Damaged)?;
        let (frame, rest) = payload.split_at_checked(length).ok_or(UnpackError::Damaged)?;
        let told = zstd_safe::get_frame_content_size(frame).map_err(|_| UnpackError::Damaged)?;
        let told = told.and_then(|told| usize::try_from(told).ok());
        let room = TEXT_MAX - text.len();
        let told = told.filter(|told| *told <= room).ok_or(UnpackError::TooLong)?;
        text.extend_from_slice(&frame_text(frame, told)?);
        payload = rest;
    }
    Ok(text)
}

fn frame_text(frame: &[u8], told: usize) -> Result<Vec<u8>, UnpackError> {
    let decompressor = match zstd_safe::get_dict_id_from_frame(frame).map(u32::from) {
        None => Decompressor::new(),
        Some(DICTIONARY_ID) => Decompressor::with_dictionary(DICTIONARY),
        Some(other) => return Err(UnpackError::Dictionary(other)),
    };
    let text = decompressor.and_then(|mut one| one.decompress(frame, told));
    text.map_err(|_| UnpackError::Damaged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::io::Write as _;

    use super::*;

    const TYPED: &str =
        "[0.225,\"o\",\"l\"]\n[0.178,\"o\",\"s\"]\n[0.210,\"o\",\"\\r\\n\\u001b[?2004l\\r\"]\n";

    #[test]
    fn frames_one_after_another_are_one_text() {
        let mut packer = Packer::new();
        let long = "[0.001,\"o\",\"line of a log 1234567\\r\\n\"]\n".repeat(1600);
        let parts = [TYPED, &long[..FRAME_TEXT_MAX], TYPED, ""];
        let payload: Vec<u8> = parts.iter().flat_map(|part| packer.frame(part).unwrap()).collect();
        assert_eq!(unpack_payload(&payload, true).unwrap(), parts.concat());
        assert!(payload.len() < 2_000, "{}", payload.len());
        assert!(packer.frame(&"x".repeat(FRAME_TEXT_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_typed_takes_a_third_by_the_dictionary() {
        let with = Packer::new().frame(TYPED).unwrap().len();
        let without = zstd::bulk::compress(TYPED.as_bytes(), THOROUGH).unwrap().len();
        assert!(3 * with < 2 * without, "{with} and {without}");
        assert_eq!(
            zstd_safe::get_dict_id_from_dict(DICTIONARY).map(u32::from),
            Some(DICTIONARY_ID)
        );
    }

    #[test]
    fn text_that_does_not_compress_fits_a_payload() {
        let mut random = vec![0; FRAME_TEXT_MAX];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let text: String = random.iter().map(|byte| char::from(byte % 95 + 32)).collect();
        let frame = Packer::new().frame(&text).unwrap();
        assert!(frame.len() <= belay_proto::recording::PAYLOAD_MAX, "{}", frame.len());
    }

    #[test]
    fn a_bomb_is_refused_by_what_it_says_and_a_liar_by_what_it_does() {
        let bomb = zstd::bulk::compress(&vec![b'x'; TEXT_MAX + 1], 1).unwrap();
        assert!(matches!(unpack_payload(&bomb, true), Err(UnpackError::TooLong)));
        let half = zstd::bulk::compress(&vec![b'x'; TEXT_MAX / 2 + 1], 1).unwrap();
        let two = [half.clone(), half].concat();
        assert!(matches!(unpack_payload(&two, true), Err(UnpackError::TooLong)));
        // A frame that does not tell its length.
        let mut mute = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        mute.write_all(b"text").unwrap();
        mute.flush().unwrap();
        let mute = mute.finish().unwrap();
        assert!(matches!(unpack_payload(&mute, true), Err(UnpackError::TooLong)));
        let mut frame = Packer::new().frame(TYPED).unwrap();
        let last = frame.len() - 1;
        frame.truncate(last);
        assert!(matches!(unpack_payload(&frame, true), Err(UnpackError::Damaged)));
        assert!(matches!(unpack_payload(b"not a frame", true), Err(UnpackError::Damaged)));
    }
}
