#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
use belay_proto::ids::DeviceId;
use belay_proto::recording::file::{Head, split};
use belay_proto::recording::{Chain, Segment, SignedSegment, VERSION, digest};
use belay_proto::wire::frame::decode_payload;
use belay_tunnel::pki::TlsKey;
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use super::*;

/// A device of a deployment.
struct Device {
    tls: TlsKey,
    key: Arc<DeviceKey>,
    ca: CertificateDer<'static>,
}

fn device(n: u128) -> Device {
    let dir = tempfile::tempdir().unwrap();
    let now = belay_tunnel::clock::now();
    let authority = crate::ca::Authority::make(dir.path(), "127.0.0.1", now).unwrap();
    let tls = TlsKey::generate().unwrap();
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let host: ssh_key::PrivateKey = ssh_key::private::Ed25519Keypair::from_seed(&seed).into();
    let host = host.public_key().to_openssh().unwrap();
    let id = DeviceId::from_uuid(Uuid::from_u128(n));
    let name = "pump".parse().unwrap();
    let issued =
        authority.issue_device(id, &name, &tls.request_der().unwrap(), &host, now).unwrap();
    let key = Arc::new(DeviceKey::issued(issued.certificate, authority.ca()).unwrap());
    Device { tls, key, ca: authority.ca().clone() }
}

fn session() -> SessionId {
    SessionId::from_uuid(Uuid::now_v7())
}

impl Device {
    /// Segments 0 to `count`; the last one ends the recording.
    fn recorded(&self, session: SessionId, count: u64) -> Vec<Vec<u8>> {
        let mut before = [0; 32];
        let segments = (0..count).map(|number| {
            let segment = Segment {
                version: VERSION,
                session,
                device: self.key.device(),
                number,
                before: before.to_vec().into(),
                track: 0,
                first_ms: 1,
                last_ms: 2,
                compressed: None,
                sealed: None,
                end: (number + 1 == count).then_some(End::Whole),
                payload: b"[0.0,\"b\",\"{}\"]\n".to_vec().into(),
                key: None,
            };
            let (encoded, signed) = self.tls.sign_segment(&segment).unwrap();
            before = digest(&encoded);
            signed
        });
        segments.collect()
    }
}

/// Reads a file as an auditor does.
fn verified(device: &Device, bytes: &[u8]) -> Chain {
    let (head, mut rest) = split(bytes).unwrap();
    let head: Head = decode_payload(head).unwrap();
    let certificate = CertificateDer::from(head.certificate.to_vec());
    let key = DeviceKey::issued(certificate, &device.ca).unwrap();
    let mut chain = Chain::new(head.session, key.device());
    while let Some((record, after)) = split(rest) {
        chain.take(record, &key).unwrap();
        rest = after;
    }
    assert!(rest.is_empty());
    chain
}

#[tokio::test]
async fn segments_are_kept_once_in_their_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (device, session) = (device(1), session());
    let segments = device.recorded(session, 4);
    let all = Recordings::open(dir.path()).unwrap();
    assert!(all.is_new(session));
    for (number, signed) in segments.iter().enumerate() {
        for again in [false, true] {
            let kept = all.keep(session, &device.key, signed.clone()).await.unwrap();
            assert_eq!((kept.number, kept.again), (number as u64, again));
        }
    }
    assert!(!all.is_new(session));
    let standing = all.standing(session).unwrap().unwrap();
    assert_eq!((standing.last, standing.end), (Some(3), Some(End::Whole)));
    assert_eq!(all.list().unwrap(), std::slice::from_ref(&standing));
    let bytes = all.page(session, 0).unwrap().unwrap();
    assert_eq!(bytes.len() as u64, standing.bytes);
    assert!(all.page(session, standing.bytes).unwrap().unwrap().is_empty());
    let chain = verified(&device, &bytes);
    assert_eq!((chain.segments(), chain.end()), (4, Some(End::Whole)));
}

