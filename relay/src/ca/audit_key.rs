//! The key that signs the audit log's checkpoints, and the log's name with it.
//!
//! It is apart from the other keys: whoever has it can say anything about the past, and nothing
//! else. It signs checkpoints, and lists of what makes up a bundle of evidence. The file has two lines, the log's name and the key (PKCS#8 in base64).

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belay_proto::audit::{Checkpoint, Digest, VerifierKey, seal};
use belay_proto::evidence::Manifest;
use belay_tunnel::pki::{NoteKeyError, NoteSigner, NoteVerifier};
use belay_tunnel::private_file;
use zeroize::Zeroizing;

use super::files::{self, FilesError};

const FILE: &str = "audit.key";

/// The key, loaded.
pub struct AuditKey {
    signer: NoteSigner,
    verifier: VerifierKey,
}

impl AuditKey {
    /// Loads the key of a data directory; `None` when there is none yet.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn load(data: &Path) -> Result<Option<Self>, FilesError> {
        let path = data.join(files::DIR).join(FILE);
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes,
            Err(FilesError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let no_key = || FilesError::NoKey(path.clone());
        let text = std::str::from_utf8(&bytes).map_err(|_| no_key())?;
        let (name, key) = text.trim_end().split_once('\n').ok_or_else(no_key)?;
        let der = Zeroizing::new(STANDARD.decode(key).map_err(|_| no_key())?);
        let signer = NoteSigner::from_pkcs8(&der)?;
        let verifier = VerifierKey::new(name, signer.public_key()?).map_err(|_| no_key())?;
        Ok(Some(Self { signer, verifier }))
    }

    /// Makes the key of a data directory that has none, for a relay of this name.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn make(data: &Path, host: &str) -> Result<Self, FilesError> {
        let dir = data.join(files::DIR);
        let path = dir.join(FILE);
        private_file::make_dir(&dir).map_err(|e| FilesError::Write(dir, e))?;
        let der = NoteSigner::generate()?;
        let key = Zeroizing::new(STANDARD.encode(&*der));
        let text = Zeroizing::new(format!("{host}/belay-audit\n{}\n", *key));
        private_file::create(&path, text.as_bytes())
            .map_err(|e| FilesError::Write(path.clone(), e))?;
        Self::load(data)?.ok_or(FilesError::NoKey(path))
    }

    /// What auditors verify with.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Checks what this key has signed.
    pub fn check(&self) -> NoteVerifier {
        NoteVerifier::from(&self.verifier)
    }

    /// The signed statement that the log has so many entries under this root.
    ///
    /// # Errors
    /// [`NoteKeyError`].
    pub fn seal(&self, size: u64, root: Digest) -> Result<String, NoteKeyError> {
        let checkpoint = Checkpoint { origin: self.verifier.name().to_owned(), size, root };
        Ok(checkpoint.seal(&self.verifier, &self.signer.sign(&checkpoint.text())?))
    }

    /// The signed list of what makes up a bundle of evidence.
    ///
    /// # Errors
    /// [`NoteKeyError`].
    pub fn seal_manifest(&self, manifest: &Manifest) -> Result<String, NoteKeyError> {
        let text = manifest.text();
        Ok(seal(&text, &self.verifier, &self.signer.sign(&text)?))
    }
}
