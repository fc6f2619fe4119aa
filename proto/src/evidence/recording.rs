//! A recording's file, held against the device that signed it, what the relay listed, and the log.

use super::keys::Keys;
use super::manifest::Recorded;
use super::{Ended, Exchanged, Finding, Remark, check_end};
use crate::error_line::one_line;
use crate::ids::{DeviceId, SessionId};
use crate::recording::file::{Head, split};
use crate::recording::{Chain, End, Gap};

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Who signed it.
    pub device: DeviceId,
    /// `whole`, `cut` or `unfinished`.
    pub state: &'static str,
    /// Segments that are there.
    pub segments: u64,
    /// The digest of the last one.
    pub head: [u8; 32],
}

/// What a recording must fit.
pub(super) struct Fits<'a> {
    pub(super) session: SessionId,
    pub(super) ca: &'a [u8],
    /// By the manifest.
    pub(super) listed: Recorded,
    /// By the log.
    pub(super) ends: &'a [Ended],
}

/// Checks the whole file.
pub(super) fn check<K: Keys>(
    file: &[u8],
    fits: &Fits<'_>,
    keys: &K,
    (findings, remarks): (&mut Vec<Finding>, &mut Vec<Remark>),
) -> Option<Recording> {
    let (chain, rest) = match chain(file, fits, keys) {
        Ok(read) => read,
        Err(why) => {
            findings.push(Finding::Recording(why));
            return None;
        }
    };
    if rest > 0 {
        let why = format!("{rest} bytes at its end are no segment");
        findings.push(Finding::Recording(why));
    }
    let last = chain.next().saturating_sub(1);
    let (head, whole) = (chain.head(), chain.end().is_some());
    if last < fits.listed.last {
        let cut = Exchanged::Cut { logged: fits.listed.last, found: last };
        findings.push(Finding::Exchanged(cut));
    } else if (last, head) != (fits.listed.last, fits.listed.head.0)
        || file.len() as u64 != fits.listed.bytes
    {
        findings.push(Finding::Recording("it is not the one that was signed".to_owned()));
    }
    if let Err(exchanged) = check_end(fits.ends, last, head, whole) {
        let exchanged = Finding::Exchanged(exchanged);
        if !findings.contains(&exchanged) {
            findings.push(exchanged);
        }
    }
    remarks
        .extend(chain.gaps().iter().map(|Gap { from, to }| Remark::Gap { from: *from, to: *to }));
    let state = match chain.end() {
        Some(End::Whole) => "whole",
        Some(End::Cut) => {
            remarks.push(Remark::Cut);
            "cut"
        }
        None => {
            remarks.push(Remark::NoEnd);
            "unfinished"
        }
    };
    Some(Recording { device: chain.device(), state, segments: chain.segments(), head })
}

/// All segments, and how many bytes behind them are none.
fn chain<K: Keys>(file: &[u8], fits: &Fits<'_>, keys: &K) -> Result<(Chain, usize), String> {
    let (head, mut rest) = split(file).ok_or("it does not begin as one")?;
    let head = Head::read(head).map_err(|e| one_line(&e))?;
    if head.session != fits.session {
        return Err(format!("it is of session {}", head.session));
    }
    let (device, key) = keys.device(&head.certificate, fits.ca)?;
    let mut chain = Chain::new(head.session, device);
    while let Some((record, after)) = split(rest) {
        chain.take(record, &key).map_err(|e| one_line(&e))?;
        rest = after;
    }
    if chain.segments() == 0 {
        return Err("there is no segment in it".to_owned());
    }
    Ok((chain, rest.len()))
}
