#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;

/// Every signature is the key's: what is judged here is what was signed.
struct Signed;

impl VerifySignature for Signed {
    fn verify(&self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

fn key() -> VerifierKey {
    VerifierKey::new("relay.test/belay-audit", [7; 32]).unwrap()
}

const N: u64 = 20;

/// A log of [`N`] entries, and one that is the same up to an entry and was written anew from it on.
fn log(anew_from: u64) -> Vec<String> {
    let word = |seq| if seq < anew_from { "number" } else { "numbed" };
    (1..=N).map(|seq| format!(r#"{{"seq":{seq},"at":1,"kind":"{}"}}"#, word(seq))).collect()
}

fn hashes(lines: &[String]) -> Vec<Digest> {
    lines.iter().map(|line| leaf_hash(line.as_bytes())).collect()
}

/// The checkpoint of the first so many.
fn sealed(lines: &[String], size: usize) -> String {
    let mut frontier = Frontier::default();
    hashes(&lines[..size]).into_iter().for_each(|leaf| frontier.append(leaf, |_, _| {}));
    let (origin, root) = (key().name().to_owned(), frontier.root());
    Checkpoint { origin, size: size as u64, root }.seal(&key(), &[0; 64])
}

fn judge(lines: &[String], claimed: &[Digest], own: &[String], elsewhere: &[String]) -> Report {
    let mut review = Review::new(key());
    lines.iter().for_each(|line| review.entry(line));
    review.leaves(claimed);
    own.iter().for_each(|note| review.checkpoint(note, &Signed));
    elsewhere.iter().for_each(|note| review.checkpoint_from_elsewhere(note, &Signed));
    review.finish()
}

#[test]
fn an_older_checkpoint_speaks_against_a_log_that_was_written_and_signed_anew() {
    let (true_log, forged) = (log(N + 1), log(3));
    let own = [sealed(&true_log, 8), sealed(&forged, 20)];
    let found = [Finding::OtherHistory { size: 8, agree: 0 }];
    for claimed in [hashes(&forged), Vec::new(), vec![empty_root(); 20]] {
        let report = judge(&forged, &claimed, &own, &[]);
        assert_eq!((report.findings.as_slice(), report.proven), (found.as_slice(), 0));
        assert!(!report.intact());
    }
    let report = judge(&forged, &hashes(&true_log), &own, &[]);
    assert!(report.findings.contains(&Finding::Differs(Difference::Changed(3))), "{report:?}");

    // Of several it is the first that does not fit.
    let forged = log(10);
    let own = [5, 8, 13, 16].map(|size| sealed(&true_log, size));
    let own = [own.as_slice(), &[sealed(&forged, 20)]].concat();
    let report = judge(&forged, &hashes(&forged), &own, &[]);
    let found = [Finding::OtherHistory { size: 13, agree: 8 }];
    assert_eq!((report.findings.as_slice(), report.proven), (found.as_slice(), 8));
}

#[test]
fn what_one_remembers_counts_though_the_relay_serves_it_too() {
    let (true_log, forged) = (log(N + 1), log(3));
    let own = [sealed(&true_log, 8), sealed(&forged, 20)];
    let report = judge(&forged, &hashes(&forged), &own, &own[..1]);
    assert_eq!(report.findings, [Finding::OtherHistory { size: 8, agree: 0 }]);
    // As well where another that it serves is the first not to fit.
    let forged = log(10);
    let own = [12, 16].map(|size| sealed(&true_log, size));
    let served = [own.as_slice(), &[sealed(&forged, 20)]].concat();
    let report = judge(&forged, &hashes(&forged), &served, &own[1..]);
    let of = |size| Finding::OtherHistory { size, agree: 0 };
    assert_eq!(report.findings, [of(12), of(16)]);
}

#[test]
fn checkpoints_of_one_history_are_proven_however_many_and_whosever_they_are() {
    let all = log(N + 1);
    let own: Vec<String> = [20, 8, 13, 13, 0, 8].map(|size| sealed(&all, size)).into();
    let report = judge(&all, &hashes(&all), &own, &[1, 8, 20].map(|size| sealed(&all, size)));
    assert_eq!((report.findings.as_slice(), report.proven), ([].as_slice(), N));
    assert!(report.intact());
    assert_eq!(report.checkpoint.unwrap().size, N);
    // Nothing is proven whole without a root.
    let none = judge(&[], &[], &[], &[]);
    assert!(!none.intact() && none.findings == [Finding::NothingSigned]);
    assert!(judge(&[], &[], &[sealed(&all, 0)], &[]).intact());
}

proptest! {
    /// Whatever the relay makes of entries, hashes and checkpoints of two histories.
    #[test]
    fn no_signed_checkpoint_that_does_not_fit_goes_unsaid(
        anew_from in 1..=N,
        length in 0..=20_usize,
        claims in 0..=2_usize,
        notes in prop::collection::vec((any::<bool>(), any::<bool>(), 0..=20_usize), 0..6),
        whole in any::<bool>(),
    ) {
        let histories = [log(N + 1), log(anew_from)];
        let lines = &histories[1][..length];
        let claimed = histories.get(claims).map(|all| hashes(all)).unwrap_or_default();
        let (mut own, mut elsewhere) = (Vec::new(), Vec::new());
        let mut fits = true;
        for (anew, of_relay, size) in notes {
            let history = &histories[usize::from(anew)];
            fits &= lines.get(..size).is_some_and(|part| part == &history[..size]);
            let kept = if of_relay { &mut own } else { &mut elsewhere };
            kept.push(sealed(history, size));
        }
        if whole {
            own.push(sealed(&histories[1], length));
        }
        let report = judge(lines, &claimed, &own, &elsewhere);
        prop_assert!(fits || !report.findings.is_empty());
        prop_assert_eq!(report.findings.is_empty(), report.intact(), "{:?}", report);
        if fits && whole && claims != 0 {
            prop_assert!(report.intact(), "{:?}", report);
        }
    }
}
