//! A recording's tombstone: what the audit log says of one that was deleted, before its file goes.

use super::ended::{from_hex, hex};
use super::{Ended, Exchanged, check_end};
use crate::audit::Entry;
use crate::time::UnixTime;

/// The kind of entry that says so.
const KIND: &str = "recording-deleted";

/// What an entry `recording-deleted` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The number of its last whole segment, and the SHA-256 of that; none when not one was whole.
    pub last: Option<(u64, [u8; 32])>,
    /// Bytes of its file.
    pub bytes: u64,
    /// `whole`, `cut` or `unfinished`.
    pub state: String,
    /// By which rule, or by whom and why.
    pub why: String,
}

/// That a session's recording was deleted, as its entry in the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The entry's number.
    pub entry: u64,
    /// When.
    pub at: UnixTime,
    /// Who did it; nobody where a rule did.
    pub by: Option<String>,
    /// What went, and why.
    pub stone: Tombstone,
}

impl Tombstone {
    /// What its entry says, in the words of `recording-ended`.
    pub fn detail(&self) -> String {
        let Self { last, bytes, state, why } = self;
        let what = match last {
            Some((last, head)) => format!("last segment {last}, SHA-256 {}", hex(head)),
            None => NOTHING.to_owned(),
        };
        format!("{what}, {bytes} bytes, {state}; {why}")
    }

    /// Whether an entry is one.
    pub(super) fn is(entry: &Entry) -> bool {
        entry.kind == KIND
    }

    /// Of an entry; `None` when it is of another kind, or cannot be read.
    pub fn of(entry: &Entry) -> Option<Self> {
        let detail = entry.detail.as_deref().filter(|_| Self::is(entry))?;
        let (what, why) = detail.split_once("; ")?;
        let (what, state) = what.rsplit_once(", ")?;
        let (what, bytes) = what.strip_suffix(" bytes")?.rsplit_once(", ")?;
        let last = match what {
            NOTHING => None,
            what => {
                let (last, head) = what.strip_prefix("last segment ")?.split_once(", SHA-256 ")?;
                Some((last.parse().ok()?, from_hex(head)?))
            }
        };
        let (state, why) = (state.to_owned(), why.to_owned());
        Some(Self { last, bytes: bytes.parse().ok()?, state, why })
    }

    /// Whether what went is the recording that every end in the log speaks of.
    ///
    /// # Errors
    /// [`Exchanged`].
    pub(super) fn check(&self, ends: &[Ended]) -> Result<(), Exchanged> {
        match (self.last, ends) {
            (Some((last, head)), ends) => check_end(ends, last, head, self.state != UNFINISHED),
            (None, []) => Ok(()),
            (None, [end, ..]) => Err(Exchanged::Nothing { logged: end.number }),
        }
    }
}

const NOTHING: &str = "no whole segment";

/// The state of one that has no end.
const UNFINISHED: &str = "unfinished";

#[cfg(test)]
mod tests {
    use super::super::ended::tests::entry;
    use super::*;

    fn stone(last: Option<(u64, [u8; 32])>, state: &str, why: &str) -> Tombstone {
        Tombstone { last, bytes: 4711, state: state.into(), why: why.into() }
    }

    #[test]
    fn a_tombstone_is_read_as_it_is_written_and_nothing_else_is_one() {
        let rule = "by the rule recordings_keep_days = 30";
        let person = "before its time, by root: a; b, 3 bytes, whole; c";
        for stone in [
            stone(Some((2, [0xab; 32])), "whole", rule),
            stone(Some((0, [1; 32])), "cut", person),
            stone(None, "unfinished", rule),
        ] {
            assert_eq!(Tombstone::of(&entry(KIND, &stone.detail())), Some(stone));
        }
        // The words that relays have written since they delete.
        let written =
            format!("last segment 2, SHA-256 {}, 4711 bytes, whole; {rule}", "ab".repeat(32));
        assert_eq!(stone(Some((2, [0xab; 32])), "whole", rule).detail(), written);
        assert_eq!(Tombstone::of(&entry("recording-ended", &written)), None);
        for bad in ["", "no whole segment", "no whole segment, x bytes, whole; y", &written[..70]] {
            assert_eq!(Tombstone::of(&entry(KIND, bad)), None, "{bad}");
        }
    }

    #[test]
    fn what_went_is_held_against_the_end_in_the_log() {
        let end = Ended { number: 3, head: [7; 32] };
        let of = |last, state: &str| stone(last, state, "x");
        assert_eq!(of(Some((3, [7; 32])), "whole").check(&[end, end]), Ok(()));
        assert_eq!(of(Some((1, [6; 32])), "unfinished").check(&[]), Ok(()));
        assert_eq!(of(None, "unfinished").check(&[]), Ok(()));
        let cut = Err(Exchanged::Cut { logged: 3, found: 1 });
        assert_eq!(of(Some((1, [6; 32])), "unfinished").check(&[end]), cut);
        let other = Err(Exchanged::Other { logged: 3 });
        assert_eq!(of(Some((3, [6; 32])), "whole").check(&[end]), other);
        let nothing = Err(Exchanged::Nothing { logged: 3 });
        assert_eq!(of(None, "unfinished").check(&[end]), nothing);
    }
}
