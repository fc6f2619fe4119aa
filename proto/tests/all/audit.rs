//! The audit log's core: the tree against its definition, proofs against every bit flipped, and what
//! is said of a copy that somebody has touched.

use std::collections::BTreeMap;

use belay_proto::audit::{
    Checkpoint, Difference, Digest, Entry, Finding, Frontier, Node, NoteError, Report, Review,
    TILE_WIDTH, Tile, VerifierKey, compare, empty_root, leaf_hash, node_hash, notes, open,
    partial_tiles, plan_consistency, plan_inclusion, pruned_detail, pruned_upto, seq_of, subtrees,
    verify_consistency, verify_inclusion,
};
use belay_proto::grant::VerifySignature;
use belay_proto::time::UnixTime;
use proptest::prelude::*;

/// RFC 6962 §2.1, word for word.
fn mth(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        many => {
            let k = many.len().next_power_of_two() / 2;
            node_hash(mth(&many[..k]), mth(&many[k..]))
        }
    }
}

fn leaf(n: u64) -> Digest {
    leaf_hash(line(n).as_bytes())
}

fn leaves(n: u64) -> Vec<Digest> {
    (1..=n).map(leaf).collect()
}

fn line(seq: u64) -> String {
    entry(seq).encode()
}

fn entry(seq: u64) -> Entry {
    Entry {
        seq,
        at: UnixTime(1_795_716_000 + seq),
        kind: "line-up".into(),
        user: None,
        user_name: None,
        device: None,
        device_name: None,
        session: None,
        login: None,
        code: None,
        detail: Some(format!("number {seq}")),
        source: None,
    }
}

fn tree(n: u64) -> (Frontier, BTreeMap<Node, Digest>) {
    let (mut frontier, mut nodes) = (Frontier::default(), BTreeMap::new());
    for leaf in leaves(n) {
        frontier.append(leaf, |node, hash| {
            nodes.insert(node, hash);
        });
    }
    (frontier, nodes)
}

/// A "signature" that depends on every byte of the text: the core takes any check.
struct Toy(u8);

impl Toy {
    fn sign(&self, text: &str) -> [u8; 64] {
        let hash = leaf_hash(&[&[self.0], text.as_bytes()].concat()).0;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&hash);
        signature
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::new("relay.test/belay-audit", [self.0; 32]).unwrap()
    }

    fn seal(&self, leaves: &[Digest]) -> String {
        let (origin, size) = (self.key().name().to_owned(), leaves.len() as u64);
        let checkpoint = Checkpoint { origin, size, root: mth(leaves) };
        checkpoint.seal(&self.key(), &self.sign(&checkpoint.text()))
    }
}

impl VerifySignature for Toy {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.sign(std::str::from_utf8(message).unwrap()).as_slice() == signature
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_growing_edge_has_the_root_of_the_definition(n in 0_u64..400) {
        let (frontier, nodes) = tree(n);
        let all = leaves(n);
        prop_assert_eq!(frontier.root(), mth(&all));
        prop_assert_eq!(Frontier::of(n, &nodes), Some(frontier));
        for (node, hash) in nodes {
            let first = (node.index << node.level) as usize;
            let part = &all[first..first + (1 << node.level)];
            prop_assert_eq!(hash, mth(part));
        }
    }

    #[test]
    fn every_leaf_is_proven_in_its_place_only(n in 1_u64..600, at in any::<u64>(), bit in any::<u64>()) {
        let (frontier, nodes) = tree(n);
        let (at, root) = (at % n, frontier.root());
        let mut proof = plan_inclusion(at, n).unwrap().fill(&nodes).unwrap();
        prop_assert!(verify_inclusion(leaf(at + 1), at, n, &proof, root));
        prop_assert!(!verify_inclusion(leaf(at + 2), at, n, &proof, root));
        prop_assert!(n == 1 || !verify_inclusion(leaf(at + 1), (at + 1) % n, n, &proof, root));
        let longer = [proof.as_slice(), &[root]].concat();
        prop_assert!(!verify_inclusion(leaf(at + 1), at, n, &longer, root));
        if !proof.is_empty() {
            prop_assert!(!verify_inclusion(leaf(at + 1), at, n, &proof[1..], root));
            let all = proof.len() as u64 * 256;
            flip(&mut proof, bit % all);
            prop_assert!(!verify_inclusion(leaf(at + 1), at, n, &proof, root));
        }
        prop_assert!(plan_inclusion(n, n).is_none());
    }

