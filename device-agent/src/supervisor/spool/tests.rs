#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
use belay_proto::grant::VerifySignature as _;
use belay_proto::recording::{Segment, SignedSegment};
use belay_proto::wire::frame::decode_payload;
use uuid::Uuid;

use super::*;

fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

fn spool(state: &Path, pem: &str) -> Spool {
    let device = DeviceId::from_uuid(Uuid::from_u128(9));
    Spool::open(state, TlsKey::from_pem(pem).unwrap(), device).unwrap()
}

fn pem() -> String {
    TlsKey::generate().unwrap().to_pem().to_string()
}

fn told(number: u64, length: usize, end: bool) -> Recorded {
    Recorded {
        number,
        track: 1,
        first_ms: 1,
        last_ms: 2,
        compressed: None,
        end: end.then_some(true),
        payload: vec![b'x'; length].into(),
        sealed: None,
        key: None,
    }
}

fn segment(offer: &Offer) -> Segment {
    let signed: SignedSegment = decode_payload(&offer.signed).unwrap();
    decode_payload(&signed.segment).unwrap()
}

/// All that is offered to a relay that has nothing.
fn offered(spool: &Spool) -> Vec<Offer> {
    let (mut sent, mut last, mut all) = (BTreeMap::new(), None, Vec::new());
    while let Some(offer) = spool.offer(&sent, last).unwrap() {
        last = Some(offer.session);
        sent.insert(offer.session, offer.number + 1);
        all.push(offer);
    }
    all
}

#[test]
fn a_segment_is_offered_once_it_is_on_the_disk_and_kept_until_the_relay_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    for number in [0, 1, 1, 0] {
        spool.append(session(1), &told(number, 10, false)).unwrap();
    }
    assert!(offered(&spool).is_empty(), "it is not on the disk yet");
    spool.sync_now().unwrap();
    let all = offered(&spool);
    assert_eq!(all.iter().map(|offer| offer.number).collect::<Vec<_>>(), [0, 1]);
    spool.taken(session(1), 0).unwrap();
    assert_eq!(offered(&spool).len(), 1);
    spool.append(session(1), &told(2, 10, true)).unwrap();
    spool.sync_now().unwrap();
    spool.taken(session(1), 2).unwrap();
    assert_eq!(std::fs::read_dir(&spool.dir).unwrap().count(), 0);
    assert_eq!(spool.lock().bytes, 0);
}

#[test]
fn the_chain_goes_on_after_a_restart_a_torn_write_and_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let pem = pem();
    let path = dir.path().join("recordings").join(format!("{}.segments", session(1)));
    {
        let spool = spool(dir.path(), &pem);
        for number in 0..8 {
            spool.append(session(1), &told(number, 50_000, false)).unwrap();
        }
        spool.sync_now().unwrap();
        spool.taken(session(1), 7).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < ROTATE, "the file is a new one");
        spool.append(session(1), &told(8, 10, false)).unwrap();
        spool.sync_now().unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
    let spool = spool(dir.path(), &pem);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(spool.unended(), [session(1)]);
    // Told again, and then the next.
    spool.append(session(1), &told(8, 10, false)).unwrap();
    spool.cut(session(1), 77_000).unwrap();
    spool.sync_now().unwrap();
    let all: Vec<_> = offered(&spool).iter().map(segment).collect();
    let numbers: Vec<_> = all.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [7, 8, 9]);
    assert_eq!(all[2].end, Some(End::Cut));
    for pair in all.windows(2) {
        let digest = belay_proto::recording::digest(&minicbor::to_vec(&pair[0]).unwrap());
        assert_eq!(*pair[1].before, digest);
    }
    assert!(spool.unended().is_empty());
}

#[test]
fn a_full_spool_turns_segments_away_but_not_a_recordings_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), &pem());
    spool.most = 100_000;
    spool.append(session(1), &told(0, 60_000, false)).unwrap();
    let full = spool.append(session(1), &told(1, 60_000, false));
    assert!(matches!(full, Err(SpoolError::Full)));
    spool.append(session(1), &told(2, 60_000, true)).unwrap();
    spool.sync_now().unwrap();
    assert!(spool.is_full());
    let numbers: Vec<_> = offered(&spool).iter().map(|offer| offer.number).collect();
    assert_eq!(numbers, [0, 2], "what is missing shows");
    assert!(matches!(spool.append(session(2), &told(0, 10, false)), Err(SpoolError::Full)));
}

