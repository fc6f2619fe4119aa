//! rustls configurations: TLS 1.3 only, X25519MLKEM768 first, no session tickets.
//!
//! Tickets would be per-connection memory on a relay with many thousand idle lines, and a resumed
//! session skips the certificate check that status and expiry hang on.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::pki::{ClientVerifier, TlsKey};

/// A configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[from] rustls::Error);

/// Makes aws-lc-rs the process's cryptography. The first line of every `main`; once is enough.
pub fn install_provider() {
    // An error only says that one is installed already.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::trace!("a cryptography provider is already installed");
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What the relay answers with: its certificate and the CA behind it, so that a first contact can
/// find the CA by its fingerprint.
///
/// # Errors
/// When key and certificate do not belong together.
pub fn relay_key(
    leaf: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    key: &TlsKey,
) -> Result<CertifiedKey, TlsError> {
    let signing = provider().key_provider.load_private_key(key.to_der())?;
    let certified = CertifiedKey::new(vec![leaf, ca], signing);
    certified.keys_match()?;
    Ok(certified)
}

/// The relay's side. `resolver` may change its certificate while the relay runs.
///
/// # Errors
/// [`TlsError`].
pub fn server(
    clients: Arc<ClientVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A dialler's side towards a server that is none of ours: its certificate must be of one of these
/// authorities and name the host (RFC 9525).
///
/// # Errors
/// When not one of the authorities can be used.
pub fn foreign(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // Systems' lists have some that no verifier reads.
    roots.add_parsable_certificates(authorities);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A dialler's side, with its own certificate when it has one.
///
/// # Errors
/// When key and certificate do not belong together.
pub fn client(
    relay: Arc<dyn ServerCertVerifier>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(relay);
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}
