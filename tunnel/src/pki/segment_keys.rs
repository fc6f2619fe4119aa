//! Signatures of recordings: a device signs with the key of its certificate, and whoever has that
//! certificate and the deployment's CA can check.
//!
//! Dates are not judged: a recording is read years after, when its device's certificate has long
//! ended. That the device was enrolled then is what the CA's signature says.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use belay_proto::grant::VerifySignature;
use belay_proto::ids::DeviceId;
use belay_proto::recording::{Segment, SignedSegment, signed_bytes};
use rcgen::SigningKey as _;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use super::identity::{Identity, PeerCertificate};
use super::key::TlsKey;
use super::verify::issued_device;

/// A segment could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentKeyError {
    /// It does not encode.
    #[error("cannot encode a segment: {0}")]
    Encode(String),
    /// The key does not sign.
    #[error("cannot sign a segment")]
    Sign(#[source] rcgen::Error),
    /// Not a device's certificate of this deployment.
    #[error("the certificate is no device's of this deployment: {0}")]
    Foreign(String),
}

impl TlsKey {
    /// Signs a segment; returns it encoded, and the encoded [`SignedSegment`].
    ///
    /// # Errors
    /// [`SegmentKeyError`].
    pub fn sign_segment(&self, segment: &Segment) -> Result<(Vec<u8>, Vec<u8>), SegmentKeyError> {
        let encode = |error: minicbor::encode::Error<std::convert::Infallible>| {
            SegmentKeyError::Encode(error.to_string())
        };
        let encoded = minicbor::to_vec(segment).map_err(encode)?;
        let signature = self.pair().sign(&signed_bytes(&encoded)).map_err(SegmentKeyError::Sign)?;
        let signed = SignedSegment { segment: encoded.clone().into(), signature: signature.into() };
        Ok((encoded, minicbor::to_vec(&signed).map_err(encode)?))
    }
}

/// Whether this very key has signed.
impl VerifySignature for TlsKey {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.pair().public_key_raw());
        key.verify(message, signature).is_ok()
    }
}

/// The key in a device's certificate.
#[derive(Debug, Clone)]
pub struct DeviceKey {
    certificate: CertificateDer<'static>,
    device: DeviceId,
}

impl DeviceKey {
    /// Of a certificate whose chain TLS has proved.
    ///
    /// # Errors
    /// [`SegmentKeyError::Foreign`] when it is no device's.
    pub fn proved(certificate: CertificateDer<'static>) -> Result<Self, SegmentKeyError> {
        let foreign = |error: &dyn ToString| SegmentKeyError::Foreign(error.to_string());
        let peer = PeerCertificate::from_der(&certificate).map_err(|error| foreign(&error))?;
        match peer.identity {
            Identity::Device(device) => Ok(Self { certificate, device }),
            Identity::User { .. } | Identity::Relay { .. } => Err(foreign(&"it is not a device's")),
        }
    }

    /// Of a certificate that came from anywhere: the CA must have issued it to a device.
    ///
    /// # Errors
    /// [`SegmentKeyError::Foreign`].
    pub fn issued(
        certificate: CertificateDer<'static>,
        ca: &CertificateDer<'_>,
    ) -> Result<Self, SegmentKeyError> {
        let judged = issued_device(&certificate, ca);
        let device = judged.map_err(|error| SegmentKeyError::Foreign(error.to_string()))?;
        Ok(Self { certificate, device })
    }

    /// DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whose it is.
    pub const fn device(&self) -> DeviceId {
        self.device
    }
}

impl VerifySignature for DeviceKey {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        EndEntityCert::try_from(&self.certificate)
            .is_ok_and(|cert| cert.verify_signature(ECDSA_P256_SHA256, message, signature).is_ok())
    }
}
