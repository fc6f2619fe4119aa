//! What failed, in words that say what to do.

use std::io;

use belay_proto::error_line::one_line;
use rustls::{AlertDescription, CertificateError};

use super::HttpsError;
use crate::address::RelayAddress;

pub(super) fn tls_failure(relay: &RelayAddress, error: &io::Error) -> HttpsError {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => judge(relay, error),
        None => {
            HttpsError::new("relay-lost", format!("{relay} broke off the TLS handshake: {error}"))
                .remedy("check that the address is a Belay relay's")
        }
    }
}

/// In TLS 1.3 a server judges our certificate after our side of the handshake is done (RFC 8446
/// §4.4.2.4), so its alert arrives with the first answer.
pub(super) fn refused_in_handshake(relay: &RelayAddress, error: &hyper::Error) -> HttpsError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(rustls) = error.downcast_ref::<rustls::Error>() {
            return judge(relay, rustls);
        }
        if let Some(rustls) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return judge(relay, rustls);
        }
        source = error.source();
    }
    HttpsError::new("relay-lost", format!("{relay} broke off: {}", one_line(error)))
        .remedy("try again")
}

fn judge(relay: &RelayAddress, error: &rustls::Error) -> HttpsError {
    if let rustls::Error::InvalidCertificate(reason) = error {
        return judge_certificate(relay, reason);
    }
    if let rustls::Error::AlertReceived(alert) = error {
        let ours = matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::DecryptError
        );
        if ours {
            return HttpsError::new(
                "foreign-certificate",
                format!("{relay} does not accept your certificate ({alert:?})"),
            )
            .remedy("run: belay login");
        }
    }
    HttpsError::new("tls", format!("no TLS connection to {relay}: {error}"))
        .remedy("check that the address is a Belay relay's")
}

fn judge_certificate(relay: &RelayAddress, reason: &CertificateError) -> HttpsError {
    let foreign = |cause: String| HttpsError::new("foreign-certificate", cause);
    if matches!(reason, CertificateError::UnknownIssuer) {
        return foreign(format!(
            "{relay} does not show a certificate of the CA your login, code or token names"
        ))
        .remedy("somebody may be in between, or the relay was made anew: ask for a new one");
    }
    if matches!(
        reason,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        return foreign(format!("the certificate of {relay} is for another name"))
            .remedy("use the name the relay was set up with");
    }
    if matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        return HttpsError::new(
            "certificate-expired",
            format!("the certificate of {relay} expired"),
        )
        .remedy("check this machine's clock, then tell the relay's operator");
    }
    foreign(format!("the certificate of {relay} is not acceptable: {reason:?}"))
        .remedy("check that the address is a Belay relay's")
}
