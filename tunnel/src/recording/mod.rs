//! What stands in a recording's segments: text made small, and made text again.
//!
//! `pack` is compression, `seal` and `age` are encryption to auditors. Signatures are in [`crate::pki`], the chain is in
//! [`belay_proto::recording`].

mod age;
mod pack;
mod seal;

pub use age::{Recipient, RecipientError};
pub use pack::{Packer, UnpackError, unpack, unpack_payload};
pub use seal::{KEY_BYTES, Opener, SealError, Sealer, recipients};
