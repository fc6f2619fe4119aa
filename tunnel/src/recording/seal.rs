//! Sealing a recording: what is in its segments is for whoever has an auditor's key.
//!
//! A recording has a random key of its own. The key is wrapped once for all auditors (an age file),
//! and each payload is encrypted with it by ChaCha20-Poly1305: the nonce is the segment's number, and
//! session, number and track are bound to it. So a sealed segment costs 16 bytes, and one that was
//! put into another's place does not open.
//!
//! Its law: whoever records has no key left when the recording is over, and never has an auditor's.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use belay_proto::ids::SessionId;
use belay_proto::recording::{RECIPIENTS_MAX, SEALED_DOMAIN, Segment};
use zeroize::Zeroizing;

use super::age::{Recipient, RecipientError, wrap};

/// Bytes of a recording's key.
pub const KEY_BYTES: usize = 32;

/// A recording cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A recipient is none.
    #[error("recipient {0}…")]
    Recipient(String, #[source] RecipientError),
    /// There is nobody to seal it to, or there are too many.
    #[error("a recording is sealed to 1 to {RECIPIENTS_MAX} recipients, not {0}")]
    Count(usize),
    /// The library refused.
    #[error("cannot encrypt")]
    Encrypt,
}

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self::Encrypt
    }
}

/// Reads recipients, as a grant names them.
///
/// # Errors
/// [`SealError`]: which one is none, or how many there are.
pub fn recipients<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Recipient>, SealError> {
    if texts.is_empty() || texts.len() > RECIPIENTS_MAX {
        return Err(SealError::Count(texts.len()));
    }
    let read = |text: &T| {
        let text = text.as_ref();
        // Enough to find it by, and nothing of a secret that was put there by mistake.
        let named = || belay_proto::error_line::printable(text).chars().take(12).collect();
        text.parse().map_err(|error| SealError::Recipient(named(), error))
    };
    texts.iter().map(read).collect()
}

/// Seals one recording.
pub struct Sealer {
    session: SessionId,
    key: LessSafeKey,
    wrapped: Vec<u8>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.session)
    }
}

impl Sealer {
    /// Of a session, for these recipients.
    ///
    /// # Errors
    /// [`SealError::Encrypt`].
    pub fn new(session: SessionId, recipients: &[Recipient]) -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut())?;
        let wrapped = wrap(key.as_ref(), recipients)?;
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref())?);
        Ok(Self { session, key, wrapped })
    }

    /// The key, wrapped: [`Segment::key`].
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// Encrypts a payload where it is. A number is used once.
    ///
    /// # Errors
    /// [`SealError::Encrypt`].
    pub fn seal(&self, number: u64, track: u32, payload: &mut Vec<u8>) -> Result<(), SealError> {
        let about = Aad::from(about(self.session, number, track));
        Ok(self.key.seal_in_place_append_tag(nonce(number), about, payload)?)
    }
}

/// Opens one recording.
pub struct Opener {
    session: SessionId,
    key: LessSafeKey,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({})", self.session)
    }
}

impl Opener {
    /// With the session's key, unwrapped; `None` when it is no key.
    pub fn new(session: SessionId, key: &[u8]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        Some(Self { session, key })
    }

    /// A segment's payload as it was before it was sealed; `None` when it is another's, or changed.
    pub fn open(&self, segment: &Segment) -> Option<Vec<u8>> {
        let about = Aad::from(about(self.session, segment.number, segment.track));
        let mut payload = segment.payload.to_vec();
        let length = self.key.open_in_place(nonce(segment.number), about, &mut payload).ok()?.len();
        payload.truncate(length);
        Some(payload)
    }
}

/// Four zeros and the segment's number. The key is one recording's, and no number comes twice.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(last) = nonce.last_chunk_mut() {
        *last = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

fn about(session: SessionId, number: u64, track: u32) -> Vec<u8> {
    let (number, track) = (number.to_be_bytes(), track.to_be_bytes());
    [SEALED_DOMAIN, session.as_bytes().as_slice(), &number, &track].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use belay_proto::ids::DeviceId;
    use belay_proto::recording::VERSION;
    use uuid::Uuid;

    use super::*;

    fn session(n: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(n))
    }

    fn sealer(key: u8) -> (Sealer, Opener) {
        let key = [key; KEY_BYTES];
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap();
        let sealer =
            Sealer { session: session(1), key: LessSafeKey::new(unbound), wrapped: Vec::new() };
        (sealer, Opener::new(session(1), &key).unwrap())
    }

    fn segment(sealer: &Sealer, number: u64, text: &[u8]) -> Segment {
        let mut payload = text.to_vec();
        sealer.seal(number, 3, &mut payload).unwrap();
        assert_eq!(payload.len(), text.len() + 16);
        Segment {
            version: VERSION,
            session: session(1),
            device: DeviceId::from_uuid(Uuid::from_u128(9)),
            number,
            before: vec![0; 32].into(),
            track: 3,
            first_ms: 0,
            last_ms: 0,
            compressed: None,
            sealed: Some(true),
            end: None,
            payload: payload.into(),
            key: None,
        }
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_only() {
        let (sealer, opener) = sealer(7);
        let sealed = segment(&sealer, 5, b"secret");
        assert_eq!(opener.open(&sealed).unwrap(), b"secret");
        assert!(!sealed.payload.windows(6).any(|window| window == b"secret"));
        let (_, other_key) = self::sealer(8);
        assert!(other_key.open(&sealed).is_none());
        let elsewhere = Opener::new(session(2), &[7; KEY_BYTES]).unwrap();
        assert!(elsewhere.open(&sealed).is_none(), "in another session");
        for moved in
            [Segment { number: 6, ..sealed.clone() }, Segment { track: 4, ..sealed.clone() }]
        {
            assert!(opener.open(&moved).is_none(), "{moved:?}");
        }
        for at in 0..sealed.payload.len() {
            let mut changed = sealed.clone();
            changed.payload[at] ^= 1;
            assert!(opener.open(&changed).is_none(), "byte {at}");
        }
        let cut = Segment { payload: sealed.payload[..10].to_vec().into(), ..sealed };
        assert!(opener.open(&cut).is_none());
    }

    #[test]
    fn nobody_and_a_crowd_are_no_recipients() {
        assert!(matches!(recipients::<&str>(&[]), Err(SealError::Count(0))));
        let audrey = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert!(matches!(recipients(&[audrey; 17]), Err(SealError::Count(17))));
        let read = recipients(&[audrey, audrey]).unwrap();
        let sealer = Sealer::new(session(1), &read).unwrap();
        assert!(sealer.wrapped().len() < belay_proto::recording::KEY_MAX / 4);
        let error = recipients(&["age1nonsense"]).unwrap_err();
        assert!(error.to_string().contains("age1nonsense"), "{error}");
        let error = recipients(&["AGE-SECRET-KEY-1SECRET"]).unwrap_err();
        assert!(!error.to_string().contains("1SECRET"), "{error}");
    }
}
