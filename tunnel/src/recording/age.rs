//! A key wrapped for auditors: a file in the format of age (<https://age-encryption.org/v1>), which
//! every age tool opens.
//!
//! Only the writing of it, to X25519 recipients: that is all a device does, and it takes nothing but
//! the primitives that are linked already. Reading is the auditor's, with the `age` library itself.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::{self, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

const INTRO: &str = "age-encryption.org/v1\n";
const X25519_INFO: &[u8] = b"age-encryption.org/v1/X25519";

/// Longest text wrapped: one chunk of age's payload has 64 KiB, and a key has 32 bytes.
const PLAIN_MAX: usize = 1024;

/// An auditor's public key: `age1…`, as `age-keygen` prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// A text is no recipient.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecipientError {
    /// A secret was given where the public half belongs.
    #[error(
        "it is a secret key, which belongs on an auditor's machine alone; give its public key, age1…"
    )]
    Secret,
    /// Not an X25519 recipient.
    #[error("it is no age X25519 recipient: age1 and 58 characters")]
    Form,
    /// Mistyped.
    #[error("it is mistyped: its checksum is wrong")]
    Checksum,
    /// Nothing can be encrypted to it.
    #[error("nothing can be sealed to it")]
    Unusable,
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        if text.get(..15).is_some_and(|begin| begin.eq_ignore_ascii_case("AGE-SECRET-KEY-")) {
            return Err(RecipientError::Secret);
        }
        let data = text.strip_prefix("age1").ok_or(RecipientError::Form)?;
        let recipient = Self(bech32(data)?);
        // A point of small order agrees on nothing.
        wrap(&[], std::slice::from_ref(&recipient)).map_err(|_| RecipientError::Unusable)?;
        Ok(recipient)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin: String = self.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        write!(f, "Recipient({begin}…)")
    }
}

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The 32 bytes behind `age1` (Bech32, BIP 173).
fn bech32(data: &str) -> Result<[u8; 32], RecipientError> {
    let value =
        |byte: u8| CHARSET.iter().position(|one| *one == byte).and_then(|at| u8::try_from(at).ok());
    let values: Vec<u8> =
        data.bytes().map(value).collect::<Option<_>>().ok_or(RecipientError::Form)?;
    let Some((words, _checksum)) = values.split_last_chunk::<6>().filter(|_| values.len() == 58)
    else {
        return Err(RecipientError::Form);
    };
    // The prefix, expanded: the upper bits of each character, a zero, the lower ones.
    let prefix = b"age";
    let expanded = prefix.iter().map(|c| c >> 5).chain([0]).chain(prefix.iter().map(|c| c & 31));
    let mut checksum = 1_u32;
    for value in expanded.chain(values.iter().copied()) {
        let top = checksum >> 25;
        checksum = (checksum & 0x01ff_ffff) << 5 ^ u32::from(value);
        for (bit, generator) in
            [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3].iter().enumerate()
        {
            if top >> bit & 1 == 1 {
                checksum ^= generator;
            }
        }
    }
    if checksum != 1 {
        return Err(RecipientError::Checksum);
    }
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(32), 0_u32, 0);
    for word in words {
        bits = bits << 5 | u32::from(*word);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(bits >> count & 0xff));
            bits &= (1 << count) - 1;
        }
    }
    // Four bits are left over, and are zeros.
    if bits != 0 {
        return Err(RecipientError::Form);
    }
    bytes.try_into().map_err(|_| RecipientError::Form)
}

/// An age file with this in it, for these recipients.
///
/// # Errors
/// When a recipient is no point of the curve, or the plaintext is no key but something long.
pub(super) fn wrap(plain: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, Unspecified> {
    if plain.len() > PLAIN_MAX || recipients.is_empty() {
        return Err(Unspecified);
    }
    let mut file_key = Zeroizing::new([0_u8; 16]);
    rand::fill(file_key.as_mut())?;
    let mut file = String::from(INTRO);
    for recipient in recipients {
        stanza(&file_key, recipient, &mut file)?;
    }
    file.push_str("---");
    let key = derived(&[], file_key.as_ref(), b"header")?;
    let mac = hmac::sign(&hmac::Key::new(HMAC_SHA256, key.as_ref()), file.as_bytes());
    file.push(' ');
    STANDARD_NO_PAD.encode_string(mac.as_ref(), &mut file);
    file.push('\n');

    let mut nonce = [0; 16];
    rand::fill(&mut nonce)?;
    let key = derived(&nonce, file_key.as_ref(), b"payload")?;
    // The first chunk, and the last.
    let mut counter = [0; 12];
    if let Some(last) = counter.last_mut() {
        *last = 1;
    }
    let chunk = sealed(&key, counter, plain)?;
    let mut file = file.into_bytes();
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&chunk);
    Ok(file)
}

/// The file key for one recipient.
fn stanza(
    file_key: &[u8; 16],
    recipient: &Recipient,
    file: &mut String,
) -> Result<(), Unspecified> {
    let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
    let share = secret.compute_public_key()?;
    let salt = [share.as_ref(), &recipient.0].concat();
    let peer = UnparsedPublicKey::new(&X25519, recipient.0);
    let key = agree_ephemeral(secret, peer, Unspecified, |shared| {
        // RFC 7748 §6.1: nothing is agreed on with a point of small order.
        let nothing = shared.iter().fold(0, |any, byte| any | byte) == 0;
        if nothing { Err(Unspecified) } else { derived(&salt, shared, X25519_INFO) }
    })?;
    file.push_str("-> X25519 ");
    STANDARD_NO_PAD.encode_string(share.as_ref(), file);
    file.push('\n');
    STANDARD_NO_PAD.encode_string(sealed(&key, [0; 12], file_key)?, file);
    file.push('\n');
    Ok(())
}

/// HKDF with SHA-256 (RFC 5869).
fn derived(salt: &[u8], key: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut out = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt).extract(key).expand(&[info], HKDF_SHA256)?.fill(out.as_mut())?;
    Ok(out)
}

/// ChaCha20-Poly1305 (RFC 8439) with a key that is used once.
fn sealed(key: &[u8; 32], nonce: [u8; 12], plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?);
    let mut bytes = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    /// Of age's own documentation (`age-keygen`'s example).
    const AUDREY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn a_recipient_is_read_and_a_mistyped_one_is_told_what_it_is() {
        AUDREY.parse::<Recipient>().unwrap();
        let other = AUDREY.replace("ql3z", "ql3y");
        assert_eq!(other.parse::<Recipient>(), Err(RecipientError::Checksum));
        for text in
            ["", "age1", "age1ql3z", "ssh-ed25519 AAAA", &AUDREY[..61], &AUDREY.to_uppercase()]
        {
            assert_eq!(text.parse::<Recipient>(), Err(RecipientError::Form), "{text}");
        }
        let secret = "AGE-SECRET-KEY-1QQQQ";
        assert_eq!(secret.parse::<Recipient>(), Err(RecipientError::Secret));
        assert!(wrap(b"x", &[Recipient([0; 32])]).is_err(), "a point of small order");
    }

    #[test]
    fn a_file_names_each_recipient_and_shows_nothing() {
        let audrey: Recipient = AUDREY.parse().unwrap();
        let file = wrap(&[7; 32], &[audrey.clone(), audrey]).unwrap();
        let text = String::from_utf8_lossy(&file);
        assert!(text.starts_with("age-encryption.org/v1\n-> X25519 "));
        assert_eq!(text.matches("-> X25519 ").count(), 2);
        assert!(!file.windows(8).any(|window| window == [7; 8]));
    }
}
