//! What a certificate says about its holder: one URI in the subject alternative name.
//!
//! `belay://device/UUID`, `belay://user/UUID/NAME` or `belay://relay/NAME`.

use belay_proto::ids::{DeviceId, UserId};
use belay_proto::names::UserName;
use belay_proto::time::UnixTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const SCHEME: &str = "belay://";

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// An enrolled device.
    Device(DeviceId),
    /// A person.
    User {
        /// Id.
        id: UserId,
        /// Name when the certificate was issued.
        name: UserName,
    },
    /// The relay.
    Relay {
        /// The name devices and clients dial.
        name: String,
    },
}

impl Identity {
    /// The URI.
    pub fn to_uri(&self) -> String {
        match self {
            Self::Device(id) => format!("{SCHEME}device/{id}"),
            Self::User { id, name } => format!("{SCHEME}user/{id}/{name}"),
            Self::Relay { name } => format!("{SCHEME}relay/{name}"),
        }
    }

    /// Reads a URI strictly.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let (role, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        match role {
            "device" => rest.parse().ok().map(Self::Device),
            "user" => {
                let (id, name) = rest.split_once('/')?;
                Some(Self::User { id: id.parse().ok()?, name: name.parse().ok()? })
            }
            "relay" => Some(Self::Relay { name: rest.to_owned() }),
            _ => None,
        }
    }
}

/// A certificate whose chain and possession TLS has proved; its dates are still to be judged.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    /// Whom it names.
    pub identity: Identity,
    /// First second it is good for.
    pub not_before: UnixTime,
    /// Last second it is good for.
    pub not_after: UnixTime,
    /// SHA-256 over the SubjectPublicKeyInfo: the key's own name.
    pub key_digest: [u8; 32],
}

/// A certificate does not say who holds it.
#[derive(Debug, thiserror::Error)]
pub enum PeerCertificateError {
    /// Not X.509.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No such URI, or more than one.
    #[error("the certificate names no device, user or relay of Belay")]
    Nobody,
}

impl PeerCertificate {
    /// Reads a DER certificate that TLS has already verified.
    ///
    /// # Errors
    /// [`PeerCertificateError`].
    pub fn from_der(der: &[u8]) -> Result<Self, PeerCertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerCertificateError::Unreadable)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| PeerCertificateError::Unreadable)?
            .ok_or(PeerCertificateError::Nobody)?;
        let mut identity = None;
        for name in &names.value.general_names {
            if let GeneralName::URI(uri) = name {
                let read = Identity::from_uri(uri).ok_or(PeerCertificateError::Nobody)?;
                if identity.replace(read).is_some() {
                    return Err(PeerCertificateError::Nobody);
                }
            }
        }
        let time = |t: x509_parser::time::ASN1Time| UnixTime(t.timestamp().try_into().unwrap_or(0));
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
        Ok(Self {
            identity: identity.ok_or(PeerCertificateError::Nobody)?,
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            key_digest: digest.as_ref().try_into().map_err(|_| PeerCertificateError::Unreadable)?,
        })
    }
}
