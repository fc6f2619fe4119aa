//! Having witnesses cosign the audit log's checkpoints, over HTTP (C2SP
//! [tlog-witness](https://c2sp.org/tlog-witness), `add-checkpoint`).
//!
//! A witness keeps of each log how long it was and its root, and signs a longer one only with the proof
//! that it goes on from there. So whoever owns this relay can show no second history to anybody who
//! asks for that witness's signature. Its law: a cosignature is kept only after it was checked with
//! the key in the configuration. A witness that cannot be reached holds nothing up; the next
//! checkpoint covers what was missed. One that knows another history is said loudly, and on record once.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use belay_proto::audit::{Digest, NoteError, WitnessKey};
use belay_proto::error_line::one_line;
use belay_proto::time::UnixTime;
use belay_tunnel::pki::NoteVerifier;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::config::Audit;
use crate::outbound::{Peer, PostError, SetUpError, URL_RULE, Url};
use crate::store::{Event, EventKind, Store, StoreError};

/// Witnesses at most: each has a request a checkpoint.
const MOST: usize = 16;

/// How often a witness may say that its log has another length, for one checkpoint.
const ATTEMPTS: usize = 3;

/// The type of an answer that is a length.
const SIZE: &str = "text/x.tlog.size";

/// What `init` writes of it.
pub const TEMPLATE: &str = r#"
# Who else signs the audit log's checkpoints (C2SP tlog-witness), at most each audit_checkpoint_seconds;
# a block for each, at the end of this file. What a witness has signed, not even whoever owns this
# machine can replace by another history.
# [[witness]]
# url = "https://witness.example.com/"  # add-checkpoint is below
# key = "witness.example.com+0a1b2c3d+BA…"  # its key, from whoever runs it
# ca_file = "/etc/belay/witness-ca.pem"  # whom to believe instead of the system's authorities
"#;

/// A block as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    url: String,
    key: String,
    ca_file: Option<PathBuf>,
}

/// A block, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Where `add-checkpoint` is.
    pub url: Url,
    /// What it signs with.
    pub key: WitnessKey,
    /// Whom to believe.
    pub ca_file: Option<PathBuf>,
}

/// Checks all blocks.
///
/// # Errors
/// The first that cannot be used: which setting, what it is, and what it must be.
pub fn check(blocks: Vec<Block>) -> Result<Vec<Witness>, (&'static str, String, &'static str)> {
    if blocks.len() > MOST {
        return Err(("[[witness]]", format!("there {} times", blocks.len()), "at most 16 blocks"));
    }
    let mut all: Vec<Witness> = Vec::with_capacity(blocks.len());
    for Block { url, key, ca_file } in blocks {
        let bad = |setting, got: &str, rule| Err((setting, format!("\"{got}\""), rule));
        let Some(at) = Url::parse(&url) else { return bad("[[witness]] url", &url, URL_RULE) };
        let Ok(parsed) = key.parse::<WitnessKey>() else {
            let rule = "NAME+NUMBER+KEY of a witness (its kind is 4, cosignature/v1)";
            return bad("[[witness]] key", &key, rule);
        };
        if all.iter().any(|other| other.key == parsed) {
            return bad("[[witness]] key", &key, "another in each block");
        }
        if let Some(file) = ca_file.as_ref().filter(|file| !file.is_absolute()) {
            let got = file.display().to_string();
            return bad("[[witness]] ca_file", &got, "a path that begins with /");
        }
        all.push(Witness { url: at.below("add-checkpoint"), key: parsed, ca_file });
    }
    Ok(all)
}

/// A witness cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("witness {0}")]
pub struct PrepareError(String, #[source] SetUpError);

/// Reads all authorities.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(audit: &Audit) -> Result<Vec<Cosigner>, PrepareError> {
    let cosigner = |witness: &Witness| {
        let Witness { url, key, ca_file } = witness.clone();
        let peer = Peer::new(url, ca_file.as_deref());
        let peer = peer.map_err(|error| PrepareError(key.name().to_owned(), error))?;
        let every = audit.checkpoint_every;
        Ok(Cosigner { peer, key, every, has: 0, signed: 0, failing: false, refused: false })
    };
    audit.witnesses.iter().map(cosigner).collect()
}

