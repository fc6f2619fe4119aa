//! What was done to a list whose every element had another hash: changed, taken out, put in, moved.
//!
//! What stands in both lists in the same order is the longest such sequence; all else is named.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::digest::Digest;

/// One difference. Entries are counted from 1, as in [`Entry::seq`](super::Entry::seq).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Another entry stands in the place of this one.
    Changed(u64),
    /// These are gone.
    Removed(Range<u64>),
    /// The end is gone, from this one on.
    Truncated(Range<u64>),
    /// So many that are not of the log stand behind this one (0: at the beginning).
    Inserted {
        /// Behind which.
        after: u64,
        /// How many.
        count: u64,
    },
    /// This one stands in another place: behind that one (0: at the beginning).
    Moved {
        /// Which.
        entry: u64,
        /// Behind which.
        after: u64,
    },
    /// This one stands there once more.
    Twice(u64),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = |after: u64| match after {
            0 => "at the beginning".to_owned(),
            after => format!("behind entry {after}"),
        };
        match self {
            Self::Changed(entry) => write!(f, "entry {entry} was changed"),
            Self::Removed(range) => write!(f, "{} removed", entries(range)),
            Self::Truncated(range) => write!(f, "the end was cut off: {} removed", entries(range)),
            Self::Inserted { after, count: 1 } => {
                write!(f, "an entry that is not of the log was put in {}", behind(*after))
            }
            Self::Inserted { after, count } => {
                write!(f, "{count} entries that are not of the log were put in {}", behind(*after))
            }
            Self::Moved { entry, after } => {
                write!(f, "entry {entry} was moved: it stands {}", behind(*after))
            }
            Self::Twice(entry) => write!(f, "entry {entry} stands there twice"),
        }
    }
}

fn entries(range: &Range<u64>) -> String {
    let last = range.end.saturating_sub(1);
    if range.start == last {
        format!("entry {last} was")
    } else {
        format!("entries {} to {last} were", range.start)
    }
}

/// How `found` differs from `signed`, in the order of `signed`. Nothing when they are the same.
pub fn compare(found: &[Digest], signed: &[Digest]) -> Vec<Difference> {
    let same = found.iter().zip(signed).take_while(|(a, b)| a == b).count();
    let whole = signed;
    let (found, signed) = (tail(found, same), tail(signed, same));
    let alike = found.iter().rev().zip(signed.iter().rev()).take_while(|(a, b)| a == b).count();
    let found = found.get(..found.len() - alike).unwrap_or_default();
    let middle = signed.get(..signed.len() - alike).unwrap_or_default();
    // A leaf has its own place inside, so no hash stands twice in a signed list.
    let mut place: BTreeMap<Digest, (usize, bool)> =
        middle.iter().enumerate().map(|(index, hash)| (*hash, (index, false))).collect();
    let mut seen: Vec<Seen> = found
        .iter()
        .map(|hash| match place.get_mut(hash) {
            Some((index, taken)) if *taken => Seen::Again((same + *index) as u64 + 1),
            Some((index, taken)) => {
                *taken = true;
                Seen::Known(*index)
            }
            None => Seen::Stranger,
        })
        .collect();
    if seen.iter().any(|one| matches!(one, Seen::Stranger)) {
        // A stranger here may be a copy of what stands right elsewhere.
        let everywhere: BTreeMap<Digest, u64> = whole.iter().copied().zip(1..).collect();
        for (one, hash) in seen.iter_mut().zip(found) {
            if let (Seen::Stranger, Some(entry)) = (&one, everywhere.get(hash)) {
                *one = Seen::Again(*entry);
            }
        }
    }
    let known: Vec<Option<usize>> = seen.iter().map(|one| one.known()).collect();
    let mut walk = Walk { base: same as u64, ends: alike == 0, signed: middle.len(), out: vec![] };
    let in_order = longest_ascent(&known);
    let (mut next, mut strangers, mut last) = (0, 0_u64, 0);
    let mut missing: Vec<bool> = vec![true; middle.len()];
    for index in known.iter().flatten() {
        missing.get_mut(*index).into_iter().for_each(|slot| *slot = false);
    }
    for (at, one) in seen.iter().enumerate() {
        match *one {
            Seen::Known(index) if in_order.binary_search(&at).is_ok() => {
                walk.gap(next..index, &missing, strangers, last);
                (next, strangers, last) = (index + 1, 0, index + 1);
            }
            Seen::Known(index) => {
                let (entry, after) = (walk.number(index + 1), walk.number(last));
                walk.out.push(Difference::Moved { entry, after });
            }
            Seen::Again(entry) => walk.out.push(Difference::Twice(entry)),
            Seen::Stranger => strangers += 1,
        }
    }
    walk.gap(next..middle.len(), &missing, strangers, last);
    walk.out
}

fn tail(list: &[Digest], from: usize) -> &[Digest] {
    list.get(from..).unwrap_or_default()
}

/// What an element of the list found is.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// The one with this place in the signed list.
    Known(usize),
    /// This entry once more.
    Again(u64),
    /// None of the signed list.
    Stranger,
}

impl Seen {
    const fn known(self) -> Option<usize> {
        match self {
            Self::Known(index) => Some(index),
            Self::Again(_) | Self::Stranger => None,
        }
    }
}

struct Walk {
    /// How many entries stand before the part looked at.
    base: u64,
    /// Whether the lists differ to their very end.
    ends: bool,
    /// How many entries the part has in the signed list.
    signed: usize,
    out: Vec<Difference>,
}

impl Walk {
    const fn number(&self, index: usize) -> u64 {
        self.base + index as u64
    }

    /// Between two entries that stand right: those of `gap` that are missing, and so many that
    /// nobody knows. One stranger for one missing is a change.
    fn gap(&mut self, gap: Range<usize>, missing: &[bool], mut strangers: u64, after: usize) {
        let mut gone = gap.filter(|index| missing.get(*index).copied().unwrap_or(false)).peekable();
        let mut last = self.number(after);
        while strangers > 0
            && let Some(index) = gone.next()
        {
            last = self.number(index + 1);
            self.out.push(Difference::Changed(last));
            strangers -= 1;
        }
        if strangers > 0 {
            self.out.push(Difference::Inserted { after: last, count: strangers });
        }
        while let Some(first) = gone.next() {
            let mut end = first + 1;
            while gone.next_if_eq(&end).is_some() {
                end += 1;
            }
            let range = self.number(first + 1)..self.number(end + 1);
            let cut = self.ends && end == self.signed;
            self.out.push(if cut {
                Difference::Truncated(range)
            } else {
                Difference::Removed(range)
            });
        }
    }
}

/// The places in `list`, ascending, of the longest sequence of values that ascend.
fn longest_ascent(list: &[Option<usize>]) -> Vec<usize> {
    // `ends[n]` is the place of the smallest value that ends an ascent of n + 1.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; list.len()];
    for (at, value) in list.iter().enumerate() {
        let Some(value) = *value else { continue };
        let length = ends.partition_point(|(end, _)| *end < value);
        let previous = length.checked_sub(1).and_then(|n| ends.get(n)).map(|(_, at)| *at);
        before.get_mut(at).into_iter().for_each(|slot| *slot = previous);
        match ends.get_mut(length) {
            Some(end) => *end = (value, at),
            None => ends.push((value, at)),
        }
    }
    let mut places = Vec::new();
    let mut next = ends.last().map(|(_, at)| *at);
    while let Some(at) = next {
        places.push(at);
        next = before.get(at).copied().flatten();
    }
    places.reverse();
    places
}
