#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
use belay_proto::grant::VerifySignature as _;
use belay_proto::recording::{Segment, SignedSegment};
use belay_proto::wire::frame::decode_payload;
use uuid::Uuid;

use super::*;

pub(super) fn session(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

pub(super) fn spool(state: &Path, pem: &str) -> Spool {
    let device = DeviceId::from_uuid(Uuid::from_u128(9));
    Spool::open(state, TlsKey::from_pem(pem).unwrap(), device).unwrap()
}

pub(super) fn pem() -> String {
    TlsKey::generate().unwrap().to_pem().to_string()
}

pub(super) fn told(number: u64, length: usize, end: bool) -> Recorded {
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
pub(super) fn offered(spool: &Spool) -> Vec<Offer> {
    let (mut sent, mut last, mut all) = (BTreeMap::new(), None, Vec::new());
    while let Some(offer) = spool.offer(&sent, last) {
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
    spool.sync_now();
    let all = offered(&spool);
    assert_eq!(all.iter().map(|offer| offer.number).collect::<Vec<_>>(), [0, 1]);
    spool.taken(session(1), 0).unwrap();
    assert_eq!(offered(&spool).len(), 1);
    spool.append(session(1), &told(2, 10, true)).unwrap();
    spool.sync_now();
    spool.taken(session(1), 2).unwrap();
    assert_eq!(std::fs::read_dir(&spool.dir).unwrap().count(), 0);
    assert_eq!(spool.lock().bytes(), 0);
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
        spool.sync_now();
        spool.taken(session(1), 7).unwrap();
        spool.sync_now();
        assert!(std::fs::metadata(&path).unwrap().len() < ROTATE, "the file is a new one");
        spool.append(session(1), &told(8, 10, false)).unwrap();
        spool.sync_now();
    }
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
    let spool = spool(dir.path(), &pem);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(spool.unended(), [session(1)]);
    // Told again, and then the next.
    spool.append(session(1), &told(8, 10, false)).unwrap();
    spool.cut(session(1), 77_000).unwrap();
    spool.sync_now();
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
    spool.bounds = Bounds { most: 100_000, little: 0, rotate: ROTATE };
    spool.append(session(1), &told(0, 60_000, false)).unwrap();
    let full = spool.append(session(1), &told(1, 60_000, false));
    assert!(matches!(full, Err(SpoolError::Full)));
    spool.append(session(1), &told(2, 60_000, true)).unwrap();
    spool.sync_now();
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
    spool.sync_now();
    let turns: Vec<_> = offered(&spool).iter().map(|offer| offer.session).collect();
    assert_eq!(turns, [1, 2, 1, 2, 1, 2].map(session));
    spool.reject(session(1)).unwrap();
    let left: Vec<_> = offered(&spool).iter().map(|offer| offer.session).collect();
    assert_eq!(left, [2, 2, 2].map(session));
    let rejected = spool.append(session(1), &told(3, 10, false));
    assert!(matches!(rejected, Err(SpoolError::Rejected)));
}

/// Xorshift (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// What a power cut may leave of a file of which so much was on the disk.
    fn tear(&mut self, bytes: &mut Vec<u8>, on_disk: usize) {
        let tail = (bytes.len() - on_disk) as u64;
        let mut place = || on_disk + self.below(tail + 1) as usize;
        let (from, to) = (place(), place());
        match self.below(4) {
            0 => {}
            1 => bytes.truncate(from),
            kind => {
                for byte in &mut bytes[from.min(to)..from.max(to)] {
                    *byte = if kind == 2 { 0 } else { self.below(256) as u8 };
                }
            }
        }
    }
}

/// One recording, until the power goes.
struct Life<'a> {
    spool: &'a Spool,
    session: SessionId,
    path: PathBuf,
    /// The number of the next segment.
    next: u64,
    /// Of the file, what is on the disk.
    on_disk: usize,
}

