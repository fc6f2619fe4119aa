//! Evidence of one session: what the audit log says of it, held against what its device recorded.
//!
//! Its law: nothing is taken for being said. An entry counts when a proof leads from it to a signed
//! checkpoint, a grant when its digest stands in such an entry, a recording when its device signed it
//! and its end is the one that the log has. What it is not: it reads no file and asks no relay.
//!
//! | room | what it is |
//! |---|---|
//! | `ended` | what the log says of a recording's end, and whether a recording is that one |
//! | `deleted` | what the log says of a recording that was deleted |
//! | `granted` | what the log says of a grant, and whether a grant is that one |
//! | `keys` | how signatures are checked, which is the caller's |
//! | `manifest` | what the relay signs of a bundle: which parts it has |
//! | `bundle` | the parts, as lines of a file |
//! | `finding` `examine` `recording` | whether all of them hold, and what is wrong where they do not |

mod bundle;
mod deleted;
mod ended;
mod examine;
mod finding;
mod granted;
mod keys;
mod manifest;
mod recording;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_deleted;

pub use bundle::{Before, Bundle, MAX_LINE, MAX_RECORDING, NoBundle, Part, base64, from_base64};
pub use deleted::{Deleted, Tombstone};
pub use ended::{Ended, Exchanged, check_end, from_hex};
pub use examine::{Anchors, Report, examine};
pub use finding::{Finding, Remark};
pub use granted::{Issued, read_grant};
pub use keys::Keys;
pub use manifest::{BadManifest, Listed, Manifest, Recorded, sha256};
pub use recording::Recording;

/// Most entries of one session that are taken: a client that lost its line every two seconds for half
/// a day has as many.
pub const MAX_ENTRIES: usize = 65_536;
