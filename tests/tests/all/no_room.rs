//! A relay whose disk takes no recordings: a device keeps what it can, and a session that must be recorded ends
//! when it cannot be, with words that say so; then there is room again, and nothing that was kept is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};

use crate::recording::{last_session, whole};
use crate::recording_input::relay_with;

/// More than a device holds back, however it is compressed.
const FLOOD: &str = "head -c 100000000 /dev/urandom | base64; echo through";

/// A disk of its own under the relay's recordings.
struct Disk(PathBuf);

impl Disk {
    /// Too small for a recording.
    fn full_under(world: &World) -> Result<Self> {
        let place = world.relay_data().join("recordings");
        mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"], &place)?;
        Ok(Self(place))
    }

    fn has_room(&self) -> Result<()> {
        mount(&["-o", "remount,size=1g"], &self.0)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = Command::new("umount").arg("-l").arg(&self.0).status() {
            println!("umount: {error}");
        }
    }
}

fn mount(options: &[&str], place: &Path) -> Result<()> {
    let mounted = Command::new("mount").args(options).arg(place).status().context("mount")?;
    ensure!(mounted.success(), "mount {options:?}: {mounted}");
    Ok(())
}

#[test]
fn a_session_that_must_be_recorded_ends_when_it_cannot_be_and_says_so() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let disk = Disk::full_under(&world)?;
    relay_with(&mut world, "recording = \"required\"")?;
    let ended = run(&mut world.belay(&["exec", DEVICE, "--", FLOOD]))?.expect_status(255)?;
    ensure!(!ended.stdout.contains("through"), "it went on");
    ensure!(ended.stderr.contains("must be recorded"), "{}", ended.stderr);
    let id = last_session(&world)?;
    // What is little has room all the same: it was not this session that filled the spool.
    run(&mut world.belay(&["exec", DEVICE, "--", "echo in"]))?.success()?;

    disk.has_room()?;
    whole(&world, &id)?;
    let played = run(&mut world.belay(&["play", &id, "--text"]))?.success()?.stdout;
    ensure!(played.len() > 10_000_000, "{} bytes of it are there", played.len());
    ensure!(played.contains("must be recorded"), "it does not say why it ended");
    Ok(())
}

#[test]
fn a_session_that_is_recorded_as_well_as_it_can_be_goes_on_without_room() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let disk = Disk::full_under(&world)?;
    relay_with(&mut world, "recording = \"best-effort\"")?;
    let done = run(&mut world.belay(&["exec", DEVICE, "--", FLOOD]))?.success()?;
    ensure!(done.stdout.ends_with("through\n"), "it did not get through");
    let id = last_session(&world)?;
    disk.has_room()?;
    whole(&world, &id)?;
    let report = run(&mut world.belay(&["evidence", &id, "-o", "/dev/null"]))?;
    println!("{}{}", report.stdout, report.stderr);
    Ok(())
}
