//! What one track was told and the scribe has not taken yet.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use belay_proto::recording::cast::{Code, Fact, longest_line};
use belay_proto::recording::{FRAME_TEXT_MAX, Utf8};

use crate::worker::limits::RECORD_SEGMENT;

/// Output that comes within this time is one event.
const TOGETHER: Duration = Duration::from_millis(10);

/// Longest text of one event: as JSON it is six times as long at worst, and fits a frame.
pub(super) const EVENT_MAX: usize = 8 * 1024;
/// Text that there is room for before more is asked for.
const TEXT_STEP: usize = 32 * 1024;
const _: () = assert!(longest_line(EVENT_MAX) <= FRAME_TEXT_MAX);

/// What tells a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The session: facts alone.
    Facts,
    /// A terminal: what it shows is text, whatever it is.
    Terminal,
    /// A command's pipes: from the first zero byte on they carry no text, and are told by their
    /// length and digest.
    Command,
}

/// One event; its text is a part of the buffer's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) at: Duration,
    pub(super) code: Code,
    pub(super) length: usize,
}

/// What a scribe takes in one go.
#[derive(Debug)]
pub(super) struct Batch {
    /// The track's first line, once.
    pub(super) header: Option<String>,
    /// When the event before the first of these happened.
    pub(super) before: Duration,
    /// When the first of these was told.
    pub(super) since: Duration,
    pub(super) pieces: Vec<Piece>,
    pub(super) text: String,
    /// What this counts for among what is pending.
    pub(super) bytes: usize,
}

impl Batch {
    /// Whether it is one because there was so much of it.
    pub(super) fn is_flood(&self) -> bool {
        is_flood(&self.text)
    }
}

