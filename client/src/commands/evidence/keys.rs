//! Checking signatures, as [`belay_proto::evidence::examine`] asks for it.

use belay_proto::audit::VerifierKey;
use belay_proto::error_line::one_line;
use belay_proto::evidence::Keys;
use belay_proto::grant::VerifySignature;
use belay_proto::ids::DeviceId;
use belay_tunnel::pki::{DeviceKey, GrantVerifier, NoteVerifier};
use rustls_pki_types::CertificateDer;

/// The real thing.
pub(super) struct RealKeys;

impl Keys for RealKeys {
    type Device = DeviceKey;

    fn log(&self, key: &VerifierKey) -> impl VerifySignature {
        NoteVerifier::from(key)
    }

    fn grant(&self, key: &[u8; 32]) -> impl VerifySignature {
        // It has the length that is asked for.
        GrantVerifier::new([key]).unwrap_or_default()
    }

    fn device(&self, certificate: &[u8], ca: &[u8]) -> Result<(DeviceId, DeviceKey), String> {
        let ca = CertificateDer::from(ca.to_vec());
        let key = DeviceKey::issued(CertificateDer::from(certificate.to_vec()), &ca);
        key.map(|key| (key.device(), key)).map_err(|error| one_line(&error))
    }
}
