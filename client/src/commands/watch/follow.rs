//! A recording's bytes as they come, checked and read.
//!
//! Its law: what comes out was signed by the device, as the next of this session's recording; on the
//! first byte that was not, it ends. It keeps no more than the beginning of what is still to come.

use std::collections::BTreeMap;
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_proto::ids::SessionId;
use belay_proto::limits::MAX_FRAME;
use belay_proto::recording::file::{Head, LENGTH, split};
use belay_proto::recording::{Chain, End, Gap, Segment, TEXT_MAX};
use belay_tunnel::pki::DeviceKey;
use rustls_pki_types::CertificateDer;

use crate::commands::play::open::{Keys, Lock};
use crate::commands::play::proof::broken;
use crate::commands::play::track::{self, Event, Header};
use crate::failure::Failure;

/// Tracks whose next line may begin in the middle. Far more than a session has terminals and commands
/// open at once.
const BEGUN_MAX: usize = 1024;

/// What was recorded.
#[derive(Debug)]
pub(super) enum Seen {
    /// A terminal or command, or the session itself, begins.
    Begun(u32, Header),
    /// Something happened in one.
    Happened(u32, Event),
    /// The device could not keep these segments.
    Missing(Gap),
}

/// A recording from its beginning.
pub(super) struct Follower {
    session: SessionId,
    ca: CertificateDer<'static>,
    known: Option<(DeviceKey, Chain)>,
    /// The beginning of the next record.
    rest: Vec<u8>,
    tracks: BTreeMap<u32, Reading>,
    told_gaps: usize,
    lock: Lock,
}

/// How far a track was read.
#[derive(Default)]
struct Reading {
    has_header: bool,
    at: Duration,
    /// The beginning of the next line.
    line: String,
}

impl Follower {
    /// Of a session, by devices of this CA, and with an auditor's keys where it is sealed.
    pub(super) fn new(session: SessionId, ca: CertificateDer<'static>, keys: Option<Keys>) -> Self {
        let (rest, tracks, lock) = (Vec::new(), BTreeMap::new(), Lock::new(session, keys));
        Self { session, ca, known: None, rest, tracks, told_gaps: 0, lock }
    }

    /// How the recording ended, once it has.
    pub(super) fn end(&self) -> Option<End> {
        self.known.as_ref().and_then(|(_, chain)| chain.end())
    }

    /// More bytes of the file.
    ///
    /// # Errors
    /// When they are not what the device signed next. Nothing of them is to be shown.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, Failure> {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let (mut left, mut seen) = (all.as_slice(), Vec::new());
        while let Some((record, after)) = split(left) {
            self.record(record, &mut seen)?;
            left = after;
        }
        if left.len() > MAX_FRAME + 2 * LENGTH || (!left.is_empty() && self.end().is_some()) {
            return Err(broken(format!("{} bytes stand there that are no segment", left.len())));
        }
        self.rest = left.to_vec();
        Ok(seen)
    }

    fn record(&mut self, record: &[u8], seen: &mut Vec<Seen>) -> Result<(), Failure> {
        let Some((key, chain)) = &mut self.known else {
            self.known = Some(begin(record, self.session, &self.ca)?);
            return Ok(());
        };
        let segment = chain.take(record, &*key).map_err(|error| broken(one_line(&error)))?;
        let gaps = chain.gaps();
        seen.extend(gaps.iter().skip(self.told_gaps).copied().map(Seen::Missing));
        self.told_gaps = gaps.len();
        self.read(&segment, seen)
    }

    /// The lines of a segment.
    fn read(&mut self, segment: &Segment, seen: &mut Vec<Seen>) -> Result<(), Failure> {
        let number = segment.track;
        let nonsense = || broken(format!("track {number} is no asciicast"));
        let text = track::text(segment, self.lock.opener(segment)?)?;
        if !self.tracks.contains_key(&number) && self.tracks.len() >= BEGUN_MAX {
            self.tracks.pop_first();
        }
        let reading = self.tracks.entry(number).or_default();
        reading.line.push_str(&text);
        let lines = std::mem::take(&mut reading.line);
        let mut rest = lines.as_str();
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            if reading.has_header {
                let event = track::event(line, reading.at).ok_or_else(nonsense)?;
                reading.at = event.at;
                seen.push(Seen::Happened(number, event));
            } else {
                let header = track::header(line).ok_or_else(nonsense)?;
                reading.has_header = true;
                seen.push(Seen::Begun(number, header));
            }
        }
        if rest.len() > TEXT_MAX {
            return Err(nonsense());
        }
        reading.line = rest.to_owned();
        Ok(())
    }
}

/// The file's head: which device's key the segments must be signed with.
fn begin(
    record: &[u8],
    session: SessionId,
    ca: &CertificateDer<'static>,
) -> Result<(DeviceKey, Chain), Failure> {
    let head = Head::read(record).map_err(|error| broken(one_line(&error)))?;
    if head.session != session {
        let other = head.session;
        return Err(broken(format!("the relay gave the recording of session {other}")));
    }
    let certificate = CertificateDer::from(head.certificate.to_vec());
    let key = DeviceKey::issued(certificate, ca).map_err(|error| broken(one_line(&error)))?;
    let chain = Chain::new(session, key.device());
    Ok((key, chain))
}
