//! The strings that bring a stranger in: an enrolment token for a device, a login code for a
//! person. Each holds a secret, the relay's address and the fingerprint of its CA, so the very
//! first contact is authenticated; and check digits, so a mistyped one is told from a wrong one
//! without asking anybody.
//!
//! Shape: `belay-token-` or `belay-code-`, then unpadded base64url (RFC 4648 §5) of a CBOR map and
//! the first four bytes of SHA-256 over the prefix and that map.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::wire::frame::decode_payload;

/// Longest string that is looked at, in bytes. A relay's address takes at most 259 of them.
pub const MAX_TEXT: usize = 1024;

const CHECK_BYTES: usize = 4;

/// 160 random bits: not to be guessed, short enough to paste.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Secret(#[n(0)] ByteArray<20>);

impl Secret {
    /// Wraps random bytes the caller made.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes.into())
    }

    /// What the relay stores and compares: SHA-256 of the secret. The secret has full entropy, so
    /// no slow hash is needed.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_slice()).into()
    }

    /// Lower-case hexadecimal, for the enrolment and login requests.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads [`Secret::to_hex`] back.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 40 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut secret = [0; 20];
        for (slot, pair) in secret.iter_mut().zip(bytes.chunks_exact(2)) {
            *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self::from_bytes(secret))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// SHA-256 over the DER of the deployment CA's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(#[n(0)] ByteArray<32>);

impl Fingerprint {
    /// Of a CA certificate in DER.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(<[u8; 32]>::from(Sha256::digest(der)).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What such a string says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invitation {
    /// `relay.example.com:443`: the name in the relay's certificate, and its port.
    #[n(0)]
    pub relay: String,
    /// The only CA to believe.
    #[n(1)]
    pub ca: Fingerprint,
    /// Proves that the holder was invited.
    #[n(2)]
    pub secret: Secret,
}

/// Whom an invitation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `belay-agent enroll`
    Enrol,
    /// `belay login`
    Login,
}

impl Purpose {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Enrol => "belay-token-",
            Self::Login => "belay-code-",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Enrol => "an enrolment token",
            Self::Login => "a login code",
        }
    }
}

/// An invitation cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It is something else altogether.
    #[error("this is not {wanted}: one begins with \"{prefix}\"; paste the whole string")]
    NotOne {
        /// What was wanted.
        wanted: &'static str,
        /// How one begins.
        prefix: &'static str,
    },
    /// It is the other kind.
    #[error("this is {got}; {wanted} is needed here")]
    OtherPurpose {
        /// What it is.
        got: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// The check digits do not fit.
    #[error("this {0} is mistyped or cut short: its check digits do not fit; paste it again whole")]
    Mistyped(&'static str),
    /// Made by a newer relay.
    #[error("this {0} is of a newer kind; upgrade this program")]
    Newer(&'static str),
}

impl Invitation {
    /// The string to hand over.
    ///
    /// # Errors
    /// When the relay's address is too long to fit.
    pub fn to_text(&self, purpose: Purpose) -> Result<String, InvitationError> {
        let mut body =
            minicbor::to_vec(self).map_err(|_| InvitationError::Newer(purpose.noun()))?;
        body.extend(check_digits(purpose, &body));
        let text = format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(body));
        if text.len() > MAX_TEXT {
            return Err(InvitationError::Newer(purpose.noun()));
        }
        Ok(text)
    }

    /// Reads one. White space around and inside it (a wrapped mail) is ignored.
    ///
    /// # Errors
    /// [`InvitationError`] says what to do.
    pub fn from_text(text: &str, purpose: Purpose) -> Result<Self, InvitationError> {
        let not_one = InvitationError::NotOne { wanted: purpose.noun(), prefix: purpose.prefix() };
        if text.len() > 2 * MAX_TEXT {
            return Err(not_one);
        }
        let text: String = text.split_whitespace().collect();
        if text.len() > MAX_TEXT {
            return Err(not_one);
        }
        let Some(body) = text.strip_prefix(purpose.prefix()) else {
            let other = match purpose {
                Purpose::Enrol => Purpose::Login,
                Purpose::Login => Purpose::Enrol,
            };
            return Err(if text.starts_with(other.prefix()) {
                InvitationError::OtherPurpose { got: other.noun(), wanted: purpose.noun() }
            } else {
                not_one
            });
        };
        let mistyped = InvitationError::Mistyped(match purpose {
            Purpose::Enrol => "token",
            Purpose::Login => "code",
        });
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(body) else { return Err(mistyped) };
        let Some((body, check)) = bytes.split_last_chunk::<CHECK_BYTES>() else {
            return Err(mistyped);
        };
        if check_digits(purpose, body) != *check {
            return Err(mistyped);
        }
        decode_payload(body).map_err(|_| InvitationError::Newer(purpose.noun()))
    }
}

fn check_digits(purpose: Purpose, body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(purpose.prefix()).chain_update(body).finalize();
    let mut digits = [0; CHECK_BYTES];
    for (slot, byte) in digits.iter_mut().zip(digest) {
        *slot = byte;
    }
    digits
}

impl FromStr for Secret {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::from_hex(text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            relay: "relay.example.com:443".into(),
            ca: Fingerprint::of_certificate(b"ca"),
            secret: Secret::from_bytes([7; 20]),
        }
    }

    #[test]
    fn an_invitation_reads_back_even_wrapped_by_a_mail_program() {
        let text = invitation().to_text(Purpose::Enrol).unwrap();
        assert_eq!(Invitation::from_text(&text, Purpose::Enrol), Ok(invitation()));
        let (a, b) = text.split_at(40);
        let wrapped = format!("  {a}\r\n {b}\n");
        assert_eq!(Invitation::from_text(&wrapped, Purpose::Enrol), Ok(invitation()));
    }

    #[test]
    fn every_single_mistyped_character_is_noticed() {
        let text = invitation().to_text(Purpose::Enrol).unwrap();
        for at in Purpose::Enrol.prefix().len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            let slot = bytes.get_mut(at).unwrap();
            *slot = if *slot == b'A' { b'B' } else { b'A' };
            let typed = String::from_utf8(bytes).unwrap();
            let read = Invitation::from_text(&typed, Purpose::Enrol);
            assert!(matches!(read, Err(InvitationError::Mistyped(_))), "{at}: {read:?}");
        }
        let cut = text.get(..text.len() - 3).unwrap();
        assert!(matches!(
            Invitation::from_text(cut, Purpose::Enrol),
            Err(InvitationError::Mistyped(_))
        ));
    }

    #[test]
    fn a_code_is_not_a_token() {
        let code = invitation().to_text(Purpose::Login).unwrap();
        assert!(matches!(
            Invitation::from_text(&code, Purpose::Enrol),
            Err(InvitationError::OtherPurpose { .. })
        ));
        assert!(matches!(
            Invitation::from_text("hello", Purpose::Login),
            Err(InvitationError::NotOne { .. })
        ));
    }

    #[test]
    fn a_secret_never_shows_itself() {
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 20])), "Secret(***)");
        assert!(!format!("{:?}", invitation()).contains("0707"));
        let hex = Secret::from_bytes([0xab; 20]).to_hex();
        assert_eq!(Secret::from_hex(&hex), Some(Secret::from_bytes([0xab; 20])));
        assert_eq!(Secret::from_hex("zz"), None);
    }
}
