//! One recording's file in the spool: signed segments, each with its length before it.
//!
//! The last segment that the relay has stays in the file: the next one names its digest.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belay_proto::grant::VerifySignature as _;
use belay_proto::ids::SessionId;
use belay_proto::limits::MAX_FRAME;
use belay_proto::recording::{Segment, SignedSegment, digest, signed_bytes};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::pki::TlsKey;

use super::rotation::Rotation;

/// Bytes before a segment.
const LENGTH: u64 = 4;

/// Where a segment stands. Places count on from one file of a recording to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    at: u64,
    length: usize,
}

impl Place {
    const fn end(&self) -> u64 {
        self.at + LENGTH + self.length as u64
    }
}

#[derive(Debug)]
pub(super) struct Frames {
    file: Arc<File>,
    /// The place of the file's first byte.
    base: u64,
    /// The place behind its last.
    end: u64,
    /// Up to here it is on the disk.
    on_disk: u64,
    /// Its name may not be on the disk: a power cut would take it, or bring back the file before it.
    is_new: bool,
    head: [u8; 32],
    next: u64,
    ended: bool,
    /// What the relay does not have: the end of the file.
    waiting: VecDeque<Place>,
    /// The last that the relay has.
    given: Option<Place>,
    /// Not before the relay has so much is a new file tried again.
    rotate_at: u64,
}

impl Frames {
    /// Of a session that has none: what cannot be read of an earlier run is not written over.
    pub(super) fn create(dir: &Path, session: SessionId) -> io::Result<Self> {
        let file = options().create_new(true).open(path(dir, session))?;
        Ok(Self { is_new: true, ..Self::of(Arc::new(file)) })
    }

    const fn of(file: Arc<File>) -> Self {
        Self {
            file,
            base: 0,
            end: 0,
            on_disk: 0,
            is_new: false,
            head: [0; 32],
            next: 0,
            ended: false,
            waiting: VecDeque::new(),
            given: None,
            rotate_at: 0,
        }
    }

    /// Reads what is there; the rest of a file that is damaged from some place on is cut off. What was not on the
    /// disk when the power went may be there in part, its beginning and its end: only what this key signed counts.
    fn load(path: &Path, key: &TlsKey) -> io::Result<Self> {
        let file = Arc::new(options().open(path)?);
        let mut frames = Self::of(Arc::clone(&file));
        let (mut reader, mut signed) = (BufReader::new(&*file), Vec::new());
        while read_frame(&mut reader, &mut signed)? {
            let Some((segment, encoded)) = open(&signed, key) else { break };
            if frames.end > 0 && *segment.before != frames.head {
                break;
            }
            let place = Place { number: segment.number, at: frames.end, length: signed.len() };
            frames.note(place, &encoded, segment.end.is_some());
        }
        let rest = file.metadata()?.len().saturating_sub(frames.end);
        if rest > 0 {
            tracing::warn!(bytes = rest, "a recording in the spool ends in something else");
            file.set_len(frames.end)?;
        }
        // It may have been in memory alone.
        file.sync_data()?;
        frames.on_disk = frames.end;
        Ok(frames)
    }

    fn note(&mut self, place: Place, encoded: &[u8], ends: bool) {
        self.end = place.end();
        self.head = digest(encoded);
        self.next = place.number.saturating_add(1);
        self.ended = ends;
        self.waiting.push_back(place);
    }

    /// Appends a segment. After an error the file is as it was.
    pub(super) fn push(
        &mut self,
        number: u64,
        encoded: &[u8],
        signed: &[u8],
        ends: bool,
    ) -> io::Result<()> {
        let at = self.end - self.base;
        if let Err(error) = write_frame(&self.file, at, signed) {
            self.file.set_len(at)?;
            return Err(error);
        }
        let place = Place { number, at: self.end, length: signed.len() };
        self.note(place, encoded, ends);
        Ok(())
    }

    /// Another file in its place, such as one that cannot be brought to a disk.
    #[cfg(test)]
    pub(super) fn swap(&mut self, file: Arc<File>) -> Arc<File> {
        std::mem::replace(&mut self.file, file)
    }

    /// The file's bytes.
    pub(super) const fn size(&self) -> u64 {
        self.end - self.base
    }