    #[test]
    fn a_longer_tree_is_proven_to_begin_with_the_shorter(n in 1_u64..600, m in any::<u64>(), bit in any::<u64>()) {
        let (frontier, nodes) = tree(n);
        let m = m % n + 1;
        let (old, new) = (mth(&leaves(m)), frontier.root());
        let mut proof = plan_consistency(m, n).unwrap().fill(&nodes).unwrap();
        prop_assert!(verify_consistency(m, old, n, new, &proof));
        prop_assert!(!verify_consistency(m, leaf(0), n, new, &proof));
        prop_assert!(!verify_consistency(m, old, n, leaf(0), &proof));
        prop_assert!(!verify_consistency(m, old, n, new, &[proof.as_slice(), &[old]].concat()));
        if !proof.is_empty() {
            prop_assert!(!verify_consistency(m, old, n, new, &proof[1..]));
            let all = proof.len() as u64 * 256;
            flip(&mut proof, bit % all);
            prop_assert!(!verify_consistency(m, old, n, new, &proof));
        }
        prop_assert!(plan_consistency(n + 1, n).is_none() && plan_consistency(0, n).is_none());
    }

    #[test]
    fn tiles_hold_every_node(n in 1_u64..70_000, from in any::<u64>()) {
        // Leaves are cheap here: what a node hashes to does not matter to where it lies.
        for node in subtrees(0, n).into_iter().chain(plan_inclusion(from % n, n).unwrap().needs()) {
            let tile = Tile::of(node);
            let below = n >> (8 * u32::from(tile.level));
            let width = (below - tile.index * TILE_WIDTH).min(TILE_WIDTH);
            let hashes: Vec<Digest> = (0..width).map(|i| leaf(i + tile.index * TILE_WIDTH)).collect();
            let up = node.level % 8;
            let first = node.index << up;
            let part: Vec<Digest> = (first..first + (1 << up)).map(leaf).collect();
            prop_assert_eq!(tile.hash(&hashes, node), Some(mth(&part)));
        }
        let of_partial: u64 = partial_tiles(n).iter().map(|(tile, width)| {
            width << (8 * u32::from(tile.level))
        }).sum();
        prop_assert_eq!(of_partial, n);
    }

    #[test]
    fn one_flipped_bit_of_a_note_is_noticed(n in 0_u64..50, bit in any::<usize>()) {
        let toy = Toy(7);
        let note = toy.seal(&leaves(n));
        let good = Checkpoint::open(&note, &toy.key(), &toy).unwrap();
        prop_assert_eq!((good.size, good.root), (n, mth(&leaves(n))));
        let mut bytes = note.clone().into_bytes();
        let at = bit % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(damaged) = String::from_utf8(bytes) {
            prop_assert!(Checkpoint::open(&damaged, &toy.key(), &toy).is_err(), "{}", damaged);
        }
    }

    #[test]
    fn an_entry_is_json_of_one_form(detail in any::<String>(), seq in any::<u64>()) {
        let detail = belay_proto::error_line::printable(&detail);
        let entry = Entry { detail: Some(detail), ..entry(seq) };
        let line = entry.encode();
        prop_assert_eq!(&line, &serde_json::to_string(&entry).unwrap());
        prop_assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
        prop_assert_eq!(seq_of(&line), Some(seq));
        prop_assert!(line.len() <= belay_proto::audit::MAX_ENTRY);
    }

