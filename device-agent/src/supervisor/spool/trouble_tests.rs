#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
//! Floods, a disk that fails, and a relay that wants no more.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

use super::tests::{offered, pem, session, spool, told};
use super::*;

const MIB: u64 = 1024 * 1024;

fn fill(spool: &Spool, of: SessionId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        spool.append(of, &told(number, 60_000, false)).unwrap();
    }
}

fn on_disk(spool: &Spool, of: SessionId) -> u64 {
    std::fs::metadata(spool.dir.join(format!("{of}.segments"))).unwrap().len()
}

#[test]
fn a_flood_of_which_something_always_waits_holds_no_more_than_waits() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    let mut written = 0;
    for number in 0..200 {
        fill(&spool, session(1), number..number + 1);
        written += 60_000;
        spool.sync_now();
        // The last three wait.
        if number >= 3 {
            spool.taken(session(1), number - 3).unwrap();
        }
    }
    spool.sync_now();
    assert!(written > 8 * ROTATE);
    assert!(on_disk(&spool, session(1)) < ROTATE + 5 * 61_000, "{}", on_disk(&spool, session(1)));
    assert_eq!(spool.lock().bytes(), on_disk(&spool, session(1)));
    let numbers: Vec<_> = offered(&spool).iter().map(|offer| offer.number).collect();
    assert_eq!(numbers, [197, 198, 199]);
}

#[test]
fn a_backlog_is_copied_a_few_times_however_slowly_the_relay_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    fill(&spool, session(1), 0..200);
    spool.sync_now();
    let whole = on_disk(&spool, session(1));
    let mut copied = 0;
    for number in 0..200 {
        let before = on_disk(&spool, session(1));
        spool.taken(session(1), number).unwrap();
        spool.sync_now();
        let after = on_disk(&spool, session(1));
        copied += if after < before { after } else { 0 };
    }
    assert!(copied < 2 * whole, "{copied} bytes copied of {whole}");
}

#[test]
fn whose_flood_filled_the_spool_finds_no_room_and_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), &pem());
    spool.bounds.most = MIB;
    fill(&spool, session(2), 0..1);
    let full = (0..40).find(|number| {
        let told = told(*number, 60_000, false);
        matches!(spool.append(session(1), &told), Err(SpoolError::Full))
    });
    assert_eq!(full, Some(16));
    for number in 0..20 {
        spool.append(session(2), &told(number, 1_000, false)).unwrap();
    }
    assert!(!spool.is_full(), "there is room for a session that just begins");
    spool.append(session(3), &told(0, 1_000, false)).unwrap();
    spool.append(session(1), &told(40, 60_000, true)).unwrap();
    spool.bounds.little = 0;
    assert!(spool.is_full(), "nor is that room without an end");
}

/// Whether a future is done when asked once.
fn is_done(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[tokio::test(start_paused = true)]
async fn while_the_relay_takes_segments_a_flood_waits_for_it_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), &pem());
    spool.bounds.most = 2 * MIB;
    fill(&spool, session(1), 0..20);
    fill(&spool, session(2), 0..1);
    spool.sync_now();
    let mut alone = std::pin::pin!(spool.until_taken(session(1), 60_000));
    assert!(is_done(alone.as_mut()), "there is no line");

    let uploading = spool.uploading();
    let mut flood = std::pin::pin!(spool.until_taken(session(1), 60_000));
    assert!(!is_done(flood.as_mut()), "it is ahead of the relay");
    let mut other = std::pin::pin!(spool.until_taken(session(2), 60_000));
    assert!(is_done(other.as_mut()));
    spool.taken(session(1), 12).unwrap();
    let begun = Instant::now();
    flood.await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "the relay has enough of it");

    fill(&spool, session(1), 20..30);
    let mut flood = std::pin::pin!(spool.until_taken(session(1), 60_000));
    assert!(!is_done(flood.as_mut()));
    drop(uploading);
    flood.await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "the line is gone");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_still_has_at_its_end_waits_less_than_its_farewell() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), &pem());
    spool.bounds.most = MIB;
    fill(&spool, session(1), 0..9);
    let (_uploading, begun) = (spool.uploading(), Instant::now());
    for _ in 0..5 {
        // The relay takes nothing.
        spool.until_taken(session(1), 63 * 1024).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_millis(1_000), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn sixty_four_floods_at_once_leave_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(dir.path(), &pem());
    spool.bounds.most = 16 * MIB;
    let _uploading = spool.uploading();
    let mut sent = [0; 64];
    for turn in 0..64 * 50 {
        let of = turn % 64;
        let mut wait = std::pin::pin!(spool.until_taken(session(of as u128), 10_000));
        if is_done(wait.as_mut()) {
            spool.append(session(of as u128), &told(sent[of], 10_000, false)).unwrap();
            sent[of] += 1;
        }
    }
    assert!(sent.iter().all(|sent| *sent > 0));
    assert!(spool.lock().bytes() < 16 * MIB, "{}", spool.lock().bytes());
}

