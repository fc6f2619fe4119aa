//! Whether segments are what a device signed, all of them, in its order.

use super::segment::{End, Segment, SignedSegment, VERSION, digest, signed_bytes};
use super::{KEY_MAX, PAYLOAD_MAX, SEGMENTS_MAX};
use crate::grant::VerifySignature;
use crate::ids::{DeviceId, SessionId};
use crate::wire::frame::{FrameError, decode_payload};

/// A segment is not the next one of its recording.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Not a segment at all.
    #[error("segment {0} cannot be read")]
    Unreadable(u64, #[source] FrameError),
    /// Changed after it was signed, or signed by another key.
    #[error("segment {0} is not signed by the device")]
    Signature(u64),
    /// A layout this build does not know.
    #[error("segment {0} has version {1}; this build knows {VERSION}")]
    Version(u64, u16),
    /// Of another recording.
    #[error("segment {number} belongs to session {session}")]
    OtherSession {
        /// Its place.
        number: u64,
        /// Where it belongs.
        session: SessionId,
    },
    /// Signed for another device.
    #[error("segment {number} was recorded by device {device}")]
    OtherDevice {
        /// Its place.
        number: u64,
        /// Whose it is.
        device: DeviceId,
    },
    /// Not after the one before it.
    #[error("segment {found} stands where {expected} or a later one must be")]
    Order {
        /// The least number it may have.
        expected: u64,
        /// Its own.
        found: u64,
    },
    /// What stood between it and the one before was taken out or changed.
    #[error("segment {0} does not follow the one before it: something was taken out or changed")]
    Broken(u64),
    /// After the end.
    #[error("segment {0} stands after the recording's end")]
    AfterEnd(u64),
    /// More than any device makes.
    #[error("segment {0} is longer, or has a higher number, than any may")]
    TooMuch(u64),
}

/// Segments the device made and could not keep, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// What of a recording was checked so far.
///
/// [`Self::take`] each segment from the first on. [`Self::end`] says whether all is there: `None`
/// after the last one means that the recording was cut.
#[derive(Debug, Clone)]
pub struct Chain {
    session: SessionId,
    device: DeviceId,
    next: u64,
    head: [u8; 32],
    segments: u64,
    end: Option<End>,
    gaps: Vec<Gap>,
}

/// Gaps remembered one by one; more are counted into the last.
const GAPS_MAX: usize = 64;

impl Chain {
    /// A recording from its beginning.
    pub const fn new(session: SessionId, device: DeviceId) -> Self {
        Self { session, device, next: 0, head: [0; 32], segments: 0, end: None, gaps: Vec::new() }
    }

    /// One whose segments up to this one were checked before. Nothing is known of their gaps.
    ///
    /// # Errors
    /// When that one cannot be read.
    pub fn after(encoded: &[u8], segments: u64) -> Result<Self, FrameError> {
        let segment: Segment = decode_payload(encoded)?;
        Ok(Self {
            session: segment.session,
            device: segment.device,
            next: segment.number.saturating_add(1),
            head: digest(encoded),
            segments,
            end: segment.end,
            gaps: Vec::new(),
        })
    }

    /// Whose recording it is.
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// The least number the next segment may have.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The digest of the last one taken; zeros before the first.
    pub const fn head(&self) -> [u8; 32] {
        self.head
    }

    /// How many were taken.
    pub const fn segments(&self) -> u64 {
        self.segments
    }

    /// How it ended, once it has.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// What the device could not keep.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Checks one more [`SignedSegment`].
    ///
    /// # Errors
    /// Each says which one, and what is wrong with it. After an error the chain stands where it
    /// stood.
    pub fn take(
        &mut self,
        signed: &[u8],
        keys: &impl VerifySignature,
    ) -> Result<Segment, ChainError> {
        let place = self.next;
        let unreadable = |error| ChainError::Unreadable(place, error);
        let signed: SignedSegment = decode_payload(signed).map_err(unreadable)?;
        if !keys.verify(&signed_bytes(&signed.segment), &signed.signature) {
            return Err(ChainError::Signature(place));
        }
        let segment: Segment = decode_payload(&signed.segment).map_err(unreadable)?;
        self.judge(&segment)?;
        if segment.number > self.next {
            self.gap(Gap { from: self.next, to: segment.number - 1 });
        }
        self.next = segment.number.saturating_add(1);
        self.head = digest(&signed.segment);
        self.segments += 1;
        self.end = segment.end;
        Ok(segment)
    }

    fn judge(&self, segment: &Segment) -> Result<(), ChainError> {
        let number = segment.number;
        if segment.version != VERSION {
            return Err(ChainError::Version(number, segment.version));
        }
        if segment.session != self.session {
            return Err(ChainError::OtherSession { number, session: segment.session });
        }
        if segment.device != self.device {
            return Err(ChainError::OtherDevice { number, device: segment.device });
        }
        let key = segment.key.as_ref().map_or(0, |key| key.len());
        if segment.payload.len() > PAYLOAD_MAX || key > KEY_MAX || number >= SEGMENTS_MAX {
            return Err(ChainError::TooMuch(number));
        }
        if self.end.is_some() {
            return Err(ChainError::AfterEnd(number));
        }
        if number < self.next {
            return Err(ChainError::Order { expected: self.next, found: number });
        }
        if *segment.before != self.head {
            return Err(ChainError::Broken(number));
        }
        Ok(())
    }

    fn gap(&mut self, gap: Gap) {
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        } else if let Some(last) = self.gaps.last_mut() {
            last.to = gap.to;
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