/// A checkpoint was not cosigned.
#[derive(Debug, thiserror::Error)]
enum CosignError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it answered what is no cosignature of its key")]
    NotSigned,
    #[error("its cosignature is wrong")]
    Wrong(#[source] NoteError),
    #[error("its log's length changed {ATTEMPTS} times")]
    Unsteady,
    /// It has seen more than there is.
    #[error(
        "it has signed {theirs} entries of this log, here are {ours}: this log was rolled back"
    )]
    Ahead { theirs: u64, ours: u64 },
    /// It has seen something else.
    #[error("it has seen another history of this log than its {ours} entries here")]
    OtherHistory { ours: u64 },
}

/// Who asks one witness.
pub struct Cosigner {
    peer: Peer,
    key: WitnessKey,
    every: Duration,
    /// How long it knows the log to be, as far as we know.
    has: u64,
    /// Entries under the last checkpoint it cosigned.
    signed: u64,
    failing: bool,
    refused: bool,
}

impl Cosigner {
    /// Has the newest checkpoint cosigned each time there is a new one, at most as often as
    /// configured, until cancelled.
    pub async fn keep(mut self, store: Store, cancel: CancellationToken) {
        let kept = async {
            loop {
                let outcome = self.ask(&store).await;
                self.tell(&store, outcome).await;
                tokio::time::sleep(self.every).await;
            }
        };
        cancel.run_until_cancelled(kept).await;
    }

    async fn ask(&mut self, store: &Store) -> Result<(), CosignError> {
        let Some((size, note)) = store.checkpoint().await?.filter(|(size, _)| *size > self.signed)
        else {
            return Ok(());
        };
        for _ in 0..ATTEMPTS {
            let proof = match self.has {
                0 => Vec::new(),
                has if has == size => Vec::new(),
                has if has > size => {
                    // It is asked anew each time: who runs it may have mended it.
                    self.has = 0;
                    return Err(CosignError::Ahead { theirs: has, ours: size });
                }
                has => store.log_consistency(has, size).await?.unwrap_or_default(),
            };
            let body = request(self.has, &proof, &note);
            let answer =
                self.peer.post("text/plain; charset=utf-8", HeaderMap::new(), body).await?;
            let text = String::from_utf8_lossy(&answer.body);
            match answer.status {
                StatusCode::OK => {
                    let (line, at) = self.cosignature(&note, &text)?;
                    store.keep_cosigned(size, note, line).await?;
                    tracing::debug!(witness = self.key.name(), size, at = at.0, "cosigned");
                    (self.has, self.signed) = (size, size);
                    return Ok(());
                }
                StatusCode::CONFLICT
                    if answer.kind.as_deref().is_some_and(|k| k.starts_with(SIZE)) =>
                {
                    let theirs = text.trim_end().parse();
                    self.has = theirs.map_err(|_| CosignError::Status(answer.status))?;
                }
                StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT => {
                    return Err(CosignError::OtherHistory { ours: size });
                }
                other => return Err(CosignError::Status(other)),
            }
        }
        Err(CosignError::Unsteady)
    }

    /// The line of this witness among those it answered, checked.
    fn cosignature(&self, note: &str, lines: &str) -> Result<(String, UnixTime), CosignError> {
        let check = NoteVerifier::from(&self.key);
        for line in lines.split_inclusive('\n') {
            let signed = belay_proto::audit::with_signatures(note, line);
            let Ok(signed) = signed else { continue };
            if let Some(at) = self.key.cosigned(&signed, &check).map_err(CosignError::Wrong)? {
                return Ok((line.to_owned(), at));
            }
        }
        Err(CosignError::NotSigned)
    }

    async fn tell(&mut self, store: &Store, outcome: Result<(), CosignError>) {
        let name = self.key.name();
        let error = match outcome {
            Ok(()) => {
                self.refused = false;
                if std::mem::take(&mut self.failing) {
                    tracing::info!(witness = name, "the witness cosigns again");
                }
                return;
            }
            Err(error) => error,
        };
        let line = one_line(&error);
        let alarm = matches!(error, CosignError::Ahead { .. } | CosignError::OtherHistory { .. });
        if alarm && !self.refused {
            tracing::error!(witness = name, error = line, "a witness does not cosign this log");
            let event = Event::new(EventKind::WitnessRefused);
            let event = event.detail(&format!("witness {name} does not cosign: {line}"));
            self.refused = store.record(event).await.is_ok();
        } else if !alarm && !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                witness = name,
                error = line,
                "the witness does not cosign; tried again"
            );
        }
    }
}

/// What `add-checkpoint` takes.
fn request(old: u64, proof: &[Digest], note: &str) -> Vec<u8> {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&hash.to_string());
        body.push('\n');
    }
    body.push('\n');
    body.push_str(note);
    body.into_bytes()
}
