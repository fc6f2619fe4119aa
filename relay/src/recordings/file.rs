//! One recording's file ([`belay_proto::recording::file`]).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use belay_proto::grant::VerifySignature as _;
use belay_proto::ids::SessionId;
use belay_proto::recording::file::{Head, LENGTH, append, length};
use belay_proto::recording::{
    Chain, Segment, SignedSegment, UNANSWERED, VERSION, digest, signed_bytes,
};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::pki::DeviceKey;
use belay_tunnel::private_file;
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use super::{KeepError, Kept, Standing};

const SUFFIX: &str = "belay";

/// More segments at a file's end than a power cut may have torn: so many are written in one go.
const TORN_MOST: usize = UNANSWERED + 1;

/// The folder of sessions whose ids have no time in them.
pub(super) const UNDATED: &str = "undated";

/// Where a session's recording is: by the day in its id, so that no folder grows for ever.
pub(super) fn path(dir: &Path, session: SessionId) -> PathBuf {
    dir.join(day(session)).join(format!("{session}.{SUFFIX}"))
}

fn day(session: SessionId) -> String {
    let stamp = Uuid::from_bytes(*session.as_bytes()).get_timestamp();
    let seconds = stamp.map_or(0, |stamp| stamp.to_unix().0);
    let at = i64::try_from(seconds).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    let day = at.map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string());
    day.unwrap_or_else(|| UNDATED.to_owned())
}

/// Where a recording stands that grows. It holds no file open: there are as many of these as there are
/// sessions.
#[derive(Debug)]
pub(super) struct Tail {
    length: u64,
    chain: Chain,
    /// Where it stood before something near its end that the device did not sign. Whether that is a write which
    /// the power cut tore, or a segment that the disk or somebody damaged, its device knows: it sends again
    /// what was not acknowledged.
    doubt: Option<(u64, Chain)>,
}

impl Tail {
    /// Looks at it, or begins it. What was half written when the power went is cut off.
    pub(super) fn open(dir: &Path, session: SessionId, key: &DeviceKey) -> io::Result<Self> {
        let path = path(dir, session);
        let folder = path.parent().unwrap_or(dir);
        if !path.exists() {
            private_file::make_dir(folder)?;
            let head =
                Head { version: VERSION, session, certificate: key.certificate().to_vec().into() };
            let head = minicbor::to_vec(&head).map_err(io::Error::other)?;
            let mut bytes = Vec::new();
            append(&head, &mut bytes);
            private_file::create(&path, &bytes)?;
            for folder in [folder, dir] {
                File::open(folder)?.sync_all()?;
            }
        }
        let file = writable(&path)?;
        let tail = Self::read(&file)?;
        if tail.length < file.metadata()?.len() {
            tracing::warn!(%session, "a recording's last segment was half written, and is cut off");
            file.set_len(tail.length)?;
        }
        Ok(tail)
    }

    /// Up to the last segment that its device signed. What stands behind that was on its way to the disk when the
    /// power went, and never acknowledged; any part of it may be missing, and what comes after that part be there.
    /// It must not count: what the device sends again would be taken for kept.
    fn read(file: &File) -> io::Result<Self> {
        let file_length = file.metadata()?.len();
        let head = record_at(file, 0, file_length)?;
        let head = head.ok_or_else(|| io::Error::other("it does not begin as one"))?;
        let begin = record_length(&head);
        let head = Head::read(&head).map_err(io::Error::other)?;
        let certificate = CertificateDer::from(head.certificate.to_vec());
        let key = DeviceKey::proved(certificate).map_err(io::Error::other)?;
        let places = match from_the_end_back(file, begin, file_length)? {
            Some(places) => places,
            None => from_the_beginning(file, begin, file_length)?,
        };
        let is_all = places.front().is_none_or(|first| *first == begin);
        let mut found = is_all.then(|| (begin, Chain::new(head.session, key.device())));
        let mut doubt = None;
        for at in places {
            let Some(record) = record_at(file, at, file_length)? else { break };
            let end = at + record_length(&record);
            if let Some((length, chain)) = &mut found
                && chain.take(&record, &key).is_ok()
            {
                *length = end;
            } else if let Some(chain) = begun_with(&record, &key)
                && let Some(before) = found.replace((end, chain))
            {
                doubt.get_or_insert(before);
            }
        }
        let none = || io::Error::other("none of its last segments is signed by its device");
        let (length, chain) = found.ok_or_else(none)?;
        Ok(Self { length, chain, doubt })
    }