#[tokio::test]
async fn another_relay_goes_on_where_the_last_one_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (device, session) = (device(1), session());
    let segments = device.recorded(session, 6);
    let first = Recordings::open(dir.path()).unwrap();
    for signed in &segments[..3] {
        first.keep(session, &device.key, signed.clone()).await.unwrap();
    }
    drop(first);
    let path = file::path(&dir.path().join(DIR), session);
    let whole = std::fs::read(&path).unwrap();
    let mut next = whole.clone();
    belay_proto::recording::file::append(&segments[3], &mut next);
    // The power goes after any byte of the fourth segment.
    for torn in (whole.len()..next.len()).step_by(17) {
        std::fs::write(&path, &next[..torn]).unwrap();
        let after = Recordings::open(dir.path()).unwrap();
        let standing = after.standing(session).unwrap().unwrap();
        assert_eq!(standing.last, Some(2), "{torn}");
        let kept = after.keep(session, &device.key, segments[3].clone()).await.unwrap();
        assert_eq!((kept.number, kept.again), (3, false));
        assert_eq!(std::fs::read(&path).unwrap(), next);
    }
    let after = Recordings::open(dir.path()).unwrap();
    for signed in &segments[3..] {
        after.keep(session, &device.key, signed.clone()).await.unwrap();
    }
    let chain = verified(&device, &std::fs::read(&path).unwrap());
    assert_eq!((chain.segments(), chain.end()), (6, Some(End::Whole)));
}

#[tokio::test]
async fn what_is_not_the_next_of_its_recording_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let other = device(2);
    let (device, session) = (device(1), session());
    let segments = device.recorded(session, 3);
    let all = Recordings::open(dir.path()).unwrap();
    all.keep(session, &device.key, segments[0].clone()).await.unwrap();

    let skipped = all.keep(session, &device.key, segments[2].clone()).await;
    assert!(matches!(skipped, Err(KeepError::Chain(ChainError::Broken(2)))), "{skipped:?}");

    let mut changed: SignedSegment = decode_payload(&segments[1]).unwrap();
    *changed.segment.last_mut().unwrap() ^= 1;
    let changed = minicbor::to_vec(&changed).unwrap();
    let changed = all.keep(session, &device.key, changed).await;
    assert!(matches!(changed, Err(KeepError::Chain(ChainError::Signature(1)))), "{changed:?}");

    let foreign = all.keep(session, &other.key, other.recorded(session, 3)[1].clone()).await;
    assert!(matches!(foreign, Err(KeepError::Foreign(_))), "{foreign:?}");

    all.keep(session, &device.key, segments[1].clone()).await.unwrap();
    all.keep(session, &device.key, segments[2].clone()).await.unwrap();
    assert_eq!(all.standing(session).unwrap().unwrap().end, Some(End::Whole));
}

/// How far a file is what its device signed.
#[derive(Clone)]
struct Sound {
    chain: Chain,
    bytes: usize,
}

impl Sound {
    /// Nothing but the head.
    fn head(device: &Device, session: SessionId, bytes: &[u8]) -> Self {
        let (_, rest) = split(bytes).unwrap();
        Self { chain: Chain::new(session, device.key.device()), bytes: bytes.len() - rest.len() }
    }

    /// Goes on, up to this segment or the first that is not the next.
    fn on(&self, device: &Device, bytes: &[u8], until: u64) -> Self {
        let mut sound = self.clone();
        while sound.chain.next() < until
            && let Some((record, rest)) = split(&bytes[sound.bytes..])
            && sound.chain.take(record, device.key.as_ref()).is_ok()
        {
            sound.bytes = bytes.len() - rest.len();
        }
        sound
    }
}

