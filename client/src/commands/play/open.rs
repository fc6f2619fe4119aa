//! Opening a sealed recording with an auditor's key.
//!
//! The recording's key is in it, wrapped by age for its auditors; whose secret key unwraps it reads all
//! of its segments. Nothing of the secret leaves this machine.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use age::{DecryptError, Decryptor};
use belay_proto::ids::SessionId;
use belay_proto::recording::Segment;
use belay_tunnel::recording::{KEY_BYTES, Opener};
use zeroize::Zeroizing;

use super::proof::{Proven, broken};
use crate::failure::Failure;

/// Longest identity file: a few hundred keys.
const IDENTITY_MAX: u64 = 64 * 1024;

/// A device writes one key many times. One that writes others is not followed for ever.
const KEYS_TRIED: usize = 4;

/// Whether anything in it is sealed.
pub(in crate::commands) fn is_sealed(proven: &Proven) -> bool {
    proven.segments.iter().any(|segment| segment.sealed == Some(true))
}

/// Nobody gave a key.
pub(super) fn locked() -> Failure {
    Failure::new("recording-sealed", "the recording is sealed to auditors' keys")
        .remedy("give the file of your secret key: --identity FILE; --json and --save work without")
}

/// An auditor's secret keys, from an age identity file.
pub(in crate::commands) struct Keys {
    file: PathBuf,
    identities: Vec<Identity>,
}

impl Keys {
    /// Reads them.
    pub(in crate::commands) fn read(file: &Path) -> Result<Self, Failure> {
        Ok(Self { file: file.to_owned(), identities: identities(file)? })
    }

    /// What opens a session's recording, when its wrapped key is for one of these.
    fn opener(&self, session: SessionId, wrapped: &[u8]) -> Result<Option<Opener>, Failure> {
        let key = unwrapped(wrapped, &self.identities)?;
        Ok(key.and_then(|key| Opener::new(session, key.as_ref())))
    }

    /// What opens a recording; `None` when it is sealed to others.
    pub(in crate::commands) fn opener_of(
        &self,
        proven: &Proven,
    ) -> Result<Option<Opener>, Failure> {
        let mut tried: Vec<&[u8]> = Vec::new();
        for key in proven.segments.iter().filter_map(|segment| segment.key.as_deref()) {
            if tried.contains(&key.as_slice()) {
                continue;
            }
            if tried.len() >= KEYS_TRIED {
                break;
            }
            tried.push(key);
            if let Some(opener) = self.opener(proven.session, key)? {
                return Ok(Some(opener));
            }
        }
        if tried.is_empty() {
            return Err(broken("it is sealed, and no segment with its key is left"));
        }
        Ok(None)
    }

    /// The secret keys themselves, in an order that is not the file's: what else is to be for them alone is
    /// sealed with what comes of these.
    pub(in crate::commands) fn secret(&self) -> Zeroizing<String> {
        let mut texts: Vec<_> = self.identities.iter().map(Identity::to_string).collect();
        texts.sort_by(|one, other| one.expose_secret().cmp(other.expose_secret()));
        let mut all = Zeroizing::new(String::new());
        for text in texts {
            all.push_str(text.expose_secret());
            all.push('\n');
        }
        all
    }

    fn none_fits(&self) -> Failure {
        Failure::new(
            "recording-sealed",
            format!("the recording is not sealed to a key in {}", self.file.display()),
        )
        .remedy(
            "it was sealed to the recording_recipients of its day; ask whoever has one of those",
        )
    }
}

/// A sealed recording that is opened while it is read, from its first segment on.
pub(in crate::commands) struct Lock {
    session: SessionId,
    keys: Option<Keys>,
    opener: Option<Opener>,
    tried: Vec<Vec<u8>>,
}

impl Lock {
    /// Of a session's recording, with these keys.
    pub(in crate::commands) const fn new(session: SessionId, keys: Option<Keys>) -> Self {
        Self { session, keys, opener: None, tried: Vec::new() }
    }

    /// What opens the recording, once the key was in a segment up to this one.
    pub(in crate::commands) fn opener(
        &mut self,
        segment: &Segment,
    ) -> Result<Option<&Opener>, Failure> {
        if let (None, Some(keys), Some(wrapped)) = (&self.opener, &self.keys, &segment.key) {
            let wrapped = wrapped.to_vec();
            if !self.tried.contains(&wrapped) && self.tried.len() < KEYS_TRIED {
                self.opener = keys.opener(self.session, &wrapped)?;
                self.tried.push(wrapped);
            }
        }
        match (&self.opener, &self.keys) {
            (None, Some(keys)) if segment.sealed == Some(true) => Err(keys.none_fits()),
            (opener, _) => Ok(opener.as_ref()),
        }
    }
}

/// What opens the recording, by the secret keys of an age identity file.
pub(super) fn opener(proven: &Proven, file: &Path) -> Result<Opener, Failure> {
    let keys = Keys::read(file)?;
    keys.opener_of(proven)?.ok_or_else(|| keys.none_fits())
}

/// The recording's key, when it is for one of these.
fn unwrapped(
    wrapped: &[u8],
    identities: &[Identity],
) -> Result<Option<Zeroizing<[u8; KEY_BYTES]>>, Failure> {
    let damaged = || broken("its wrapped key is damaged");
    let decryptor = Decryptor::new(wrapped).map_err(|_| damaged())?;
    let all = identities.iter().map(|identity| identity as &dyn age::Identity);
    let mut reader = match decryptor.decrypt(all) {
        Ok(reader) => reader,
        Err(DecryptError::NoMatchingKeys) => return Ok(None),
        Err(_) => return Err(damaged()),
    };
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    reader.read_exact(key.as_mut()).map_err(|_| damaged())?;
    Ok(Some(key))
}

/// The secret keys in a file, as `age-keygen` writes it.
fn identities(file: &Path) -> Result<Vec<Identity>, Failure> {
    let cannot = |cause: &str| {
        Failure::new("file", format!("cannot read keys from {}: {cause}", file.display())).remedy(
            "age-keygen -o FILE makes such a file; its public key goes to the relay's operator",
        )
    };
    let read = || -> std::io::Result<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(file)?.take(IDENTITY_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| cannot(&error.to_string()))?;
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |(at, line): (usize, &str)| {
        let nth = at + 1;
        line.parse().map_err(|_| cannot(&format!("key {nth} is no AGE-SECRET-KEY-1 of X25519")))
    };
    let all: Vec<Identity> = lines.enumerate().map(read).collect::<Result<_, _>>()?;
    if all.is_empty() { Err(cannot("there is none")) } else { Ok(all) }
}
