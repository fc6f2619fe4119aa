//! One recording in the index of one's own: `BELAY_HOME/search/INDEX/SESSION`.
//!
//! What a sealed recording showed must not lie open where it was searched. So a file is encrypted
//! (AES-256-GCM) with a key that comes of the auditor's secret keys by HKDF: whoever has those has
//! everything anyway, and whoever has this machine without them has nothing. Open in it are the length that
//! the recording had, how far it was read, and whether it had ended; all are bound to the rest.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use belay_proto::ids::SessionId;
use belay_tunnel::transcript::Block;
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::commands::play::logged::Ending;
use crate::commands::play::open::Keys;
use crate::failure::Failure;

/// The layout is in it: of another one nothing opens, and all is read again.
const DOMAIN: &[u8] = b"belay search index 2";

/// How far a recording was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All of it.
    Whole,
    /// Its beginning: it is too long.
    Cut,
    /// Nothing: it is not what its device signed.
    Damaged,
    /// Nothing: it is sealed to others.
    Foreign,
    /// Nothing: it is not the one whose end is in the audit log.
    Exchanged,
}

impl State {
    const ALL: [Self; 5] = [Self::Whole, Self::Cut, Self::Damaged, Self::Foreign, Self::Exchanged];

    const fn byte(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::Cut => 1,
            Self::Damaged => 2,
            Self::Foreign => 3,
            Self::Exchanged => 4,
        }
    }
}

/// As they are written.
const ENDINGS: [(Ending, u8); 3] = [(Ending::Agreed, 0), (Ending::Open, 1), (Ending::Unlogged, 2)];

/// What stands open in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the recording when it was read, as the relay told them.
    pub(super) bytes: u64,
    pub(super) state: State,
    /// How the audit log agreed on its end.
    pub(super) ending: Ending,
}

/// Bytes of a [`Head`].
pub(super) const HEAD: usize = 10;

impl Head {
    fn write(self) -> [u8; HEAD] {
        let ending = ENDINGS.iter().find(|(ending, _)| *ending == self.ending);
        let mut head = [self.state.byte(); HEAD];
        if let Some(byte) = head.get_mut(1) {
            *byte = ending.map_or(0, |(_, byte)| *byte);
        }
        if let Some(bytes) = head.last_chunk_mut() {
            *bytes = self.bytes.to_le_bytes();
        }
        head
    }

    /// `None` when it is none.
    pub(super) fn read(head: &[u8; HEAD]) -> Option<Self> {
        let state = State::ALL.into_iter().find(|state| head.first() == Some(&state.byte()))?;
        let (ending, _) = ENDINGS.into_iter().find(|(_, byte)| head.get(1) == Some(byte))?;
        Some(Self { bytes: u64::from_le_bytes(*head.last_chunk()?), state, ending })
    }
}

/// A block as it is kept. It is known by its signs, those of its words among them.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub(super) struct Kept<'b> {
    #[n(0)]
    pub(super) last_ms: u64,
    #[b(1)]
    pub(super) words: &'b ByteSlice,
    #[b(2)]
    pub(super) marks: &'b ByteSlice,
    #[b(3)]
    pub(super) pairs: &'b ByteSlice,
    #[b(4)]
    pub(super) packed: &'b ByteSlice,
}

/// What seals files and opens them.
pub(super) struct Seal {
    key: RandomizedNonceKey,
    /// The directory's name: of each set of secret keys there is an index.
    pub(super) name: String,
}

fn derived(secret: &str, what: &[u8]) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut out = Zeroizing::new([0; 32]);
    let key = Salt::new(HKDF_SHA256, DOMAIN).extract(secret.as_bytes());
    key.expand(&[what], HKDF_SHA256)?.fill(out.as_mut())?;
    Ok(out)
}

fn failed(_: Unspecified) -> Failure {
    Failure::new("internal", "the search index cannot be encrypted")
}

impl Seal {
    /// For whoever has these keys.
    pub(super) fn of(keys: &Keys) -> Result<Self, Failure> {
        let secret = keys.secret();
        let name = derived(&secret, b"name").map_err(failed)?;
        let name = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let key = derived(&secret, b"key").map_err(failed)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(failed)?;
        Ok(Self { key, name })
    }

    /// A session's file.
    pub(super) fn file(
        &self,
        session: SessionId,
        head: Head,
        blocks: &[Block],
    ) -> Result<Vec<u8>, Failure> {
        let words: Vec<Vec<u8>> = blocks.iter().map(Block::word_signs).collect();
        let kept: Vec<Kept<'_>> = blocks
            .iter()
            .zip(&words)
            .map(|(block, words)| Kept {
                last_ms: block.last_ms,
                words: words.as_slice().into(),
                marks: block.marks.as_slice().into(),
                pairs: block.pairs.as_slice().into(),
                packed: block.packed.as_slice().into(),
            })
            .collect();
        let mut plain = minicbor::to_vec(kept)
            .map_err(|e| Failure::new("internal", format!("the search index: {e}")))?;
        let head = head.write();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(about(session, &head)), &mut plain)
            .map_err(failed)?;
        let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
        Ok([head.as_slice(), nonce, &plain].concat())
    }

    /// What is in a session's file: [`blocks`] reads it. `None` when it is another's, or damaged.
    pub(super) fn open(&self, session: SessionId, mut file: Vec<u8>) -> Option<Vec<u8>> {
        let (head, rest) = file.split_first_chunk_mut::<HEAD>()?;
        let (nonce, sealed) = rest.split_first_chunk_mut::<NONCE_LEN>()?;
        let (about, nonce) = (Aad::from(about(session, head)), Nonce::from(&*nonce));
        let length = self.key.open_in_place(nonce, about, sealed).ok()?.len();
        file.drain(..HEAD + NONCE_LEN);
        file.truncate(length);
        Some(file)
    }
}

fn about(session: SessionId, head: &[u8; HEAD]) -> Vec<u8> {
    [DOMAIN, session.as_bytes().as_slice(), head].concat()
}

/// The blocks of a file that was opened; `None` when it holds none.
pub(super) fn blocks(plain: &[u8]) -> Option<Vec<Kept<'_>>> {
    minicbor::decode(plain).ok()
}