impl Life<'_> {
    fn append(&mut self, count: u64, most: u64, dice: &mut Dice) {
        for _ in 0..count {
            let length = dice.below(most) as usize;
            self.spool.append(self.session, &told(self.next, length, false)).unwrap();
            self.next += 1;
        }
    }

    fn sync(&mut self) {
        self.spool.sync_now();
        self.on_disk = std::fs::metadata(&self.path).unwrap().len() as usize;
    }

    /// What a power cut leaves.
    fn torn(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = std::fs::read(&self.path).unwrap();
        dice.tear(&mut bytes, self.on_disk);
        bytes
    }

    /// Begins a new file as far as `step`; what a power cut leaves then.
    fn rotate(&mut self, step: u64, dice: &mut Dice) -> Vec<u8> {
        let scratch = self.path.with_extension("new");
        let mut rotation = self.spool.begin_rotation(self.session).unwrap().unwrap();
        rotation.copy().unwrap();
        let copied = std::fs::metadata(&scratch).unwrap().len() as usize;
        self.append(dice.below(3), 9_000, dice);
        if step == 0 {
            let mut half = std::fs::read(&scratch).unwrap();
            drop(rotation);
            assert!(!scratch.exists());
            dice.tear(&mut half, 0);
            std::fs::write(&scratch, half).unwrap();
            return self.torn(dice);
        }
        // Of the name, the old file's may be on the disk for a while.
        let old = self.torn(dice);
        self.spool.end_rotation(self.session, rotation).unwrap();
        assert!(self.spool.lock().recordings[&self.session].frames.is_dirty(), "it needs its name");
        self.on_disk = copied;
        self.append(dice.below(3), 9_000, dice);
        if step == 1 && dice.below(2) == 0 {
            return old;
        }
        if step == 2 {
            self.sync();
            self.append(dice.below(3), 9_000, dice);
        }
        self.torn(dice)
    }
}

/// A power cut is an end after which the disk has of what was not brought to it a part, or garbage; and
/// of two files of one name the one or the other. `BELAY_CUTS=1000` cuts so often, `BELAY_SEED=n` takes
/// a series again.
#[test]
fn segments_on_the_disk_survive_power_cuts_with_torn_writes() {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed: u64 = number("BELAY_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("BELAY_SEED={seed}");
    let mut dice = Dice(seed | 1);
    let (dir, pem) = (tempfile::tempdir().unwrap(), pem());
    let key = TlsKey::from_pem(&pem).unwrap();
    let cuts = number("BELAY_CUTS").unwrap_or(60);
    let (mut torn, mut tails) = (0, 0);
    for cut in 0..cuts {
        let one = session(u128::from(cut) + 1);
        let path = dir.path().join("recordings").join(format!("{one}.segments"));
        let (offers, taken) = {
            let mut spool = spool(dir.path(), &pem);
            spool.bounds.rotate = [ROTATE, 60_000, 5_000][dice.below(3) as usize];
            let (session, path) = (one, path.clone());
            let mut life = Life { spool: &spool, session, path, next: 0, on_disk: 0 };
            let mut taken = 0;
            for _ in 0..=dice.below(3) {
                life.append(1 + dice.below(9), 60_000, &mut dice);
                life.sync();
                // The relay has some, which may begin a new file.
                taken += dice.below(life.next - taken + 1);
                if taken > 0 {
                    spool.taken(one, taken - 1).unwrap();
                }
                let before = std::fs::metadata(&life.path).unwrap().len();
                life.sync();
                tails += usize::from((life.on_disk as u64) < before && taken < life.next);
            }
            life.append(dice.below(4), 9_000, &mut dice);
            let left = match dice.below(5) {
                step @ 0..3 => life.rotate(step, &mut dice),
                _ => life.torn(&mut dice),
            };
            // What was offered, the relay may have.
            let offers = offered(&spool).last().map_or(taken, |last| last.number + 1);
            torn += usize::from(left != std::fs::read(&life.path).unwrap());
            std::fs::write(&life.path, &left).unwrap();
            (offers, taken)
        };
        let spool = spool(dir.path(), &pem);
        // As for any worker that is gone.
        spool.cut(one, 77_000).unwrap();
        spool.sync_now();
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
        // With the last that the relay has: what follows names it.
        for number in taken.saturating_sub(1)..offers {
            assert!(numbers.contains(&number), "cut {cut}: {number} was lost of {numbers:?}");
        }
        assert_eq!(segment(all.last().unwrap()).end, Some(End::Cut), "cut {cut}");
        spool.taken(one, *numbers.last().unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(&spool.dir).unwrap().count(), 0, "cut {cut}");
    }
    println!("{cuts} cuts, {torn} of them torn, {tails} new files with what waits");
}