    /// Whatever is done to a list, the differences name each entry that is not where it was.
    #[test]
    fn no_difference_goes_unnamed(n in 1_u64..60, edits in prop::collection::vec(any::<(u8, u64, u64)>(), 1..5)) {
        let signed = leaves(n);
        let mut found = signed.clone();
        for (what, at, to) in edits {
            let at = if found.is_empty() { 0 } else { at as usize % found.len() };
            match what % 4 {
                0 if !found.is_empty() => found[at] = leaf(1_000 + to % 1_000),
                1 if !found.is_empty() => drop(found.remove(at)),
                2 => found.insert(at, leaf(1_000 + to % 1_000)),
                _ if !found.is_empty() => {
                    let one = found.remove(at);
                    found.insert(to as usize % (found.len() + 1), one);
                }
                _ => {}
            }
        }
        let differences = compare(&found, &signed);
        prop_assert_eq!(differences.is_empty(), found == signed);
        for (index, hash) in signed.iter().enumerate().filter(|(_, hash)| !found.contains(hash)) {
            let entry = index as u64 + 1;
            let named = differences.iter().any(|difference| match difference {
                Difference::Changed(changed) => *changed == entry,
                Difference::Removed(range) | Difference::Truncated(range) => range.contains(&entry),
                Difference::Inserted { .. } | Difference::Moved { .. } | Difference::Twice(_) => false,
            });
            prop_assert!(named, "{} {} is missing from {:?}", entry, hash, differences);
        }
    }
}

fn flip(proof: &mut [Digest], bit: u64) {
    let (bit, byte) = (bit % 8, bit / 8);
    proof[byte as usize / 32].0[byte as usize % 32] ^= 1 << bit;
}