    /// Those that the relay does not have.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.front().map_or(0, |first| self.end - first.at)
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
        self.on_disk < self.end || self.is_new
    }

    /// Whether the relay has all of it, and nothing follows.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.waiting.is_empty()
    }

    /// What is to be brought to the disk. `refused`: the disk failed at it before.
    pub(super) fn to_sync(&self, refused: bool) -> ToSync {
        let on_disk = |place: &&Place| place.end() > self.on_disk;
        let again = self.waiting.iter().filter(on_disk).filter(|_| refused).copied().collect();
        let Self { base, end, is_new, .. } = *self;
        ToSync { file: Arc::clone(&self.file), base, end, is_new, again }
    }

    /// It is on the disk.
    pub(super) fn synced(&mut self, what: &ToSync) {
        if Arc::ptr_eq(&self.file, &what.file) {
            self.on_disk = self.on_disk.max(what.end);
            self.is_new = false;
        }
    }

    /// The first that waits, is on the disk, and has at least this number.
    pub(super) fn first_from(&self, number: u64) -> Option<Place> {
        let on_disk = self.waiting.iter().take_while(|place| place.end() <= self.on_disk);
        on_disk.copied().find(|place| place.number >= number)
    }

    pub(super) fn read(&self, place: &Place) -> io::Result<Vec<u8>> {
        read_at(&self.file, self.base, place)
    }

    pub(super) fn taken(&mut self, number: u64) {
        while let Some(place) = self.waiting.pop_front_if(|place| place.number <= number) {
            self.given = Some(place);
        }
    }

    /// Bytes that the relay has.
    fn given(&self) -> u64 {
        self.size() - self.waiting()
    }

    /// Whether a new file is worth it: copying what waits is paid for by what was given since.
    pub(super) fn is_long(&self, rotate: u64) -> bool {
        self.given() > rotate.max(self.rotate_at).max(self.waiting())
    }

    /// A new file cannot be made now.
    pub(super) fn rotate_later(&mut self) {
        self.rotate_at = self.given().saturating_mul(2);
    }

    /// Begins a new file, with what follows from the last segment that the relay has.
    pub(super) fn to_rotate(&self, dir: &Path, session: SessionId) -> io::Result<Rotation> {
        let from = self.given.map_or(self.base, |given| given.at) - self.base;
        Rotation::begin(&self.file, from..self.size(), dir.join(format!("{session}.new")))
    }

    /// Puts it in the place of the old one. What is in it counts as on the disk when its name is.
    pub(super) fn rotate(
        &mut self,
        mut rotation: Rotation,
        dir: &Path,
        session: SessionId,
    ) -> io::Result<()> {
        if !rotation.is_of(&self.file) {
            return Ok(());
        }
        rotation.copy_to(self.size())?;
        let from = rotation.from();
        self.file = rotation.rename(&path(dir, session))?;
        self.base += from;
        self.is_new = true;
        self.rotate_at = 0;
        Ok(())
    }
}

/// What is to be brought to the disk of one file.
pub(super) struct ToSync {
    file: Arc<File>,
    base: u64,
    end: u64,
    pub(super) is_new: bool,
    again: Vec<Place>,
}

impl ToSync {
    /// After a failure the kernel takes what the disk has not for written, or drops it: what is still as it was
    /// signed is written once more.
    pub(super) fn sync(&self, key: &TlsKey) -> io::Result<()> {
        for place in &self.again {
            let signed = read_at(&self.file, self.base, place)?;
            if open(&signed, key).is_none() {
                return Err(io::Error::other("what was written cannot be read again"));
            }
            write_frame(&self.file, place.at - self.base, &signed)?;
        }
        self.file.sync_data()
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

fn read_at(file: &File, base: u64, place: &Place) -> io::Result<Vec<u8>> {
    let mut signed = vec![0; place.length];
    file.read_exact_at(&mut signed, place.at - base + LENGTH)?;
    Ok(signed)
}

fn write_frame(file: &File, at: u64, signed: &[u8]) -> io::Result<()> {
    let length = u32::try_from(signed.len()).map_err(io::Error::other)?;
    file.write_all_at(&[&length.to_be_bytes(), signed].concat(), at)
}

/// Whether there is another whole frame.
fn read_frame(from: &mut impl Read, signed: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; LENGTH as usize];
    if !whole(from.read_exact(&mut length))? {
        return Ok(false);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Ok(false);
    }
    signed.resize(length, 0);
    whole(from.read_exact(signed))
}

fn whole(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn open(signed: &[u8], key: &TlsKey) -> Option<(Segment, Vec<u8>)> {
    let signed: SignedSegment = decode_payload(signed).ok()?;
    let segment = decode_payload(&signed.segment).ok()?;
    let is_signed = key.verify(&signed_bytes(&signed.segment), &signed.signature);
    is_signed.then(|| (segment, signed.segment.to_vec()))
}

/// Every recording in the spool. A file nothing is in is removed; one that cannot be read stays, and the next start
/// tries it again.
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
        match Frames::load(&path, key) {
            Ok(frames) if frames.end == 0 => fs::remove_file(&path)?,
            Ok(frames) => found.push((session, frames)),
            Err(error) => {
                let path = path.display();
                tracing::error!(%session, %path, %error, "a recording in the spool cannot be read");
            }
        }
    }
    // A supervisor that was killed may have left names in memory alone.
    sync_dir(dir)?;
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
