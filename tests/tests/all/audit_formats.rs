//! Other people's programs agree with ours about the audit log: Cloudflare's implementations of C2SP
//! tlog-checkpoint, tlog-tiles and signed-note, and of the proofs of RFC 6962.

use anyhow::{Context as _, Result, ensure};
use belay_proto::audit::{WitnessKey, cosigned_text, leaf_hash, with_signatures};
use belay_proto::time::UnixTime;
use belay_relay::store::{Event, EventKind, Store};
use belay_tunnel::pki::{NoteSigner, NoteVerifier};
use signed_note::{Note, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash, HashReader};

/// Three tiles and a part of a fourth.
const ENTRIES: u64 = 900;

/// All the hashes of their tree, in their order.
struct Theirs(Vec<Hash>);

impl HashReader for Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

fn theirs(hashes: Vec<belay_proto::audit::Digest>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| Hash(hash.0)).collect()
}

/// What their implementation makes of a signed note of ours.
fn opened(note: &str, vkey: &str) -> Result<Checkpoint> {
    let verifier = StandardVerifier::new(vkey).ok().context("they do not take our key")?;
    let note = Note::from_bytes(note.as_bytes()).ok().context("they do not take our note")?;
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let (verified, _) = note.verify(&known).ok().context("they do not take our signature")?;
    ensure!(verified.len() == 1, "no signature was verified");
    Checkpoint::from_bytes(note.text()).ok().context("they do not take our checkpoint")
}

/// A witness's key as their implementation takes keys of kinds it does not know.
struct Cosigner(WitnessKey);

impl Verifier for Cosigner {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn key_id(&self) -> u32 {
        signed_note::key_id(self.0.name(), &[&[4], self.0.key().as_slice()].concat())
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        // C2SP tlog-cosignature, written down here a second time.
        let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
        let head = format!("cosignature/v1\ntime {}\n", u64::from_be_bytes(*time));
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            self.0.key(),
        );
        key.verify(&[head.as_bytes(), text].concat(), signature).is_ok()
    }
}

#[tokio::test]
async fn another_implementation_agrees_about_cosignatures() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path()).await?;
    store.record(Event::new(EventKind::LineUp)).await?;
    let (_, note) = store.checkpoint().await?.context("no checkpoint")?;
    let signer = NoteSigner::from_pkcs8(&NoteSigner::generate()?)?;
    let key = WitnessKey::new("witness.example", signer.public_key()?)?;
    let (text, _) = note.split_once("\n\n").context("no note")?;
    let (text, at) = (format!("{text}\n"), UnixTime(1_795_716_000));
    let line = key.line(at, &signer.sign(&cosigned_text(at, &text))?);
    let note = with_signatures(&note, &line)?;
    let log = StandardVerifier::new(&store.log_key().to_string()).ok().context("our key")?;
    let cosigner = Cosigner(key.clone());
    ensure!(cosigner.key_id() == key.number(), "another number");
    let known = VerifierList::new(vec![Box::new(log), Box::new(cosigner)]);
    let theirs = Note::from_bytes(note.as_bytes()).ok().context("they do not take our note")?;
    let (verified, unverified) = theirs.verify(&known).ok().context("they verify nothing")?;
    ensure!(verified.len() == 2 && unverified.is_empty(), "not both signatures were verified");
    ensure!(key.cosigned(&note, &NoteVerifier::from(&key))? == Some(at), "we do not verify it");
    Ok(())
}

#[tokio::test]
async fn another_implementation_agrees_about_checkpoints_and_proofs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path()).await?;
    let vkey = store.log_key().to_string();
    let mut checkpoints = Vec::new();
    for part in 0..ENTRIES / 10 {
        let event = |n| Event::new(EventKind::LineUp).detail(&format!("number {n}"));
        store.record_batch((part * 10..part * 10 + 10).map(event).collect()).await?;
        let (size, note) = store.checkpoint().await?.context("no checkpoint")?;
        let checkpoint = opened(&note, &vkey)?;
        ensure!(checkpoint.size() == size && checkpoint.origin() == store.log_key().name());
        checkpoints.push(checkpoint);
    }
    let entries = store.log_page(0, ENTRIES).await?.entries;
    ensure!(entries.len() as u64 == ENTRIES);
    let mut tree = Theirs(Vec::new());
    for (n, entry) in entries.iter().enumerate() {
        let new = tlog_tiles::stored_hashes(n as u64, entry.as_bytes(), &tree)?;
        tree.0.extend(new);
    }
    let last = checkpoints.last().context("no checkpoint")?;
    let root = *last.hash();
    for checkpoint in &checkpoints {
        let expected = tlog_tiles::tree_hash(checkpoint.size(), &tree)?;
        ensure!(expected == *checkpoint.hash(), "another root at {}", checkpoint.size());
        let proof = store.log_consistency(checkpoint.size(), ENTRIES).await?.context("no proof")?;
        let proof = theirs(proof);
        tlog_tiles::check_tree(&proof, ENTRIES, root, checkpoint.size(), *checkpoint.hash())?;
        let same = proof == tlog_tiles::prove_tree(ENTRIES, checkpoint.size(), &tree)?;
        ensure!(same, "another proof from {}", checkpoint.size());
    }
    for seq in (1..=ENTRIES).step_by(7).chain([256, 257, 512, ENTRIES]) {
        let proof = store.log_inclusion(seq, ENTRIES).await?.context("no proof")?;
        let entry = &entries[usize::try_from(seq)? - 1];
        let leaf = tlog_tiles::record_hash(entry.as_bytes());
        ensure!(leaf.0 == leaf_hash(entry.as_bytes()).0, "another leaf");
        tlog_tiles::check_record(&theirs(proof), ENTRIES, root, seq - 1, leaf)?;
    }
    // And they refuse what we refuse.
    let (_, note) = store.checkpoint().await?.context("no checkpoint")?;
    ensure!(opened(&note.replace("\n900\n", "\n901\n"), &vkey).is_err());
    Ok(())
}