#[test]
fn an_entry_and_a_checkpoint_are_written_as_they_always_were() {
    let device = "0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f80".parse().unwrap();
    let full = Entry {
        user: Some("0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f81".parse().unwrap()),
        user_name: Some("anna".into()),
        device: Some(device),
        device_name: Some("pump-17".into()),
        session: Some("0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f82".parse().unwrap()),
        login: Some("root".into()),
        code: Some("not-allowed".into()),
        detail: Some("say \"x\\y\"".into()),
        source: Some("192.0.2.7".into()),
        ..entry(3)
    };
    assert_eq!(
        full.encode(),
        r#"{"seq":3,"at":1795716003,"kind":"line-up","user":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f81","user_name":"anna","device":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f80","device_name":"pump-17","session":"0197a3c2-9c52-7ee3-9f20-5b4c3d6e7f82","login":"root","code":"not-allowed","detail":"say \"x\\y\"","source":"192.0.2.7"}"#
    );
    assert_eq!(line(1), r#"{"seq":1,"at":1795716001,"kind":"line-up","detail":"number 1"}"#);
    let toy = Toy(7);
    let text = "relay.test/belay-audit\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    assert!(toy.seal(&[]).starts_with(&format!("{text}\n\u{2014} relay.test/belay-audit ")));
    let vkey = toy.key().to_string();
    assert_eq!(vkey.parse::<VerifierKey>().unwrap(), toy.key());
    assert!(vkey.replace("+0", "+1").parse::<VerifierKey>().is_err() || !vkey.contains("+0"));
    assert!("a b+00000000+AQ==".parse::<VerifierKey>().is_err());
}

#[test]
fn notes_of_other_keys_and_other_texts_are_refused_with_the_reason() {
    let (toy, other) = (Toy(7), Toy(8));
    let note = toy.seal(&leaves(3));
    let by = open(&note, &other.key(), &other).unwrap_err();
    assert!(matches!(&by, NoteError::OtherKey { by } if by.contains("relay.test")), "{by}");
    let longer = note.replace("\n3\n", "\n4\n");
    assert_eq!(open(&longer, &toy.key(), &toy), Err(NoteError::Signature));
    for bad in ["", "\n\n", "text\n", "text\n\nno dash\n", &note[..note.len() - 1]] {
        assert_eq!(open(bad, &toy.key(), &toy), Err(NoteError::Malformed), "{bad:?}");
    }
    let cosigned = format!("{note}\u{2014} witness.test AAAAAAAA\n");
    assert!(open(&cosigned, &toy.key(), &toy).is_ok(), "a witness may sign as well");
    let kept = format!("{note}\n{cosigned}\n{note}");
    assert_eq!(notes(&kept), [note.clone(), cosigned, note]);
}

/// A review of these lines, with these hashes and checkpoints.
fn review(lines: &[String], hashes: &[Digest], own: &[String], elsewhere: &[String]) -> Report {
    let mut review = Review::new(Toy(7).key());
    lines.iter().for_each(|line| review.entry(line));
    review.leaves(hashes);
    own.iter().for_each(|note| review.checkpoint(note, &Toy(7)));
    elsewhere.iter().for_each(|note| review.checkpoint_from_elsewhere(note, &Toy(7)));
    review.finish()
}

const N: u64 = 20;

fn whole() -> (Vec<String>, Vec<Digest>, Vec<String>) {
    let all = leaves(N);
    let own = vec![Toy(7).seal(&all[..8]), Toy(7).seal(&all)];
    ((1..=N).map(line).collect(), all, own)
}

#[test]
fn a_copy_nobody_touched_is_proven_whole() {
    let (lines, hashes, own) = whole();
    let report = review(&lines, &hashes, &own, &[Toy(7).seal(&hashes[..13])]);
    assert_eq!((report.findings.as_slice(), report.proven), ([].as_slice(), N));
    assert_eq!(report.checkpoint.unwrap().size, N);
    assert_eq!(review(&lines, &hashes, &[], &[]).findings, [Finding::NothingSigned]);
    let more: Vec<String> = (1..=N + 2).map(line).collect();
    assert_eq!(review(&more, &hashes, &own, &[]).findings, [Finding::Unproven { first: 21 }]);
}

#[test]
fn what_was_done_to_a_copy_is_named_by_entry() {
    type Edit = fn(&mut Vec<String>);
    let edits: [(Edit, Vec<Difference>); 7] = [
        (|l| l[11] = l[11].replace("number", "numbed"), vec![Difference::Changed(12)]),
        (|l| drop(l.remove(11)), vec![Difference::Removed(12..13)]),
        (|l| l.insert(12, line(99)), vec![Difference::Inserted { after: 12, count: 1 }]),
        (|l| l.truncate(17), vec![Difference::Truncated(18..21)]),
        (|l| l.swap(4, 5), vec![Difference::Moved { entry: 6, after: 4 }]),
        (|l| l.insert(3, l[9].clone()), vec![Difference::Twice(10)]),
        (|l| drop(l.drain(2..6)), vec![Difference::Removed(3..7)]),
    ];
    for (edit, expected) in edits {
        let (mut lines, hashes, own) = whole();
        edit(&mut lines);
        let findings = review(&lines, &hashes, &own, &[]).findings;
        // Who has seen the log before does not take the touched copy for another log.
        let witness = [Toy(7).seal(&hashes[..13]), Toy(7).seal(&hashes)];
        assert_eq!(review(&lines, &hashes, &own, &witness).findings, findings);
        let expected: Vec<_> = expected.into_iter().map(Finding::Differs).collect();
        assert!(findings.len() == expected.len(), "{findings:?} {expected:?}");
        if findings != expected {
            // Of two neighbours that changed places either may be called the one that moved.
            let moved = |finding: &Finding| finding.to_string().contains("moved");
            assert!(findings.iter().all(moved), "{findings:?}");
        }
    }
}

#[test]
fn with_the_hashes_rewritten_too_the_place_is_bounded_by_checkpoints_and_numbers() {
    let (mut lines, _, own) = whole();
    lines[11] = lines[11].replace("number", "numbed");
    let forged: Vec<Digest> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
    let report = review(&lines, &forged, &own, &[]);
    assert_eq!(report.findings, [Finding::Altered { first: 9, last: 20 }]);
    assert_eq!(report.proven, 8);

    let (mut lines, mut forged, own) = whole();
    lines.remove(11);
    forged.remove(11);
    let findings = review(&lines, &forged, &own, &[]).findings;
    assert_eq!(findings.first(), Some(&Finding::Misnumbered { place: 12, says: Some(13) }));

    let (mut lines, mut forged, own) = whole();
    lines.truncate(17);
    forged.truncate(17);
    let cut = Finding::Differs(Difference::Truncated(18..21));
    assert_eq!(review(&lines, &forged, &own, &[]).findings, [cut]);

    let (lines, mut forged, own) = whole();
    forged[3] = leaf(77);
    assert_eq!(review(&lines, &forged, &own, &[]).findings, [Finding::HashChanged(4)]);
}

#[test]
fn a_rewritten_history_shows_against_a_checkpoint_from_elsewhere() {
    let (_, all, _) = whole();
    let witness = [Toy(7).seal(&all[..5]), Toy(7).seal(&all[..13]), Toy(7).seal(&all)];
    // The relay's owner has the key: changes entry 10 and signs all anew.
    let mut lines: Vec<String> = (1..=N).map(line).collect();
    lines[9] = line(10).replace("number", "numbed");
    let forged: Vec<Digest> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
    let own = [Toy(7).seal(&forged)];
    assert!(review(&lines, &forged, &own, &[]).findings.is_empty(), "by itself it is flawless");
    let findings = review(&lines, &forged, &own, &witness).findings;
    assert!(findings.contains(&Finding::OtherHistory { size: 13, agree: 5 }), "{findings:?}");
    assert!(findings.contains(&Finding::Forked { size: N }), "{findings:?}");
    // Or goes back to an earlier state, with its checkpoint.
    let short = [Toy(7).seal(&all[..9])];
    let lines: Vec<String> = (1..=9).map(line).collect();
    let findings = review(&lines, &all[..9], &short, &witness).findings;
    assert_eq!(findings, [Finding::Shorter { have: 9, signed: 13 }]);
    // Or signs with another key.
    let (lines, hashes, _) = whole();
    let findings = review(&lines, &hashes, &[Toy(8).seal(&hashes)], &[]).findings;
    assert!(matches!(findings.first(), Some(Finding::OtherKey { .. })), "{findings:?}");
}

#[test]
fn texts_may_be_missing_as_far_as_an_entry_of_the_log_says_and_no_further() {
    let said = |kind: &str, seq: u64, detail: String| {
        Entry { kind: kind.to_owned(), detail: Some(detail), ..bare(seq) }.encode()
    };
    let pruning = said("log-pruned", 20, pruned_detail(12, 365));
    assert_eq!(pruned_upto(&pruning), Some(12));
    // A peer's words in another entry are no such entry.
    for other in [
        said("login-refused", 20, pruned_detail(12, 365)),
        said("log-pruned\",\"detail\":\"entries up to 12 ", 20, String::new()),
        said("x", 20, format!("\"kind\":\"log-pruned\",\"detail\":\"{}", pruned_detail(12, 1))),
        line(3),
        String::new(),
    ] {
        assert_eq!(pruned_upto(&other), None, "{other}");
    }

    let mut lines: Vec<String> = (1..20).map(line).collect();
    lines.push(pruning);
    let hashes: Vec<Digest> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
    let without = |blank: &[usize]| {
        let mut review = Review::new(Toy(7).key());
        for (place, line) in lines.iter().enumerate() {
            if blank.contains(&place) {
                review.pruned(hashes[place]);
            } else {
                review.entry(line);
            }
        }
        review.leaves(&hashes);
        review.checkpoint(&Toy(7).seal(&hashes), &Toy(7));
        review.finish()
    };
    let report = without(&[0, 3, 11]);
    assert_eq!((report.findings, report.pruned, report.proven), (vec![], 3, 20));
    let report = without(&[3, 12, 14]);
    assert_eq!(report.findings, [Finding::Blank { first: 13, last: 15 }]);
    // A hash that is not the one that was signed is found as a text would be.
    let mut review = Review::new(Toy(7).key());
    review.pruned(leaf_hash(b"another"));
    lines[1..].iter().for_each(|line| review.entry(line));
    review.leaves(&hashes);
    review.checkpoint(&Toy(7).seal(&hashes), &Toy(7));
    assert_eq!(review.finish().findings, [Finding::Differs(Difference::Changed(1))]);
}

/// An entry of nobody and nothing.
fn bare(seq: u64) -> Entry {
    Entry {
        seq,
        at: UnixTime(1_795_716_000),
        kind: String::new(),
        user: None,
        user_name: None,
        device: None,
        device_name: None,
        session: None,
        login: None,
        code: None,
        detail: None,
        source: None,
    }
}