#[test]
fn sessions_take_turns_and_one_the_relay_refuses_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    for number in 0..3 {
        spool.append(session(1), &told(number, 10, false)).unwrap();
        spool.append(session(2), &told(number, 10, false)).unwrap();
    }
    spool.sync_now().unwrap();
    let turns: Vec<_> = offered(&spool).iter().map(|offer| offer.session).collect();
    assert_eq!(turns, [1, 2, 1, 2, 1, 2].map(session));
    spool.reject(session(1)).unwrap();
    let left: Vec<_> = offered(&spool).iter().map(|offer| offer.session).collect();
    assert_eq!(left, [2, 2, 2].map(session));
    let rejected = spool.append(session(1), &told(3, 10, false));
    assert!(matches!(rejected, Err(SpoolError::Rejected)));
}

/// A power cut is an end after which the disk has of what was not brought to it a part, or garbage.
/// `BELAY_CUTS=1000` cuts so often, `BELAY_SEED=n` takes a series again.
#[test]
fn segments_on_the_disk_survive_power_cuts_with_torn_writes() {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed: u64 = number("BELAY_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("BELAY_SEED={seed}");
    let mut state = seed | 1;
    let mut chance = move |below: u64| {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (dir, pem) = (tempfile::tempdir().unwrap(), pem());
    let key = TlsKey::from_pem(&pem).unwrap();
    let cuts = number("BELAY_CUTS").unwrap_or(60);
    let mut torn = 0;
    for cut in 0..cuts {
        let one = session(u128::from(cut) + 1);
        let path = dir.path().join("recordings").join(format!("{one}.segments"));
        let (on_disk, taken) = {
            let spool = spool(dir.path(), &pem);
            let on_disk = 1 + chance(9);
            for number in 0..on_disk {
                spool.append(one, &told(number, chance(60_000) as usize, false)).unwrap();
            }
            spool.sync_now().unwrap();
            // The relay has some, which may begin a new file.
            let taken = chance(on_disk + 1);
            if taken > 0 {
                spool.taken(one, taken - 1).unwrap();
            }
            let synced = std::fs::metadata(&path).unwrap().len() as usize;
            for number in on_disk..on_disk + 1 + chance(3) {
                spool.append(one, &told(number, chance(9_000) as usize, false)).unwrap();
            }
            drop(spool);
            let mut bytes = std::fs::read(&path).unwrap();
            let tail = (bytes.len() - synced) as u64;
            let mut place = || synced + chance(tail + 1) as usize;
            let (from, to) = (place(), place());
            match chance(4) {
                0 => {}
                1 => bytes.truncate(from),
                kind => {
                    for byte in &mut bytes[from.min(to)..from.max(to)] {
                        *byte = if kind == 2 { 0 } else { chance(256) as u8 };
                    }
                }
            }
            torn += usize::from(bytes != std::fs::read(&path).unwrap());
            std::fs::write(&path, &bytes).unwrap();
            (on_disk, taken)
        };
        let spool = spool(dir.path(), &pem);
        // As for any worker that is gone.
        spool.cut(one, 77_000).unwrap();
        spool.sync_now().unwrap();
        let all = offered(&spool);
        let mut head = None;
        let mut numbers = Vec::new();
        for offer in &all {
            let signed: SignedSegment = decode_payload(&offer.signed).unwrap();
            let bytes = belay_proto::recording::signed_bytes(&signed.segment);
            assert!(key.verify(&bytes, &signed.signature), "cut {cut}: {}", offer.number);
            let segment = segment(offer);
            assert!(head.is_none_or(|head| *segment.before == head), "cut {cut}");
            head = Some(belay_proto::recording::digest(&signed.segment));
            numbers.push(offer.number);
        }
        for number in taken..on_disk {
            assert!(numbers.contains(&number), "cut {cut}: {number} was lost of {numbers:?}");
        }
        assert_eq!(segment(all.last().unwrap()).end, Some(End::Cut), "cut {cut}");
        spool.taken(one, *numbers.last().unwrap()).unwrap();
        assert!(!path.exists(), "cut {cut}");
    }
    println!("{cuts} cuts, {torn} of them torn");
}
