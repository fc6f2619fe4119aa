//! Algorithms and sizes of the SSH server.
//!
//! A short list of what is strong today, the post-quantum exchange first. No
//! group exchange, no RSA, no SHA-1, no CBC, no MAC that is not
//! encrypt-then-MAC, no compression.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::{Algorithm, EcdsaCurve};
use russh::keys::{Certificate, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::Rekey;
use crate::worker::limits::{AUTH_ATTEMPTS_MAX, PACKET_MAX, SSH_EVENTS, WINDOW};

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// AES-GCM first: every processor in the field with AES instructions is two to
/// three times as fast with it. ChaCha20 is for those without; the client's
/// order decides (RFC 4253, section 7.1). AES-CTR, always with a MAC over the
/// ciphertext, is for clients that know no AEAD, such as paramiko 2.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// The key types a client may authenticate with (`server-sig-algs`) and our
/// host key's.
const KEYS: &[Algorithm] = &[Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }];

pub(super) fn server(
    host_key: PrivateKey,
    certificate: Option<Certificate>,
    rekey: Rekey,
) -> Arc<Config> {
    Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-Belay_",
            env!("CARGO_PKG_VERSION")
        ))),
        // The second authenticates nobody: see `Handler::auth_keyboard_interactive`.
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        // There is no password to guess, and the relay has counted the attempts:
        // a delay would only cost every client's probe with `none`.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: AUTH_ATTEMPTS_MAX,
        keys: vec![host_key],
        certificates: certificate.into_iter().collect(),
        window_size: WINDOW,
        maximum_packet_size: PACKET_MAX,
        // Channels read through the handler, never through this buffer.
        channel_buffer_size: 1,
        event_buffer_size: SSH_EVENTS,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        limits: russh::Limits::new(rekey.bytes, rekey.bytes, rekey.time),
        // A quiet shell is not a dead one; the line below knows which it is.
        inactivity_timeout: None,
        keepalive_interval: None,
        keepalive_max: 0,
        nodelay: false,
    })
}