/// Bytes that are no text.
struct Tally {
    bytes: u64,
    digest: Context,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl Tally {
    fn new() -> Self {
        Self { bytes: 0, digest: Context::new(&SHA256) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn fact(self, what: &str, stream: &str) -> String {
        let digest = self.digest.finish();
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Fact::new(what)
            .text("stream", stream)
            .number("bytes", self.bytes)
            .text("sha256", &hex)
            .finish()
    }
}

#[derive(Debug, Default)]
struct Stream {
    utf8: Utf8,
    binary: Option<Tally>,
}

#[derive(Debug)]
pub(super) struct Buffer {
    source: Source,
    header: Option<String>,
    output: Stream,
    error: Stream,
    typed: Stream,
    input: Option<Tally>,
    size: (u16, u16),
    text: String,
    /// In a flood, what the text that was taken was written to: the next one goes there.
    spare: String,
    pieces: Vec<Piece>,
    /// When the first of them was told.
    since: Option<Duration>,
    /// When the last one that was taken happened.
    before: Duration,
    lost: usize,
    closed: bool,
}

impl Buffer {
    pub(super) fn new(source: Source, header: String, size: (u16, u16), at: Duration) -> Self {
        Self {
            source,
            header: Some(header),
            output: Stream::default(),
            error: Stream::default(),
            typed: Stream::default(),
            input: None,
            size,
            text: String::new(),
            spare: String::new(),
            pieces: Vec::new(),
            since: Some(at),
            before: at,
            lost: 0,
            closed: false,
        }
    }

    /// Bytes that wait.
    pub(super) fn pending(&self) -> usize {
        self.text.len() + self.header.as_ref().map_or(0, String::len)
    }

    /// Since when something waits.
    pub(super) const fn since(&self) -> Option<Duration> {
        self.since
    }

    /// Whether nothing follows.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// There was no room for this.
    pub(super) const fn lose(&mut self, bytes: usize) {
        self.lost += bytes;
    }

    const fn stream(&mut self, code: Code) -> &mut Stream {
        match code {
            Code::Error => &mut self.error,
            Code::Input => &mut self.typed,
            Code::Output | Code::Resize | Code::Marker | Code::Belay | Code::Exit => {
                &mut self.output
            }
        }
    }

    /// A program's output, or what was typed at its terminal.
    pub(super) fn shown(&mut self, code: Code, bytes: &[u8], at: Duration) {
        self.found(at);
        let is_command = self.source == Source::Command;
        let stream = self.stream(code);
        if is_command && stream.binary.is_none() && bytes.contains(&0) {
            stream.binary = Some(Tally::new());
        }
        if let Some(tally) = &mut stream.binary {
            return tally.add(bytes);
        }
        let mut utf8 = std::mem::take(&mut stream.utf8);
        let begin = self.text.len();
        if self.text.capacity() - begin < bytes.len() {
            // In steps: doubled, it would be twice as large as what may wait.
            self.text.reserve_exact(bytes.len().max(TEXT_STEP));
        }
        utf8.push(bytes, &mut self.text);
        self.pieces_from(begin, code, at);
        self.stream(code).utf8 = utf8;
    }

    /// A command's input: not what it is, but which.
    pub(super) fn given(&mut self, bytes: &[u8]) {
        self.input.get_or_insert_with(Tally::new).add(bytes);
    }

    pub(super) fn resized(&mut self, size: (u16, u16), at: Duration) {
        if self.size != size {
            self.size = size;
            self.event(Code::Resize, &format!("{}x{}", size.0, size.1), at);
        }
    }

    /// The program's status. Its streams have ended.
    pub(super) fn ended(&mut self, status: i32, at: Duration) {
        self.end_streams(at);
        self.event(Code::Exit, &status.to_string(), at);
    }

    /// Nothing follows.
    pub(super) fn close(&mut self, at: Duration) {
        self.end_streams(at);
        self.found(at);
        self.closed = true;
        // So that somebody takes it away.
        self.since.get_or_insert(at);
    }

    fn end_streams(&mut self, at: Duration) {
        for code in [Code::Input, Code::Output, Code::Error] {
            let Stream { mut utf8, binary } = std::mem::take(self.stream(code));
            let begin = self.text.len();
            utf8.finish(&mut self.text);
            self.pieces_from(begin, code, at);
            if let Some(tally) = binary {
                let name = if code == Code::Error { "stderr" } else { "stdout" };
                self.event(Code::Belay, &tally.fact("binary", name), at);
            }
        }
        if let Some(tally) = self.input.take() {
            self.event(Code::Belay, &tally.fact("input", "stdin"), at);
        }
    }

    /// One event by itself. A text that is too long for one is several.
    pub(super) fn event(&mut self, code: Code, text: &str, at: Duration) {
        let begin = self.text.len();
        self.text.push_str(text);
        if text.is_empty() || text.len() > EVENT_MAX {
            return self.pieces_from(begin, code, at);
        }
        self.since.get_or_insert(at);
        self.pieces.push(Piece { at, code, length: text.len() });
    }

    /// What was lost is told of as soon as there is room again.
    fn found(&mut self, at: Duration) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let fact = Fact::new("lost").number("bytes", lost as u64).finish();
            self.event(Code::Belay, &fact, at);
        }
    }

    /// Makes events of the text from `begin` on.
    fn pieces_from(&mut self, mut begin: usize, code: Code, at: Duration) {
        while begin < self.text.len() {
            self.since.get_or_insert(at);
            let last = self.pieces.last_mut().filter(|last| {
                last.code == code
                    && last.length < EVENT_MAX
                    && at.saturating_sub(last.at) < TOGETHER
            });
            let room = EVENT_MAX - last.as_ref().map_or(0, |last| last.length);
            let mut end = self.text.len().min(begin + room);
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
            match last {
                // Its rest has no room for the next character.
                Some(last) if end == begin => last.length += take_one(&self.text, &mut begin),
                Some(last) => {
                    last.length += end - begin;
                    begin = end;
                }
                None => {
                    self.pieces.push(Piece { at, code, length: end - begin });
                    begin = end;
                }
            }
        }
    }

    /// Everything that waits.
    pub(super) fn take(&mut self) -> Batch {
        let bytes = self.pending();
        let before = self.before;
        self.before = self.pieces.last().map_or(before, |last| last.at);
        let spare = std::mem::take(&mut self.spare);
        let next = if is_flood(&self.text) { spare } else { String::new() };
        Batch {
            header: self.header.take(),
            before,
            since: self.since.take().unwrap_or(before),
            pieces: std::mem::take(&mut self.pieces),
            text: std::mem::replace(&mut self.text, next),
            bytes,
        }
    }

    /// A batch's text is not needed any more.
    pub(super) fn give_back(&mut self, mut text: String) {
        if self.text.is_empty() {
            // Nothing has come meanwhile: what there was room for is over.
            self.text = String::new();
        } else if is_flood(&text) {
            text.clear();
            self.spare = text;
        }
    }
}

const fn is_flood(text: &str) -> bool {
    text.len() >= RECORD_SEGMENT
}

/// The next character, which makes an event three bytes too long at most.
fn take_one(text: &str, begin: &mut usize) -> usize {
    let length = text.get(*begin..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
    *begin += length;
    length
}
