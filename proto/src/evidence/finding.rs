//! What can be wrong with a bundle, in words for a person.

use super::{BadManifest, Exchanged};
use crate::audit::BadCheckpoint;

/// Something is not as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Another key than the one that is expected.
    #[error("the key was replaced: the bundle is signed by {found}, not by {expected}")]
    OtherKey {
        /// Expected.
        expected: String,
        /// In the bundle.
        found: String,
    },
    /// No key in it.
    #[error("the log's key in the bundle cannot be read")]
    NoKey,
    /// The list of its parts.
    #[error("the list of the bundle's parts cannot be taken: {0}")]
    Manifest(BadManifest),
    /// The checkpoint.
    #[error("the checkpoint cannot be taken: {0}")]
    Checkpoint(BadCheckpoint),
    /// It is not the manifest's.
    #[error("the checkpoint is not the one that the list of parts names")]
    OtherCheckpoint,
    /// A checkpoint of the same size says something else.
    #[error("the log was forked: its key signed two different logs of {size} entries")]
    Forked {
        /// Of this size.
        size: u64,
    },
    /// A checkpoint from elsewhere is of another history.
    #[error(
        "the log was forked or rewritten: a checkpoint of {size} entries from elsewhere is of another \
         history"
    )]
    OtherHistory {
        /// Of this size.
        size: u64,
    },
    /// A checkpoint from elsewhere cannot be taken.
    #[error("a checkpoint from elsewhere cannot be taken: {0}")]
    Elsewhere(BadCheckpoint),
    /// The list of entries is not the one that was signed.
    #[error("the list of the session's entries is not the one that was signed")]
    List,
    /// An entry is not as it was signed.
    #[error("entry {0} was changed")]
    Changed(u64),
    /// An entry is gone.
    #[error("entry {0} was removed")]
    Removed(u64),
    /// An entry that the manifest does not list.
    #[error("an entry that is none of the session's was put in {}", behind(*after))]
    Inserted {
        /// Behind which; 0 at the beginning.
        after: u64,
    },
    /// An entry stands elsewhere.
    #[error("entry {entry} was moved: it stands {}", behind(*after))]
    Moved {
        /// Which.
        entry: u64,
        /// Behind which; 0 at the beginning.
        after: u64,
    },
    /// An entry stands there twice.
    #[error("entry {0} stands there twice")]
    Twice(u64),
    /// The proof does not lead to the checkpoint.
    #[error("entry {0} is not proven: the log of the checkpoint does not have it so")]
    NotInLog(u64),
    /// It names another session, or cannot be read.
    #[error("entry {0} is no entry of this session")]
    Foreign(u64),
    /// The grants are not those that were signed.
    #[error("the grants are not those that were signed: one was changed, removed, put in or moved")]
    Grants,
    /// A grant is not in the log.
    #[error("grant {0} is not in the log: it was changed, or never issued")]
    Grant(u64),
    /// A grant cannot be taken.
    #[error("grant {number} cannot be taken: {why}")]
    BadGrant {
        /// Which, from 1.
        number: u64,
        /// Why.
        why: String,
    },
    /// A grant of the log is not there.
    #[error("the grant that entry {0} names is not there")]
    GrantGone(u64),
    /// A grant of something else than the log says.
    #[error("grant {0} names another session, person, device or login than the log")]
    OtherGrant(u64),
    /// What the relay said of the session.
    #[error("the facts of the session were changed")]
    Facts,
    /// The CA.
    #[error("the deployment CA's certificate is not the one that was signed")]
    Ca,
    /// The CA is not the one expected.
    #[error("the deployment CA was replaced: its certificate is not the one known here")]
    OtherCa,
    /// There is none where one must be.
    #[error("the recording was removed")]
    RecordingGone,
    /// There is one where none may be.
    #[error("a recording was put in that the relay did not give")]
    RecordingPutIn,
    /// It is not what its device signed.
    #[error("the recording: {0}")]
    Recording(String),
    /// It is not the one in the log or the manifest.
    #[error(transparent)]
    Exchanged(#[from] Exchanged),
    /// It ended, is not there, and was not deleted.
    #[error(
        "the recording is missing: by the audit log it ended with segment {0}, and no tombstone says that \
         it was deleted"
    )]
    RecordingMissing(u64),
    /// It was begun, is not there, and was not deleted.
    #[error(
        "the recording is missing: by entry {0} it was begun, there is nothing of it, and no tombstone says \
         that it was deleted"
    )]
    RecordingLost(u64),
    /// A tombstone in words that are none.
    #[error("entry {0} says in words that cannot be read that the recording was deleted")]
    Tombstone(u64),
    /// What was deleted is not what was recorded.
    #[error("what was deleted, by entry {entry}, is not what had been recorded: {why}")]
    Buried {
        /// The tombstone.
        entry: u64,
        /// How that is known.
        why: Exchanged,
    },
    /// Of another device than the session.
    #[error("the recording is of another device than the session")]
    OtherDevice,
}

fn behind(after: u64) -> String {
    match after {
        0 => "at the beginning".to_owned(),
        after => format!("behind entry {after}"),
    }
}

const fn obliged(required: bool) -> &'static str {
    match required {
        true => "by its grant the session had to be recorded wholly, or to end",
        false => "by its grant the device was to record it as well as it could",
    }
}

/// Nothing wrong, and worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// A checkpoint from elsewhere that the bundle has no proof for.
    #[error(
        "a checkpoint of {0} entries from elsewhere cannot be compared from the bundle alone; give an \
         export of the log with --log"
    )]
    NotCompared(u64),
    /// Opened by a relay that kept no grants.
    #[error(
        "there is no grant: the session is from before relays kept them, or its entries have lost their \
         text by the rule audit_keep_days"
    )]
    NoGrant,
    /// A recording was begun.
    #[error("a recording was begun, and the relay had none when the bundle was made")]
    NoRecording,
    /// None was begun, and one was to be made.
    #[error(
        "there is no recording, and none was begun by the log, though {}; its device may hold it back, \
         or have had no room: ask it, or look at its journal",
        obliged(*required)
    )]
    NothingRecorded {
        /// Wholly.
        required: bool,
    },
    /// It was deleted, and its device had more of it.
    #[error("its device brought more of the recording after it was deleted, which was not kept")]
    Late,
    /// It has no end.
    #[error(
        "the recording has no end: the session went on, or its device was away, when the bundle was made"
    )]
    NoEnd,
    /// Its recorder died.
    #[error("the recording is cut: whatever recorded it ended before the session did")]
    Cut,
    /// The device could not keep something.
    #[error("the device could not keep segments {from} to {to}")]
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The session has no end.
    #[error("the session had not ended when the bundle was made")]
    Open,
}
