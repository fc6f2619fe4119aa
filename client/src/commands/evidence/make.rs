//! `belay evidence SESSION`

use std::path::{Path, PathBuf};

use belay_proto::api::{Evidence, EvidenceRequest, LogProven, path};
use belay_proto::audit::{Checkpoint, VerifierKey, leaf_hash};
use belay_proto::evidence::{
    Anchors, Before, Bundle, MAX_RECORDING, Manifest, examine, from_base64, sha256,
};
use belay_proto::ids::SessionId;
use belay_tunnel::pki::NoteVerifier;
use hyper::Method;

use super::keys::RealKeys;
use super::{file, show};
use crate::api::{Api, path_of};
use crate::commands::audit::{Log, read_notes};
use crate::failure::Failure;
use crate::output;
use crate::run::Context;

/// Asks for everything, examines it, writes it.
pub(super) async fn run(
    context: &Context,
    session: SessionId,
    output: Option<&Path>,
    checkpoints: &[PathBuf],
) -> Result<u8, Failure> {
    let elsewhere = read_notes(checkpoints)?;
    let login = context.home.live_login()?;
    let log = Log::of(context, None)?;
    let api = log.api();
    let request = EvidenceRequest { session };
    let said: Evidence = api.send(Method::POST, path::EVIDENCE, &request).await?;
    // Later, so that it covers what the bundle's checkpoint does.
    let newest = log.trusted(&context.home).await?;
    let key = newest.key.clone();
    let checkpoint = checkpoint(&said.checkpoint, &key)?;
    log.must_begin_with(&checkpoint, &newest.checkpoint).await?;
    let manifest = Manifest::open(&said.manifest, &key, &NoteVerifier::from(&key))
        .map_err(|bad| strange(&format!("what it signed: {bad}")))?;
    let entries = log.session(session, &checkpoint).await?;
    let bytes = manifest.recording.map_or(0, |recording| recording.bytes);
    let recording = recording(api, session, bytes).await?;
    let mut before = Vec::new();
    for note in log.known.note.iter().chain(&elsewhere) {
        let old = self::checkpoint(note, &key)?;
        if old.size <= checkpoint.size {
            let hashes = log.consistency(old.size, checkpoint.size).await?;
            before.push(Before { note: note.clone(), hashes });
        }
    }
    let bundle = Bundle {
        vkey: said.vkey,
        manifest: said.manifest,
        checkpoint: said.checkpoint,
        before,
        facts: said.facts,
        ca: decoded(&said.ca)?,
        grants: said.grants.iter().map(|grant| decoded(grant)).collect::<Result<_, _>>()?,
        listed: entries.iter().map(|one| (one.entry.seq, leaf_hash(one.line.as_bytes()))).collect(),
        entries: entries
            .into_iter()
            .map(|one| LogProven { entry: one.line, hashes: one.hashes })
            .collect(),
        recording,
    };
    let anchors = Anchors { key: Some(key), ca: Some(sha256(&login.ca()?)), elsewhere };
    let report = examine(&bundle, &anchors, &RealKeys, |line| serde_json::from_str(line).ok());
    let path = output.map_or_else(|| format!("evidence-{session}.ndjson").into(), Path::to_owned);
    file::write(&path, &bundle)?;
    output::note(format!("written: {}", path.display()));
    show::report(context, &report, Some(&path))
}

fn strange(what: &str) -> Failure {
    Failure::new("evidence", format!("the relay's evidence cannot be taken: {what}"))
        .remedy("keep what you exported before; ask the relay's operator")
}

fn checkpoint(note: &str, key: &VerifierKey) -> Result<Checkpoint, Failure> {
    Checkpoint::open(note, key, &NoteVerifier::from(key))
        .map_err(|bad| strange(&format!("a checkpoint: {bad}")))
}

fn decoded(text: &str) -> Result<Vec<u8>, Failure> {
    from_base64(text).ok_or_else(|| strange("something that is no base64"))
}

/// So many bytes of the recording's file: those the relay has signed for.
async fn recording(api: &Api, session: SessionId, bytes: u64) -> Result<Vec<u8>, Failure> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_RECORDING);
    let bytes = bytes.ok_or_else(|| {
        Failure::new("file", format!("the recording is longer than {MAX_RECORDING} bytes"))
            .remedy("copy it from the relay's DATA/recordings")
    })?;
    let mut file = Vec::new();
    while file.len() < bytes {
        let with_session = path_of(path::RECORDING, &session.to_string());
        let page = api.bytes(&path_of(&with_session, &file.len().to_string())).await?;
        if page.is_empty() {
            return Err(strange("its recording is shorter than it signed"));
        }
        file.extend_from_slice(&page);
    }
    file.truncate(bytes);
    Ok(file)
}
