//! Judging a copy of the log: is it the log that was signed, and if not, what was done to it?
//!
//! Three things come with a copy: the entries, the hash of each as the relay's tree has it, and
//! signed checkpoints. A checkpoint that fits the entries proves all of them up to its size. One that
//! does not, but fits the hashes, proves the hashes, and these say exactly which entries are not as
//! they were. Where it fits neither, the hashes were rewritten as well; what is left is the numbers
//! inside the entries and the last checkpoint that does fit: the place is somewhere between that one
//! and the first that does not. Where a later one fits all the same, the key itself signed another
//! history than before.

use std::collections::BTreeMap;
use std::fmt;

use super::checkpoint::{BadCheckpoint, Checkpoint};
use super::compare::{Difference, compare};
use super::digest::{Digest, empty_root, leaf_hash};
use super::entry::{pruned_upto, seq_of};
use super::note::{NoteError, VerifierKey};
use super::tree::Frontier;
use crate::grant::VerifySignature;

/// Something that is not as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A checkpoint is signed by another key.
    OtherKey {
        /// The log's key.
        key: String,
        /// Whose it is, as it says.
        by: String,
    },
    /// A checkpoint cannot be taken; why.
    BadCheckpoint(BadCheckpoint),
    /// No checkpoint is there that could prove anything.
    NothingSigned,
    /// The key signed two logs of so many entries.
    Forked {
        /// So many.
        size: u64,
    },
    /// An entry is not as it was signed.
    Differs(Difference),
    /// Among these, something was done; which, cannot be told from what is here.
    Altered {
        /// From this entry on.
        first: u64,
        /// To this one.
        last: u64,
    },
    /// In this place stands an entry with another number, or with none.
    Misnumbered {
        /// The place, from 1.
        place: u64,
        /// The number.
        says: Option<u64>,
    },
    /// The relay's hash of this entry was changed; the entry is as it was signed.
    HashChanged(u64),
    /// These have no text, and no entry of the log says that they may have lost it.
    Blank {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Behind the last checkpoint stand more entries, which nothing proves.
    Unproven {
        /// The first of them.
        first: u64,
    },
    /// A checkpoint from elsewhere is of a longer log.
    Shorter {
        /// Entries here.
        have: u64,
        /// Entries there.
        signed: u64,
    },
    /// A checkpoint, of this copy or from elsewhere, is of another log with the same key.
    OtherHistory {
        /// Its size.
        size: u64,
        /// Up to this entry both are known to be the same.
        agree: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKey { key, by } => {
                write!(f, "the key was replaced: a checkpoint is signed by {by}, not by {key}")
            }
            Self::BadCheckpoint(why) => write!(f, "a checkpoint cannot be taken: {why}"),
            Self::NothingSigned => f.write_str("there is no checkpoint, so nothing is proven"),
            Self::Forked { size } => {
                write!(f, "the log was forked: its key signed two different logs of {size} entries")
            }
            Self::Differs(difference) => difference.fmt(f),
            Self::Altered { first, last } if first == last => {
                write!(f, "entry {first} is not as it was signed")
            }
            Self::Altered { first, last } => write!(
                f,
                "among entries {first} to {last} something was changed, removed, put in or moved"
            ),
            Self::Misnumbered { place, says: Some(says) } => {
                write!(f, "in place {place} stands an entry with the number {says}")
            }
            Self::Misnumbered { place, says: None } => {
                write!(f, "in place {place} stands something that is no entry")
            }
            Self::HashChanged(entry) => write!(
                f,
                "the stored hash of entry {entry} was changed; the entry itself is as it was signed"
            ),
            Self::Blank { first, last } => write!(
                f,
                "of entries {first} to {last} texts are missing, and no entry says that these were \
                 pruned"
            ),
            Self::Unproven { first } => {
                write!(f, "from entry {first} on no checkpoint covers the entries")
            }
            Self::Shorter { have, signed } => write!(
                f,
                "the log was truncated or rolled back: a checkpoint from elsewhere has {signed} \
                 entries, here are {have}"
            ),
            Self::OtherHistory { size, agree } => write!(
                f,
                "the log was forked or rewritten: a signed checkpoint of {size} entries is of another \
                 history; up to entry {agree} both are the same"
            ),
        }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Entries seen.
    pub entries: u64,
    /// The first so many are as they were signed.
    pub proven: u64,
    /// So many of them are there by their hash alone: their text was pruned, by rule and on record.
    pub pruned: u64,
    /// The largest checkpoint that fits.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong; nothing when all is well.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong, and a checkpoint proves every entry.
    pub fn intact(&self) -> bool {
        self.findings.is_empty() && self.checkpoint.is_some() && self.proven == self.entries
    }
}

