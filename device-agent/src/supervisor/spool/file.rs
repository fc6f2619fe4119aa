//! One recording's file in the spool: signed segments, each with its length before it.
//!
//! The last segment stays in the file when the relay has it: the next one names its digest.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use belay_proto::grant::VerifySignature as _;
use belay_proto::ids::SessionId;
use belay_proto::limits::MAX_FRAME;
use belay_proto::recording::{Segment, SignedSegment, digest, signed_bytes};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::pki::TlsKey;

/// Bytes before a segment.
const LENGTH: u64 = 4;

/// Where a segment stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    /// Of its first byte, behind its length.
    at: u64,
    length: usize,
}

impl Place {
    const fn end(&self) -> u64 {
        self.at + self.length as u64
    }
}

#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    length: u64,
    /// So much of it is on the disk.
    on_disk: u64,
    /// Counts the files this has had.
    generation: u32,
    head: [u8; 32],
    next: u64,
    ended: bool,
    /// What the relay does not have.
    waiting: VecDeque<Place>,
    last: Option<Place>,
}

impl Frames {
    pub(super) fn create(dir: &Path, session: SessionId) -> io::Result<Self> {
        let file = options().create(true).truncate(true).open(path(dir, session))?;
        Ok(Self::of(file))
    }

    const fn of(file: File) -> Self {
        Self {
            file,
            length: 0,
            on_disk: 0,
            generation: 0,
            head: [0; 32],
            next: 0,
            ended: false,
            waiting: VecDeque::new(),
            last: None,
        }
    }

    /// Reads what is there; the rest of a file that is damaged from some place on is cut off. What was not on the
    /// disk when the power went may be there in part, its beginning and its end: only what this key signed counts.
    fn load(path: &Path, key: &TlsKey) -> io::Result<Self> {
        let mut file = options().open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut frames = Self::of(file);
        let mut rest = bytes.as_slice();
        while let Some((signed, after)) = split(rest) {
            let Some((segment, encoded)) = open(signed, key) else { break };
            if frames.last.is_some() && *segment.before != frames.head {
                break;
            }
            let place =
                Place { number: segment.number, at: frames.length + LENGTH, length: signed.len() };
            frames.note(place, &encoded, segment.end.is_some());
            rest = after;
        }
        if !rest.is_empty() {
            tracing::warn!(bytes = rest.len(), "a recording in the spool ends in something else");
            frames.file.set_len(frames.length)?;
        }
        // It may have been in memory alone.
        frames.file.sync_data()?;
        frames.on_disk = frames.length;
        Ok(frames)
    }

    fn note(&mut self, place: Place, encoded: &[u8], ends: bool) {
        self.length = place.end();
        self.head = digest(encoded);
        self.next = place.number.saturating_add(1);
        self.ended = ends;
        self.waiting.push_back(place);
        self.last = Some(place);
    }

    /// Appends a segment. After an error the file is as it was.
    pub(super) fn push(
        &mut self,
        number: u64,
        encoded: &[u8],
        signed: &[u8],
        ends: bool,
    ) -> io::Result<()> {
        let length = u32::try_from(signed.len()).map_err(io::Error::other)?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(signed);
        if let Err(error) = self.file.write_all_at(&frame, self.length) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        let place = Place { number, at: self.length + LENGTH, length: signed.len() };
        self.note(place, encoded, ends);
        Ok(())
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn head(&self) -> [u8; 32] {
        self.head
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) const fn is_dirty(&self) -> bool {
        self.on_disk < self.length
    }

    /// Whether the relay has all of it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it has, and nothing follows.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.waiting.is_empty()
    }

    /// What is to be brought to the disk, how far it goes, and of which file.
    pub(super) fn to_sync(&self) -> io::Result<(File, u64, u32)> {
        Ok((self.file.try_clone()?, self.length, self.generation))
    }

    pub(super) fn synced(&mut self, length: u64, generation: u32) {
        if generation == self.generation {
            self.on_disk = self.on_disk.max(length);
        }
    }

    /// The first that waits, is on the disk, and has at least this number.
    pub(super) fn first_from(&self, number: u64) -> Option<Place> {
        let on_disk = self.waiting.iter().take_while(|place| place.end() <= self.on_disk);
        on_disk.copied().find(|place| place.number >= number)
    }

    pub(super) fn read(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let place = self.waiting.iter().find(|place| place.number == number);
        place.map(|place| self.read_at(place)).transpose()
    }

    fn read_at(&self, place: &Place) -> io::Result<Vec<u8>> {
        let mut signed = vec![0; place.length];
        self.file.read_exact_at(&mut signed, place.at)?;
        Ok(signed)
    }

    pub(super) fn taken(&mut self, number: u64) {
        while self.waiting.front().is_some_and(|place| place.number <= number) {
            self.waiting.pop_front();
        }
    }

    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.length = 0;
        self.on_disk = 0;
    }

    /// Begins a new file with the last segment alone.
    pub(super) fn rotate(&mut self, dir: &Path, session: SessionId) -> io::Result<()> {
        let Some(last) = self.last else { return Ok(()) };
        let signed = self.read_at(&last)?;
        let scratch = dir.join(format!("{session}.new"));
        let mut file = options().create(true).truncate(true).open(&scratch)?;
        file.write_all(&u32::try_from(signed.len()).map_err(io::Error::other)?.to_be_bytes())?;
        file.write_all(&signed)?;
        file.sync_data()?;
        fs::rename(&scratch, path(dir, session))?;
        self.file = file;
        self.last = Some(Place { at: LENGTH, ..last });
        self.length = LENGTH + signed.len() as u64;
        self.on_disk = self.length;
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

const SUFFIX: &str = "segments";

fn path(dir: &Path, session: SessionId) -> PathBuf {
    dir.join(format!("{session}.{SUFFIX}"))
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|n| *n <= MAX_FRAME)?;
    rest.split_at_checked(length)
}

fn open(signed: &[u8], key: &TlsKey) -> Option<(Segment, Vec<u8>)> {
    let signed: SignedSegment = decode_payload(signed).ok()?;
    let segment = decode_payload(&signed.segment).ok()?;
    let is_signed = key.verify(&signed_bytes(&signed.segment), &signed.signature);
    is_signed.then(|| (segment, signed.segment.to_vec()))
}

/// Every recording in the spool. A file nothing can be read of is removed.
pub(super) fn all(dir: &Path, key: &TlsKey) -> io::Result<Vec<(SessionId, Frames)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == SUFFIX);
        let session = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let (true, Some(session)) = (is_ours, session) else {
            fs::remove_file(&path)?;
            continue;
        };
        let frames = Frames::load(&path, key)?;
        if frames.last.is_none() {
            fs::remove_file(&path)?;
        } else {
            found.push((session, frames));
        }
    }
    Ok(found)
}

pub(super) fn remove(dir: &Path, session: SessionId) -> io::Result<()> {
    match fs::remove_file(path(dir, session)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A new file is there after a power cut only when its directory is on the disk too.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
