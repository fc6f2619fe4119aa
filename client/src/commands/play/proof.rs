//! Whether a recording is what a device of this deployment signed, all of it.

use belay_proto::error_line::one_line;
use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::file::{Head, split};
use belay_proto::recording::{Chain, End, Gap, Segment};
use belay_tunnel::pki::DeviceKey;
use rustls_pki_types::CertificateDer;

use crate::failure::Failure;

/// A recording whose chain and signatures are right. Only [`prove`] makes one.
pub(in crate::commands) struct Proven {
    pub(in crate::commands) session: SessionId,
    pub(in crate::commands) device: DeviceId,
    pub(in crate::commands) segments: Vec<Segment>,
    pub(super) gaps: Vec<Gap>,
    pub(super) head: [u8; 32],
    end: Option<End>,
}

impl Proven {
    /// `whole`, `cut` or `unfinished`.
    pub(super) const fn state(&self) -> &'static str {
        match self.end {
            Some(End::Whole) => "whole",
            Some(End::Cut) => "cut",
            None => "unfinished",
        }
    }

    /// Whether its end is there, as the session's or as the recorder's.
    pub(super) const fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// What a viewer has to know before anything is shown.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        match self.end {
            Some(End::Whole) => {}
            Some(End::Cut) => remarks.push(
                "belay: the recording is cut: whatever recorded it ended before the session did"
                    .to_owned(),
            ),
            None => remarks.push(
                "belay: the recording has no end: the session goes on, its device is away, or its last segments were taken out"
                    .to_owned(),
            ),
        }
        for Gap { from, to } in &self.gaps {
            let which = if from == to { format!("{from}") } else { format!("{from} to {to}") };
            remarks.push(format!("belay: the device could not keep segment {which}"));
        }
        remarks
    }
}

pub(in crate::commands) fn broken(cause: impl AsRef<str>) -> Failure {
    Failure::new("recording-broken", cause)
        .remedy("nothing of it is shown; compare it with a copy, and look at the relay's record")
}

/// Checks the whole file.
pub(in crate::commands) fn prove(bytes: &[u8], ca: &CertificateDer<'_>) -> Result<Proven, Failure> {
    let (head, mut rest) =
        split(bytes).ok_or_else(|| broken("the file does not begin as a recording does"))?;
    let head = Head::read(head).map_err(|error| broken(one_line(&error)))?;
    let certificate = CertificateDer::from(head.certificate.to_vec());
    let key = DeviceKey::issued(certificate, ca).map_err(|error| broken(one_line(&error)))?;
    let mut chain = Chain::new(head.session, key.device());
    let mut segments = Vec::new();
    while let Some((record, after)) = split(rest) {
        let segment = chain.take(record, &key).map_err(|error| broken(one_line(&error)))?;
        segments.push(segment);
        rest = after;
    }
    // What is being written just now is no segment yet.
    if !rest.is_empty() && chain.end().is_some() {
        return Err(broken(format!("{} bytes stand after the recording's end", rest.len())));
    }
    if segments.is_empty() {
        return Err(broken("there is no segment in it"));
    }
    Ok(Proven {
        session: head.session,
        device: key.device(),
        segments,
        gaps: chain.gaps().to_vec(),
        head: chain.head(),
        end: chain.end(),
    })
}