/// A power cut is an end after which the disk has of what was not acknowledged a part, or garbage.
/// `BELAY_CUTS=1000` cuts so often, `BELAY_SEED=n` takes a series again.
#[tokio::test]
async fn acknowledged_segments_survive_power_cuts_with_torn_writes() {
    let mut chance = crate::testing::Chance::from_environment();
    let dir = tempfile::tempdir().unwrap();
    let device = device(1);
    let (session, mut before, mut signed) = (session(), [0; 32], Vec::new());
    let path = file::path(&dir.path().join(DIR), session);
    let (mut kept, mut torn, mut sound) = (0, 0, None);
    let cuts = crate::testing::number("BELAY_CUTS", 60);
    for cut in 0..=cuts {
        let all = Recordings::open(dir.path()).unwrap();
        // What a device has told of, and tells of again until it is acknowledged.
        let wanted = kept + 1 + chance.below(4) as usize;
        let on_its_way = wanted + 1 + chance.below(3) as usize;
        while signed.len() < on_its_way {
            let ends = cut == cuts && signed.len() + 1 == on_its_way;
            let segment = Segment {
                version: VERSION,
                session,
                device: device.key.device(),
                number: signed.len() as u64,
                before: before.to_vec().into(),
                track: 0,
                first_ms: 1,
                last_ms: 2,
                compressed: None,
                sealed: None,
                end: ends.then_some(End::Whole),
                payload: vec![b'x'; chance.below(9_000) as usize].into(),
                key: None,
            };
            let (encoded, bytes) = device.tls.sign_segment(&segment).unwrap();
            before = digest(&encoded);
            signed.push(bytes);
        }
        let until = if cut == cuts { on_its_way } else { wanted };
        while kept < until {
            let together = (kept + 1 + chance.below(2) as usize).min(until);
            let answers = all.keep_all(session, &device.key, signed[kept..together].to_vec()).await;
            let bytes = std::fs::read(&path).unwrap();
            let before = sound.get_or_insert_with(|| Sound::head(&device, session, &bytes));
            let there = before.on(&device, &bytes, u64::MAX).chain.next();
            for answer in answers {
                let answer = answer.unwrap_or_else(|error| panic!("cut {cut}: {error}"));
                assert!(answer.number >= kept as u64, "cut {cut}: {answer:?}");
                assert!(answer.number < there, "cut {cut}: what is not there was answered for");
            }
            *before = before.on(&device, &bytes, together as u64);
            kept = together;
        }
        drop(all);
        let mut bytes = std::fs::read(&path).unwrap();
        let acknowledged = sound.as_ref().unwrap();
        // Of the last cut's, some may be there, and something torn that the device has not sent again yet.
        let there = acknowledged.on(&device, &bytes, u64::MAX);
        if there.bytes == bytes.len() {
            let there = usize::try_from(there.chain.next()).unwrap();
            for signed in signed.iter().take(on_its_way).skip(there) {
                belay_proto::recording::file::append(signed, &mut bytes);
            }
        }
        torn += usize::from(chance.tears(&mut bytes, acknowledged.bytes));
        std::fs::write(&path, &bytes).unwrap();
    }
    let file = std::fs::read(&path).unwrap();
    let chain = verified(&device, &file);
    assert_eq!((chain.segments(), chain.end()), (signed.len() as u64, Some(End::Whole)));
    println!("{cuts} cuts, {torn} of them torn, {} segments", signed.len());
}

#[tokio::test]
async fn a_damaged_segment_stays_in_its_place_and_what_is_behind_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let (device, session) = (device(1), session());
    let segments = device.recorded(session, 7);
    let all = Recordings::open(dir.path()).unwrap();
    all.keep_all(session, &device.key, segments[..5].to_vec()).await;
    drop(all);
    let path = file::path(&dir.path().join(DIR), session);
    let mut bytes = std::fs::read(&path).unwrap();
    let payload = b"{}";
    let places = bytes.windows(payload.len()).enumerate();
    let third = places.filter(|(_, window)| window == payload).nth(2).unwrap().0;
    bytes[third] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let all = Recordings::open(dir.path()).unwrap();
    // All five were acknowledged, so the sixth is next.
    for signed in &segments[5..] {
        let kept = all.keep(session, &device.key, signed.clone()).await.unwrap();
        assert!(!kept.again);
    }
    let after = std::fs::read(&path).unwrap();
    assert!(after.starts_with(&bytes), "nothing of what was there is gone");
    assert_eq!(all.standing(session).unwrap().unwrap().end, Some(End::Whole));
}