/// A review under way: give it everything, in the order it stands there, then [`Review::finish`].
#[derive(Debug, Clone)]
pub struct Review {
    key: VerifierKey,
    found: Vec<Digest>,
    misnumbered: Vec<Finding>,
    /// How many texts are missing.
    pruned: u64,
    /// Up to which entry they may be.
    may_be_pruned: u64,
    /// The places, first and last, where they are.
    blank: Option<(u64, u64)>,
    claimed: Vec<Digest>,
    own: Vec<Checkpoint>,
    elsewhere: Vec<Checkpoint>,
    findings: Vec<Finding>,
}

/// Places with a wrong number that are kept: one entry taken out gives all behind it another place.
const MOST_MISNUMBERED: usize = 1;

impl Review {
    /// Of a log with this key.
    pub const fn new(key: VerifierKey) -> Self {
        Self {
            key,
            found: Vec::new(),
            misnumbered: Vec::new(),
            pruned: 0,
            may_be_pruned: 0,
            blank: None,
            claimed: Vec::new(),
            own: Vec::new(),
            elsewhere: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// How many entries were given.
    pub fn entries(&self) -> u64 {
        self.found.len() as u64
    }

    /// The next entry, as its line.
    pub fn entry(&mut self, line: &str) {
        self.found.push(leaf_hash(line.as_bytes()));
        self.may_be_pruned = self.may_be_pruned.max(pruned_upto(line).unwrap_or_default());
        let (place, says) = (self.entries(), seq_of(line));
        if says != Some(place) && self.misnumbered.len() < MOST_MISNUMBERED {
            self.misnumbered.push(Finding::Misnumbered { place, says });
        }
    }

    /// The next entry, whose text was pruned: its hash. A checkpoint proves it as it proves a text.
    pub fn pruned(&mut self, leaf: Digest) {
        self.found.push(leaf);
        self.pruned += 1;
        let place = self.entries();
        self.blank = Some((self.blank.map_or(place, |(first, _)| first), place));
    }

    /// The next hashes of leaves, as the relay has them.
    pub fn leaves(&mut self, hashes: &[Digest]) {
        self.claimed.extend_from_slice(hashes);
    }

    /// A checkpoint that belongs to the copy.
    pub fn checkpoint(&mut self, note: &str, check: &impl VerifySignature) {
        match Checkpoint::open(note, &self.key, check) {
            Ok(checkpoint) => self.own.push(checkpoint),
            Err(error) => self.refuse(error),
        }
    }

    /// A checkpoint from another place: a witness, another auditor, an earlier review.
    pub fn checkpoint_from_elsewhere(&mut self, note: &str, check: &impl VerifySignature) {
        match Checkpoint::open(note, &self.key, check) {
            Ok(checkpoint) => self.elsewhere.push(checkpoint),
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: BadCheckpoint) {
        let finding = if let BadCheckpoint::Note(NoteError::OtherKey { by }) = error {
            Finding::OtherKey { key: self.key.to_string(), by }
        } else {
            Finding::BadCheckpoint(error)
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// The judgement. A checkpoint that the key signed and that does not fit is never without a finding.
    pub fn finish(mut self) -> Report {
        self.own.sort_by_key(|checkpoint| checkpoint.size);
        self.elsewhere.sort_by_key(|checkpoint| checkpoint.size);
        let sizes = self.own.iter().chain(&self.elsewhere).map(|one| one.size);
        let found = Roots::of(&self.found, sizes.clone());
        let (last_good, bad) = parted(&self.own, |one| found.fit(one));
        // Where the entries were touched, a checkpoint from elsewhere that agrees with what was signed
        // for them is of this history all the same.
        let claimed = bad.as_ref().map(|_| Roots::of(&self.claimed, sizes)).unwrap_or_default();
        let (before, other) = parted(&self.elsewhere, |one| found.fit(one) || claimed.fit(one));
        let proven = size_of(last_good.as_ref());
        let mut findings = std::mem::take(&mut self.findings);
        findings.extend(self.forks());
        match bad {
            Some(bad) => findings.extend(self.differences(proven, &bad, &found, &claimed)),
            None if self.own.is_empty() => findings.push(Finding::NothingSigned),
            None => {
                if self.entries() > proven {
                    findings.push(Finding::Unproven { first: proven + 1 });
                }
                let hashes = self.found.iter().zip(&self.claimed).position(|(a, b)| a != b);
                findings.extend(hashes.map(|at| Finding::HashChanged(at as u64 + 1)));
                findings.append(&mut self.misnumbered);
            }
        }
        if let Some((first, last)) = self.blank
            && last > self.may_be_pruned
        {
            findings.push(Finding::Blank { first: first.max(self.may_be_pruned + 1), last });
        }
        let (have, agree) = (self.entries(), size_of(before.as_ref()));
        let other = other.map(|one| match one.size {
            signed if signed > have => Finding::Shorter { have, signed },
            size => Finding::OtherHistory { size, agree },
        });
        findings.extend(other.filter(|other| !findings.contains(other)));
        Report { entries: have, proven, pruned: self.pruned, checkpoint: last_good, findings }
    }

    /// Two checkpoints of one size that say different things.
    fn forks(&self) -> Option<Finding> {
        let mut roots: BTreeMap<u64, Digest> = BTreeMap::new();
        let mut all = self.own.iter().chain(&self.elsewhere);
        let fork = all.find(|one| *roots.entry(one.size).or_insert(one.root) != one.root)?;
        Some(Finding::Forked { size: fork.size })
    }

    /// What was done, when the entries up to `good` fit and those up to `bad` do not. Never nothing.
    fn differences(
        &mut self,
        good: u64,
        bad: &Checkpoint,
        found: &Roots,
        claimed: &Roots,
    ) -> Vec<Finding> {
        let anchor = size_of(self.own.iter().rfind(|one| claimed.fit(one)));
        if anchor >= bad.size {
            let length = usize::try_from(anchor).unwrap_or(usize::MAX);
            let signed = self.claimed.get(..length).unwrap_or(&self.claimed);
            let differences = compare(&self.found, signed).into_iter().map(Finding::Differs);
            // The entries may be those of the anchor, and `bad` of what was there before them.
            let (before, other) = parted(&self.own, |one| claimed.fit(one));
            let agree = size_of(before.as_ref());
            let other = other.map(|one| one.size).filter(|size| *size <= anchor);
            let other = other.map(|size| Finding::OtherHistory { size, agree });
            return differences.chain(other).collect();
        }
        if self.own.iter().any(|one| one.size > bad.size && found.fit(one)) {
            return vec![Finding::OtherHistory { size: bad.size, agree: good }];
        }
        let mut findings = std::mem::take(&mut self.misnumbered);
        let have = self.entries();
        if have < bad.size && findings.is_empty() {
            let cut = Difference::Truncated(have + 1..bad.size + 1);
            findings.push(Finding::Differs(cut));
        } else {
            findings.push(Finding::Altered { first: good + 1, last: bad.size });
        }
        findings
    }
}

/// Of checkpoints by their size: the last of those before any that does not fit, and that one.
fn parted(
    all: &[Checkpoint],
    fits: impl Fn(&Checkpoint) -> bool,
) -> (Option<Checkpoint>, Option<Checkpoint>) {
    let bad = all.iter().position(|one| !fits(one)).unwrap_or(all.len());
    (bad.checked_sub(1).and_then(|last| all.get(last)).cloned(), all.get(bad).cloned())
}

fn size_of(checkpoint: Option<&Checkpoint>) -> u64 {
    checkpoint.map_or(0, |one| one.size)
}

/// The roots over the first so many leaves, by how many.
#[derive(Default)]
struct Roots(BTreeMap<u64, Digest>);

impl Roots {
    /// Of these leaves, for each of these sizes that there are enough for.
    fn of(leaves: &[Digest], sizes: impl Iterator<Item = u64>) -> Self {
        let mut roots: BTreeMap<u64, Digest> = sizes.map(|size| (size, empty_root())).collect();
        let mut frontier = Frontier::default();
        for leaf in leaves {
            frontier.append(*leaf, |_, _| {});
            if let Some(root) = roots.get_mut(&frontier.size()) {
                *root = frontier.root();
            }
        }
        roots.retain(|size, _| *size <= frontier.size());
        Self(roots)
    }

    fn fit(&self, checkpoint: &Checkpoint) -> bool {
        self.0.get(&checkpoint.size) == Some(&checkpoint.root)
    }
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
