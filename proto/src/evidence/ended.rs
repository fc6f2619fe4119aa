//! A recording's end as the audit log has it, and whether a recording is the one that ended so.

use crate::audit::Entry;

/// The kind of entry that says so.
const KIND: &str = "recording-ended";

/// What an entry `recording-ended` says: which segment was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub number: u64,
    /// Its SHA-256.
    pub head: [u8; 32],
}

impl Ended {
    /// Of an entry; `None` when it is of another kind, or cannot be read.
    pub fn of(entry: &Entry) -> Option<Self> {
        let detail = entry.detail.as_deref().filter(|_| entry.kind == KIND)?;
        let (number, rest) = detail.strip_prefix("last segment ")?.split_once(", SHA-256 ")?;
        let head = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
        Some(Self { number: number.parse().ok()?, head: from_hex(head)? })
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes written in hexadecimal, in small letters or large.
pub fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (slot, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// A recording is not the one whose end the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exchanged {
    /// It ends before.
    #[error(
        "the recording was cut: by the audit log its last segment is {logged}, and it goes to {found}"
    )]
    Cut {
        /// By the log.
        logged: u64,
        /// The last one there is.
        found: u64,
    },
    /// It is another.
    #[error(
        "the recording was exchanged: the audit log has another digest of its last segment, {logged}"
    )]
    Other {
        /// By the log.
        logged: u64,
    },
    /// Not one segment of it was left.
    #[error(
        "the recording was cut: by the audit log its last segment is {logged}, and it had none"
    )]
    Nothing {
        /// By the log.
        logged: u64,
    },
}

/// Whether a recording with this last segment is the one that every end in the log speaks of.
///
/// `whole` says whether the recording's own end is there: one that goes on may lack it.
///
/// # Errors
/// [`Exchanged`].
pub fn check_end(
    ends: &[Ended],
    number: u64,
    head: [u8; 32],
    whole: bool,
) -> Result<(), Exchanged> {
    for logged in ends {
        if !whole && number < logged.number {
            return Err(Exchanged::Cut { logged: logged.number, found: number });
        }
        if (number, head) != (logged.number, logged.head) || !whole {
            return Err(Exchanged::Other { logged: logged.number });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::time::UnixTime;

    /// An entry of this kind that says this.
    pub(in crate::evidence) fn entry(kind: &str, detail: &str) -> Entry {
        Entry {
            seq: 1,
            at: UnixTime(1),
            kind: kind.into(),
            user: None,
            user_name: None,
            device: None,
            device_name: None,
            session: None,
            login: None,
            code: None,
            detail: Some(detail.into()),
            source: None,
        }
    }

    #[test]
    fn an_end_is_read_as_it_is_written_and_nothing_else_is_one() {
        let hex = "ab".repeat(32);
        let whole = format!("last segment 17, SHA-256 {hex}");
        let ended = Ended { number: 17, head: [0xab; 32] };
        assert_eq!(Ended::of(&entry(KIND, &whole)), Some(ended));
        assert_eq!(Ended::of(&entry(KIND, &(whole.clone() + ", cut"))), Some(ended));
        assert_eq!(Ended::of(&entry("recording-started", &whole)), None);
        let bad = ["last segment x, SHA-256 ab", "last segment 1", "", &whole[..whole.len() - 1]];
        for bad in bad {
            assert_eq!(Ended::of(&entry(KIND, bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_recording_that_is_not_the_one_in_the_log_is_named() {
        let logged = Ended { number: 5, head: [1; 32] };
        assert_eq!(check_end(&[], 3, [9; 32], false), Ok(()));
        assert_eq!(check_end(&[logged, logged], 5, [1; 32], true), Ok(()));
        let cut = Err(Exchanged::Cut { logged: 5, found: 3 });
        assert_eq!(check_end(&[logged], 3, [9; 32], false), cut);
        let other = Err(Exchanged::Other { logged: 5 });
        assert_eq!(check_end(&[logged], 5, [2; 32], true), other);
        assert_eq!(check_end(&[logged], 3, [2; 32], true), other);
        assert_eq!(check_end(&[logged], 5, [1; 32], false), other);
        let second = Ended { number: 6, head: [3; 32] };
        assert_eq!(
            check_end(&[logged, second], 5, [1; 32], true),
            Err(Exchanged::Other { logged: 6 })
        );
    }
}
