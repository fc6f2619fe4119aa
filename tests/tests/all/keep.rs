//! Evidence that is held, deleted and passed on, by the programs themselves.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};

use crate::recording::{last_session, restart_relay, whole};

/// Everything but the recording is in the bundle and holds, and it says where the recording went.
fn evidence_of_what_is_gone(world: &World, id: &str) -> Result<()> {
    let file = world.path("gone.belay-evidence");
    let path = file.to_str().context("path")?;
    run(&mut world.belay_as("ida", &["evidence", id, "-o", path]))?.success()?;
    let verify = ["evidence", "verify", path];
    let found = run(&mut world.belay_as("ida", &verify))?.success()?.stdout;
    for says in [
        "recording  DELETED",
        "by admin: before its time, by admin: request 88",
        "segments 0 to ",
        "of the log proves it",
        "intact: every part is as it was signed; the recording was deleted, and the log proves it",
    ] {
        ensure!(found.contains(says), "{says:?} is not in {found}");
    }
    let json = run(&mut world.belay_as("ida", &[&verify[..], &["--json"]].concat()))?;
    let json = json.success()?.json()?;
    ensure!(json["intact"] == true && json["recording"].is_null(), "{json}");
    ensure!(json["deleted"]["by"] == "admin" && json["deleted"]["state"] == "whole", "{json}");
    let out = world.path("nothing");
    let wanted = [&verify[..], &["--recording", out.to_str().context("path")?]].concat();
    let refused = run(&mut world.belay_as("ida", &wanted))?.expect_status(1)?;
    ensure!(refused.stderr.contains("it was deleted") && !out.exists(), "{}", refused.stderr);
    // Without its tombstone it would be one that was taken away.
    let text = fs::read_to_string(&file)?;
    let stone = |line: &&str| line.contains("recording-deleted");
    ensure!(text.lines().filter(stone).count() == 1, "no tombstone, or two");
    let rest: Vec<&str> = text.lines().filter(|line| !stone(line)).collect();
    fs::write(&file, rest.join("\n") + "\n")?;
    let found = run(&mut world.belay_as("ida", &verify))?.expect_status(1)?.stdout;
    ensure!(found.contains("NOT INTACT") && found.contains("was removed"), "{found}");
    ensure!(found.contains("the recording is missing"), "{found}");
    Ok(())
}

#[test]
fn what_is_held_stays_what_is_deleted_leaves_its_tombstone_and_others_are_told() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let export = world.path("audit.ndjson");
    let config = world.relay_data().join("relay.toml");
    let block = format!(
        "\n[[export]]\nname = \"siem\"\nkind = \"file\"\npath = \"{}\"\n",
        export.display()
    );
    fs::write(&config, fs::read_to_string(&config)? + &block)?;
    restart_relay(&mut world)?;
    world.add_user("ida", &["--role", "auditor"])?;
    world.wait_online(DEVICE)?;
    run(&mut world.belay(&["exec", DEVICE, "--", "echo", "seen"]))?.success()?;
    let id = last_session(&world)?;
    let recording = whole(&world, &id)?;

    let place = ["hold", "--device", DEVICE, "--reason", "case 4711"];
    let placed = run(&mut world.belay_as("ida", &place))?.success()?.stdout;
    ensure!(placed.starts_with("hold 1 on device demo: in force"), "{placed}");
    let delete = ["recording", "delete", &id, "--reason", "request 88"];
    let refused = run(&mut world.belay(&delete))?.expect_status(1)?;
    ensure!(refused.stderr.contains("under legal hold 1: case 4711"), "{}", refused.stderr);
    let release = ["hold", "release", "1", "--reason", "closed"];
    let refused = run(&mut world.belay_as("ida", &release))?.expect_status(1)?;
    ensure!(refused.stderr.contains("none of your roles allows this"), "{}", refused.stderr);
    run(&mut world.belay(&release))?.success()?;
    run(&mut world.belay(&delete))?.success()?;

    let gone = run(&mut world.belay_as("ida", &["play", &id]))?.expect_status(1)?;
    ensure!(gone.stderr.contains("was deleted on"), "{}", gone.stderr);
    ensure!(gone.stderr.contains("by admin: request 88"), "{}", gone.stderr);
    evidence_of_what_is_gone(&world, &id)?;
    let listed = world.belay_json(&["play"])?;
    ensure!(!listed.to_string().contains(&id), "{listed}");
    let segments = recording["segments"].as_u64().context("no segments")?;
    world.wait_for("the tombstone is exported", || {
        let text = fs::read_to_string(&export)?;
        let stone = text.lines().find(|line| line.contains("\"kind\":\"recording-deleted\""));
        let says = format!("last segment {}, SHA-256", segments - 1);
        Ok(stone.is_some_and(|stone| stone.contains(&id) && stone.contains(&says)))
    })?;
    let proven = run(&mut world.belay_as("ida", &["audit", "verify"]))?.success()?.stdout;
    ensure!(proven.starts_with("intact: "), "{proven}");
    Ok(())
}