    /// Keeps the next segments, all with one write that is brought to the disk once. The answers are
    /// in their order.
    pub(super) fn keep(
        &mut self,
        dir: &Path,
        session: SessionId,
        key: &DeviceKey,
        segments: &[Vec<u8>],
    ) -> Vec<Result<Kept, KeepError>> {
        if key.device() != self.chain.device() {
            return segments.iter().map(|_| Err(KeepError::Foreign(session))).collect();
        }
        if let Err(error) = self.settle(dir, session, segments) {
            let failed = || io::Error::new(error.kind(), error.to_string());
            return segments.iter().map(|_| Err(KeepError::Disk(session, failed()))).collect();
        }
        let (mut chain, mut bytes) = (self.chain.clone(), Vec::new());
        let judged = segments.iter().map(|signed| {
            let again = number(signed).is_some_and(|number| number < chain.next());
            if !again {
                chain.take(signed, key)?;
                append(signed, &mut bytes);
            }
            // What is in doubt is not answered for, nor what stands behind it.
            let sure = self.doubt.as_ref().map_or(&chain, |(_, before)| before);
            Ok(kept(sure, again))
        });
        let judged: Vec<_> = judged.collect();
        if let Err(error) = self.write(dir, session, &bytes) {
            let failed = || {
                if error.kind() == io::ErrorKind::StorageFull {
                    return KeepError::Full;
                }
                KeepError::Disk(session, io::Error::new(error.kind(), error.to_string()))
            };
            // None of them: what one that came again is answered with may be among the others.
            return judged.into_iter().map(|one| one.and_then(|_| Err(failed()))).collect();
        }
        self.chain = chain;
        judged
    }

    /// Sees by what its device sends whether something near the end was torn. Then it is cut off with what
    /// stands behind it, and comes again; else it stays as it is, and shows to whoever checks.
    fn settle(&mut self, dir: &Path, session: SessionId, segments: &[Vec<u8>]) -> io::Result<()> {
        let Some((length, chain)) = &self.doubt else { return Ok(()) };
        let sent = || segments.iter().filter_map(|signed| number(signed));
        if sent().any(|number| (chain.next()..self.chain.next()).contains(&number)) {
            tracing::warn!(%session, "a recording's last segments were half written, and are cut off");
            writable(&path(dir, session))?.set_len(*length)?;
            (self.length, self.chain, self.doubt) = (*length, chain.clone(), None);
        } else if sent().any(|number| number >= self.chain.next()) {
            tracing::error!(%session, "a recording's file was damaged, and goes on behind that");
            self.doubt = None;
        }
        Ok(())
    }

