//! Certificates: who is who.
//!
//! One private CA per deployment. What a certificate says stands in one URI in its subject
//! alternative name (`identity`), so a device's certificate can never pass for a person's. Dates
//! are judged by the relay at admission, where the refusal can be explained and recorded; the
//! verifiers here judge everything else (`verify`).

mod authority;
mod grant_keys;
mod identity;
mod key;
mod note_keys;
mod segment_keys;
mod verify;
mod witness;

pub use authority::{AuthorityError, CertificateAuthority, requested_key_digest};
pub use grant_keys::{GrantKeyError, GrantSigner, GrantVerifier};
pub use identity::{Identity, PeerCertificate, PeerCertificateError};
pub use key::{KeyError, TlsKey, certificate_to_pem};
pub use note_keys::{NoteKeyError, NoteSigner, NoteVerifier};
pub use segment_keys::{DeviceKey, SegmentKeyError};
pub use verify::{ClientVerifier, FirstContactVerifier, RelayVerifier};
pub use witness::Witness;
