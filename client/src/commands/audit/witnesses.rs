//! What witnesses cosigned of a log: seen in its notes, checked with the keys one was given.

use std::collections::BTreeMap;

use belay_proto::audit::{Checkpoint, VerifierKey, WitnessKey, signers};
use belay_proto::error_line::printable;
use belay_proto::time::UnixTime;
use belay_tunnel::pki::NoteVerifier;
use serde_json::{Value, json};

use crate::span;

/// One that is looked for.
struct Wanted {
    key: WitnessKey,
    /// Entries under its newest cosignature, and when it signed.
    newest: Option<(u64, UnixTime)>,
    /// Entries under a cosignature of it that is wrong.
    wrong: Option<u64>,
}

/// Witnesses, as notes are looked through.
pub(super) struct Witnesses {
    log: VerifierKey,
    wanted: Vec<Wanted>,
    /// Names below notes for which no key was given, and the largest log each stands under.
    unchecked: BTreeMap<String, u64>,
}

impl Witnesses {
    /// Looks for these in the notes of this log.
    pub(super) fn of(log: &VerifierKey, keys: &[WitnessKey]) -> Self {
        let wanted = |key: &WitnessKey| Wanted { key: key.clone(), newest: None, wrong: None };
        let wanted = keys.iter().map(wanted).collect();
        Self { log: log.clone(), wanted, unchecked: BTreeMap::new() }
    }

    /// Looks at a note. One that the log's own key did not sign says nothing.
    pub(super) fn note(&mut self, note: &str) {
        let own = Checkpoint::open(note, &self.log, &NoteVerifier::from(&self.log));
        let Ok(Checkpoint { size, .. }) = own else { return };
        for wanted in &mut self.wanted {
            match wanted.key.cosigned(note, &NoteVerifier::from(&wanted.key)) {
                Ok(Some(at)) => wanted.newest = wanted.newest.max(Some((size, at))),
                Ok(None) => {}
                Err(_) => wanted.wrong = Some(size),
            }
        }
        for name in signers(note).unwrap_or_default() {
            let known = self.wanted.iter().any(|wanted| wanted.key.name() == name);
            if name != self.log.name() && !known {
                let largest = self.unchecked.entry(name).or_default();
                *largest = size.max(*largest);
            }
        }
    }

    /// Whether each that was looked for cosigned, and none wrongly.
    pub(super) fn all_signed(&self) -> bool {
        self.wanted.iter().all(|wanted| wanted.newest.is_some() && wanted.wrong.is_none())
    }

    /// Whether one that was looked for cosigned.
    pub(super) fn vouch(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.newest.is_some())
    }

    /// A line for each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Wanted { key, newest, wrong } in &self.wanted {
            let name = printable(key.name());
            if let Some(size) = wrong {
                lines.push(format!("the cosignature of {name} under {size} entries is wrong"));
            }
            lines.push(match newest {
                Some((size, at)) => {
                    format!("cosigned: {name} saw {size} entries on {}", span::at(*at))
                }
                None => format!(
                    "NOT COSIGNED: there is no cosignature by {}",
                    printable(&key.to_string())
                ),
            });
        }
        for (name, size) in &self.unchecked {
            let name = printable(name);
            lines.push(format!(
                "cosigned by {name}, unchecked, up to {size} entries: give its key with --witness-key"
            ));
        }
        lines
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let checked = self.wanted.iter().map(|Wanted { key, newest, wrong }| {
            json!({
                "key": key.to_string(),
                "entries": newest.map(|(size, _)| size),
                "at": newest.map(|(_, at)| at),
                "wrong_under": wrong,
            })
        });
        let unchecked = self
            .unchecked
            .iter()
            .map(|(name, size)| json!({ "name": name, "entries": size, "unchecked": true }));
        checked.chain(unchecked).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use belay_proto::audit::{
        Checkpoint, VerifierKey, WitnessKey, cosigned_text, empty_root, with_signatures,
    };
    use belay_proto::time::UnixTime;
    use belay_tunnel::pki::NoteSigner;

    use super::Witnesses;

    fn signer() -> NoteSigner {
        NoteSigner::from_pkcs8(&NoteSigner::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_cosignature_counts_only_with_its_key_and_below_the_logs_own() {
        let (log, witness) = (signer(), signer());
        let log_key =
            VerifierKey::new("relay.test/belay-audit", log.public_key().unwrap()).unwrap();
        let key = WitnessKey::new("w.test", witness.public_key().unwrap()).unwrap();
        let other = WitnessKey::new("w.test", signer().public_key().unwrap()).unwrap();
        let note = |size| {
            let origin = log_key.name().to_owned();
            let checkpoint = Checkpoint { origin, size, root: empty_root() };
            let text = checkpoint.text();
            let note = checkpoint.seal(&log_key, &log.sign(&text).unwrap());
            let at = UnixTime(1_795_716_000 + size);
            let signature = witness.sign(&cosigned_text(at, &text)).unwrap();
            with_signatures(&note, &key.line(at, &signature)).unwrap()
        };
        let seen = |keys: &[WitnessKey], notes: &[String]| {
            let mut witnesses = Witnesses::of(&log_key, keys);
            notes.iter().for_each(|note| witnesses.note(note));
            (witnesses.all_signed(), witnesses.lines().join("\n"))
        };
        let keys = std::slice::from_ref(&key);
        let (good, lines) = seen(keys, &[note(7), note(9), note(8)]);
        assert!(good && lines.contains("w.test saw 9 entries"), "{lines}");
        let (good, lines) = seen(&[], &[note(7)]);
        assert!(good && lines.contains("unchecked, up to 7"), "{lines}");
        let (good, lines) = seen(&[other], &[note(7)]);
        assert!(!good && lines.contains("NOT COSIGNED"), "{lines}");
        // A cosignature moved to another checkpoint.
        let moved = {
            let (seven, nine) = (note(7), note(9));
            let own: String = nine.split_inclusive('\n').take(5).collect();
            own + seven.split_inclusive('\n').next_back().unwrap()
        };
        let (good, lines) = seen(keys, &[moved]);
        assert!(!good && lines.contains("under 9 entries is wrong"), "{lines}");
    }
}
