//! Whose keys a bundle is checked with, and how: this crate has no cryptography.

use crate::audit::VerifierKey;
use crate::grant::VerifySignature;
use crate::ids::DeviceId;

/// How signatures are checked.
pub trait Keys {
    /// A device's key.
    type Device: VerifySignature;

    /// With a log's key.
    fn log(&self, key: &VerifierKey) -> impl VerifySignature;

    /// With a key that signs grants.
    fn grant(&self, key: &[u8; 32]) -> impl VerifySignature;

    /// With the key of a device's certificate, which this CA must have issued. Both are DER.
    ///
    /// # Errors
    /// One line that says why it is none.
    fn device(&self, certificate: &[u8], ca: &[u8]) -> Result<(DeviceId, Self::Device), String>;
}
