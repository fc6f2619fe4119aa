//! A full disk: what must be recorded is refused, everything else goes on, and it heals by itself.
//! Needs to mount a tmpfs; without that right it says so and checks nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use belay_relay::store::{Event, EventKind, StoreError};
use serde_json::json;

use crate::lines::Site;
use crate::recordings::{Way, recorded};
use crate::sessions::{Open1, opened, standard};
use crate::support::Relay;

/// What is mounted, and the directory that is removed behind it, if it was made for it.
struct SmallDisk(PathBuf, Option<tempfile::TempDir>);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Self::over(dir.path()).map(|mut disk| {
            disk.1 = Some(dir);
            disk
        })
    }

    fn over(path: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(path)
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(path.to_owned(), None))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Takes what room is left.
    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = Command::new("umount").arg("-l").arg(self.path()).status() {
            eprintln!("umount: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_reads_go_on_writes_are_refused_and_nothing_acknowledged_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("cannot mount a tmpfs here: not checked");
        return;
    };
    let relay = Relay::start_in(disk.path(), "").await;
    let admin = relay.admin();
    let token = json!({"lives_s": 600, "uses": 1});
    let ballast = disk.fill();
    let mut acknowledged = 0;
    let error = loop {
        let detail = "x".repeat(900);
        match relay.store.record(Event::new(EventKind::LineUp).detail(&detail)).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "the disk never filled");
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");

    assert_eq!(relay.get(&admin, "/v1/whoami").await.status, 200, "reads go on");
    let mut refused = 0;
    for _ in 0..20 {
        let answer = relay.send(&admin, "POST", "/v1/tokens", &token).await;
        if answer.status == 503 {
            assert_eq!(answer.code(), "store-unavailable");
            refused += 1;
        }
    }
    assert!(refused > 0, "what must be recorded is refused");
    let made = relay.decisions().await.iter().filter(|d| d.kind == "token-created").count();
    assert_eq!(made + refused, 20, "made and recorded, or neither");

    fs::remove_file(ballast).unwrap();
    let answer = relay.send(&admin, "POST", "/v1/tokens", &token).await;
    assert_eq!(answer.status, 200, "it heals by itself: {answer:?}");
    let kept = relay.decisions().await.iter().filter(|d| d.kind == "line-up").count();
    assert_eq!(kept, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_has_no_room_has_not_begun_however_often_it_comes() {
    let (site, pump) = standard("").await;
    let device = site.recording_line(&pump, &[]).await;
    let Open1 { id, client: _client, near: _near, far: _far } = opened(&site, &device).await;
    let (segments, _) = recorded(pump.1.key(), &pump, id, 2);
    let begun = async |site: &Site| {
        let decisions = site.store.decisions(0).await.unwrap();
        decisions.iter().filter(|d| d.kind == "recording-started").count()
    };
    let Some(disk) = SmallDisk::over(&site.data().join("recordings")) else {
        eprintln!("cannot mount a tmpfs here: not checked");
        return;
    };
    let mut way = Way::open(&device).await;
    for _ in 0..5 {
        let refused = way.bring(&segments[0]).await.refused.unwrap();
        assert!(refused.to_string().contains("make room on the relay's disk"), "{refused}");
    }
    assert_eq!(begun(&site).await, 0);
    drop(disk);
    assert_eq!(way.bring(&segments[0]).await.number, Some(0));
    assert_eq!(begun(&site).await, 1);
}