    fn write(&mut self, dir: &Path, session: SessionId, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = writable(&path(dir, session))?;
        if let Err(error) = file.write_all_at(bytes, self.length).and_then(|()| file.sync_data()) {
            // What of it is there is not acknowledged, and must not be in the way.
            if let Err(error) = file.set_len(self.length) {
                tracing::warn!(%session, %error, "half a segment is left behind");
            }
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

fn kept(chain: &Chain, again: bool) -> Kept {
    let number = chain.next().saturating_sub(1);
    Kept { number, head: chain.head(), end: chain.end(), again }
}

fn writable(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o600).open(path)
}

/// The number a segment says it has.
fn number(signed: &[u8]) -> Option<u64> {
    let signed: SignedSegment = decode_payload(signed).ok()?;
    decode_payload::<Segment>(&signed.segment).ok().map(|segment| segment.number)
}

/// The chain behind a segment that the device signed.
fn begun_with(record: &[u8], key: &DeviceKey) -> Option<Chain> {
    let signed: SignedSegment = decode_payload(record).ok()?;
    let segment: Segment = decode_payload(&signed.segment).ok()?;
    let is_signed = key.verify(&signed_bytes(&signed.segment), &signed.signature);
    let after = segment.number.saturating_add(1);
    is_signed.then(|| Chain::after(&signed.segment, after).ok()).flatten()
}

/// Where the last segments stand, [`TORN_MOST`] of them; `None` where lengths do not lead to them.
fn from_the_end_back(
    file: &File,
    begin: u64,
    file_length: u64,
) -> io::Result<Option<VecDeque<u64>>> {
    let (mut end, mut places) = (file_length, VecDeque::new());
    while end > begin && places.len() < TORN_MOST {
        let Some(record) = record_before(file, end)? else { return Ok(None) };
        end -= record_length(&record);
        places.push_front(end);
    }
    Ok((end >= begin).then_some(places))
}

/// The same by what lengths lead to from the first.
fn from_the_beginning(file: &File, begin: u64, file_length: u64) -> io::Result<VecDeque<u64>> {
    let (mut at, mut places) = (begin, VecDeque::new());
    while let Some(record) = record_at(file, at, file_length)? {
        if places.len() >= TORN_MOST {
            places.pop_front();
        }
        places.push_back(at);
        at += record_length(&record);
    }
    Ok(places)
}

/// Of a record with both its lengths.
const fn record_length(record: &[u8]) -> u64 {
    (record.len() + 2 * LENGTH) as u64
}

/// The last whole record of a file.
struct Last {
    /// What it is, when it is no head.
    segment: Option<(Segment, Vec<u8>)>,
}

/// `None` when the file does not begin with a head.
fn last(file: &File) -> io::Result<Option<Last>> {
    let length = file.metadata()?.len();
    if let Some(found) = from_the_end(file, length)? {
        return Ok(Some(found));
    }
    // The end is damaged: from the beginning, then.
    let (mut at, mut found) = (0, None);
    while let Some(record) = record_at(file, at, length)? {
        match read(&record) {
            Some(segment) => found = Some(Last { segment: Some(segment) }),
            None if at == 0 => found = Some(Last { segment: None }),
            None => break,
        }
        at += record_length(&record);
    }
    Ok(found)
}

fn from_the_end(file: &File, file_length: u64) -> io::Result<Option<Last>> {
    let segment = record_before(file, file_length)?.and_then(|record| read(&record));
    Ok(segment.map(|segment| Last { segment: Some(segment) }))
}

/// The record that ends there.
fn record_before(file: &File, file_length: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(end) = file_length.checked_sub(LENGTH as u64) else { return Ok(None) };
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, end)?;
    let begin = length(bytes).and_then(|length| end.checked_sub((length + LENGTH) as u64));
    let Some(begin) = begin else { return Ok(None) };
    record_at(file, begin, file_length)
}

fn record_at(file: &File, at: u64, file_length: u64) -> io::Result<Option<Vec<u8>>> {
    let room = file_length.saturating_sub(at);
    if room < 2 * LENGTH as u64 {
        return Ok(None);
    }
    let mut before = [0; LENGTH];
    file.read_exact_at(&mut before, at)?;
    // Zeros, which a disk may have where something was to be, are no record.
    let fits = |length: &usize| *length > 0 && (length + 2 * LENGTH) as u64 <= room;
    let Some(length) = length(before).filter(fits) else { return Ok(None) };
    let mut record = vec![0; length + LENGTH];
    file.read_exact_at(&mut record, at + LENGTH as u64)?;
    let after = record.split_off(length);
    Ok((after == before).then_some(record))
}

fn read(record: &[u8]) -> Option<(Segment, Vec<u8>)> {
    let signed: SignedSegment = decode_payload(record).ok()?;
    let segment = decode_payload(&signed.segment).ok()?;
    Some((segment, signed.segment.to_vec()))
}

pub(super) fn standing(dir: &Path, session: SessionId) -> io::Result<Option<Standing>> {
    let Some(file) = open(dir, session)? else { return Ok(None) };
    let bytes = file.metadata()?.len();
    let segment = last(&file)?.and_then(|last| last.segment);
    Ok(Some(Standing {
        session,
        bytes,
        last: segment.as_ref().map(|(segment, _)| segment.number),
        end: segment.as_ref().and_then(|(segment, _)| segment.end),
        last_ms: segment.map_or(0, |(segment, _)| segment.last_ms),
    }))
}

/// SHA-256 of a recording's last segment: the head of its chain.
pub(super) fn head(dir: &Path, session: SessionId) -> io::Result<Option<[u8; 32]>> {
    let Some(file) = open(dir, session)? else { return Ok(None) };
    let segment = last(&file)?.and_then(|last| last.segment);
    Ok(segment.map(|(_, encoded)| digest(&encoded)))
}

pub(super) fn page(
    dir: &Path,
    session: SessionId,
    from: u64,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open(dir, session)? else { return Ok(None) };
    let room = file.metadata()?.len().saturating_sub(from).min(most);
    let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(Some(bytes))
}

fn open(dir: &Path, session: SessionId) -> io::Result<Option<File>> {
    match File::open(path(dir, session)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest recordings' sessions, the newest first.
pub(super) fn newest(dir: &Path, most: usize) -> io::Result<Vec<SessionId>> {
    let mut days: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|day| Ok(day?.path())).collect::<io::Result<_>>()?;
    days.sort_by(|one, other| other.cmp(one));
    let mut newest = Vec::new();
    for day in days.into_iter().filter(|day| day.is_dir()) {
        if newest.len() >= most {
            break;
        }
        let entries = match fs::read_dir(day) {
            // Its last recording was deleted just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let is_ours = path.extension().is_some_and(|extension| extension == SUFFIX);
            let session =
                path.file_stem().and_then(|stem| stem.to_str()?.parse::<SessionId>().ok());
            newest.extend(session.filter(|_| is_ours));
        }
    }
    // Ids of version 7 begin with their time.
    newest.sort_by(|one: &SessionId, other| other.cmp(one));
    newest.truncate(most);
    Ok(newest)
}
