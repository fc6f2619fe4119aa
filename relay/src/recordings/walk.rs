//! Going through a recording's file, segment by segment, each checked as an auditor checks it.
//!
//! What stands behind the last whole segment is being written, and left alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use belay_proto::audit::Digest;
use belay_proto::evidence::Recorded;
use belay_proto::ids::SessionId;
use belay_proto::limits::MAX_FRAME;
use belay_proto::recording::file::{Head, HeadError, LENGTH, split};
use belay_proto::recording::{Chain, ChainError, End, Segment};
use belay_tunnel::pki::{DeviceKey, SegmentKeyError};
use rustls_pki_types::CertificateDer;

use super::{Recordings, file};

/// A recording is not what its device signed, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    /// The disk.
    #[error("its file cannot be read")]
    Disk(#[from] io::Error),
    /// Its beginning.
    #[error("its file does not begin as one")]
    Beginning,
    /// Its beginning does not read.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Of another session.
    #[error("it is of session {0}")]
    OtherSession(SessionId),
    /// Its device.
    #[error(transparent)]
    Device(#[from] SegmentKeyError),
    /// A segment.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No record is so long.
    #[error("something in it is no segment")]
    NoSegment,
}

impl Recordings {
    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All there are, and the length of each one's file in bytes.
    pub(crate) fn sizes(&self) -> io::Result<BTreeMap<SessionId, u64>> {
        let mut sizes = BTreeMap::new();
        for session in file::newest(&self.dir, usize::MAX)? {
            // One that was deleted meanwhile is none.
            if let Ok(metadata) = fs::metadata(file::path(&self.dir, session)) {
                sizes.insert(session, metadata.len());
            }
        }
        Ok(sizes)
    }
}

/// A recording being gone through.
pub(crate) struct Walk<'a> {
    recordings: &'a Recordings,
    session: SessionId,
    key: DeviceKey,
    chain: Chain,
    /// Where `held` begins in the file.
    at: u64,
    held: Vec<u8>,
    /// How much of `held` was gone through.
    used: usize,
}

impl<'a> Walk<'a> {
    /// Begins; `None` when there is no recording.
    pub(crate) fn begin(
        recordings: &'a Recordings,
        session: SessionId,
        ca: &CertificateDer<'_>,
    ) -> Result<Option<Self>, WalkError> {
        let Some(held) = recordings.page(session, 0)? else { return Ok(None) };
        let (record, rest) = split(&held).ok_or(WalkError::Beginning)?;
        let head = Head::read(record)?;
        if head.session != session {
            return Err(WalkError::OtherSession(head.session));
        }
        let certificate = CertificateDer::from(head.certificate.to_vec());
        let key = DeviceKey::issued(certificate, ca)?;
        let chain = Chain::new(session, key.device());
        let used = held.len() - rest.len();
        Ok(Some(Self { recordings, session, key, chain, at: 0, held, used }))
    }

    /// The next segment; `None` behind the last whole one.
    pub(crate) fn next(&mut self) -> Result<Option<Segment>, WalkError> {
        loop {
            let rest = self.held.get(self.used..).unwrap_or_default();
            if let Some((record, after)) = split(rest) {
                let segment = self.chain.take(record, &self.key)?;
                self.used = self.held.len() - after.len();
                return Ok(Some(segment));
            }
            if rest.len() >= MAX_FRAME + 2 * LENGTH {
                return Err(WalkError::NoSegment);
            }
            let from = self.at + self.used as u64;
            let left = rest.len();
            let page = self.recordings.page(self.session, from)?.unwrap_or_default();
            if page.len() <= left {
                return Ok(None);
            }
            (self.at, self.held, self.used) = (from, page, 0);
        }
    }

    /// How it ended, as far as it was gone through.
    pub(crate) const fn end(&self) -> Option<End> {
        self.chain.end()
    }

    /// Bytes of the file that were gone through.
    pub(crate) fn bytes(&self) -> u64 {
        self.at + self.used as u64
    }

    /// What was gone through; `None` when there was no segment.
    pub(crate) fn recorded(&self) -> Option<Recorded> {
        (self.chain.segments() > 0).then(|| Recorded {
            bytes: self.bytes(),
            last: self.chain.next().saturating_sub(1),
            head: Digest(self.chain.head()),
        })
    }
}
