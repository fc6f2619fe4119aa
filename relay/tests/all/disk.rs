//! A full disk: what must be recorded is refused, everything else goes on, and it heals by itself.
//! Needs to mount a tmpfs; without that right it says so and checks nothing.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use belay_relay::store::{Event, EventKind, StoreError};
use serde_json::json;

use crate::support::Relay;

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
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