fn sessions(offers: &[Offer]) -> Vec<SessionId> {
    offers.iter().map(|offer| offer.session).collect()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_stops_no_other_recording_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(spool(dir.path(), &pem()));
    fill(&spool, session(1), 0..1);
    fill(&spool, session(2), 0..2);
    spool.sync_now();
    let path = spool.dir.join(format!("{}.segments", session(1)));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let (begun, mut offers) = (Instant::now(), spool.offers());
    assert_eq!(sessions(&offered(&spool)), [2, 2].map(session));
    // Its session hears of it.
    spool.failing(session(1)).await;

    std::fs::write(&path, whole).unwrap();
    let stop = CancellationToken::new();
    let syncing = tokio::spawn(Arc::clone(&spool).keep_synced(stop.clone()));
    let again = async {
        while offered(&spool).len() < 3 {
            offers.changed().await.unwrap();
        }
    };
    tokio::time::timeout(5 * AGAIN, again).await.unwrap();
    assert!((AGAIN..2 * AGAIN).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(spool.lock().recordings.values().all(|kept| kept.aside.is_none()));
    stop.cancel();
    syncing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_the_disk_does_not_take_stops_no_other_and_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    let swap = |file| {
        let mut inner = spool.lock();
        inner.recordings.get_mut(&session(1)).unwrap().frames.swap(file)
    };
    fill(&spool, session(1), 0..1);
    fill(&spool, session(2), 0..1);
    let mut null = std::fs::OpenOptions::new();
    let real = swap(Arc::new(null.read(true).write(true).open("/dev/null").unwrap()));
    spool.sync_now();
    assert_eq!(sessions(&offered(&spool)), [session(2)]);
    assert!(spool.failing(session(1)).await.contains("Invalid argument"));

    // A kernel may drop what it could not write: what is not there is not offered.
    let path = spool.dir.join(format!("{}.segments", session(1)));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![0; whole.len()]).unwrap();
    swap(real);
    tokio::time::advance(AGAIN).await;
    spool.sync_now();
    assert_eq!(sessions(&offered(&spool)), [session(2)]);

    std::fs::write(&path, whole).unwrap();
    tokio::time::advance(AGAIN).await;
    spool.sync_now();
    assert_eq!(sessions(&offered(&spool)), [1, 2].map(session));
}

#[test]
fn a_new_file_that_cannot_be_made_is_not_tried_with_each_segment() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    fill(&spool, session(1), 0..20);
    let scratch = spool.dir.join(format!("{}.new", session(1)));
    std::fs::create_dir(&scratch).unwrap();
    let is_long = || {
        let inner = spool.lock();
        inner.recordings[&session(1)].frames.is_long(ROTATE)
    };
    spool.sync_now();
    spool.taken(session(1), 10).unwrap();
    assert!(is_long());
    spool.sync_now();
    assert!(!is_long(), "it waits for more");
    assert_eq!(offered(&spool).len(), 9, "and the recording goes on");
    std::fs::remove_dir(&scratch).unwrap();
    fill(&spool, session(1), 20..23);
    spool.taken(session(1), 22).unwrap();
    spool.sync_now();
    assert!(on_disk(&spool, session(1)) < ROTATE);
}

#[test]
fn what_the_relay_refuses_takes_no_room_and_is_forgotten_with_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path(), &pem());
    for number in 0..RECORDINGS_MAX as u128 + 10 {
        fill(&spool, session(number), 0..1);
        spool.reject(session(number)).unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let name = spool.dir.join(session(number).to_string());
        let name = name.to_str().unwrap();
        assert_eq!(open.filter(|path| path.to_string_lossy().starts_with(name)).count(), 0);
    }
    assert!(!spool.is_full() && spool.lock().bytes() == 0);
    let rejected = |number, end| {
        let told = told(1, 10, end);
        matches!(spool.append(session(number), &told), Err(SpoolError::Rejected))
    };
    assert!(rejected(0, false) && rejected(1, true));
    assert_eq!(spool.lock().rejected.len(), RECORDINGS_MAX + 9, "the ended one is forgotten");
    for number in 0..RECORDINGS_MAX as u128 + 10 {
        spool.cut(session(number), 77_000).unwrap();
    }
    assert!(spool.lock().rejected.is_empty() && spool.lock().recordings.is_empty());
}

#[test]
fn a_recording_that_cannot_be_read_at_the_start_keeps_no_other_away() {
    let (dir, pem) = (tempfile::tempdir().unwrap(), pem());
    {
        let spool = spool(dir.path(), &pem);
        fill(&spool, session(2), 0..1);
        spool.sync_now();
        // Read, a directory is an error.
        std::fs::create_dir(spool.dir.join(format!("{}.segments", session(1)))).unwrap();
    }
    let spool = spool(dir.path(), &pem);
    assert_eq!(spool.unended(), [session(2)]);
    let disk = spool.append(session(1), &told(0, 10, false));
    assert!(matches!(disk, Err(SpoolError::Disk(_))), "it is not written over");
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_long_recording_is_read_at_the_start_in_little_memory() {
    const ALONE: &str = "BELAY_TEST_ALONE";
    const NAME: &str = "a_long_recording_is_read_at_the_start_in_little_memory";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let alone = alone.arg(NAME).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(alone.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (dir, pem) = (tempfile::tempdir().unwrap(), pem());
    {
        let spool = spool(dir.path(), &pem);
        fill(&spool, session(1), 0..700);
        spool.sync_now();
    }
    let before = peak();
    let spool = spool(dir.path(), &pem);
    assert!(on_disk(&spool, session(1)) > 40 * MIB);
    assert!(peak() < before + 4 * MIB, "{} and {before}", peak());
}
