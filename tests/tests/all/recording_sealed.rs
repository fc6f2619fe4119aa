//! Where recordings are sealed, the relay and the device's disk have what they cannot read, and the
//! auditor's key opens it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};
use serde_json::Value;

/// A key of the test's own, as `age-keygen` writes it, and one that nothing is sealed to.
const AUDITOR: &str = "AGE-SECRET-KEY-17SJUPCYYMQHSDXT8TZYF0FFVRX9J29RZAH4WGQ3DQ0XVL8JZED8Q93YJY4";
const RECIPIENT: &str = "age1nls7n0encn3gqgy0mx2w0lhupyrxvwuttu034awed5svhnvn3c3srf7yrw";
const STRANGER: &str = "AGE-SECRET-KEY-1STRANGER";

const SECRET: &str = "the-valve-code-is-4711";

/// Its relay has what is recorded from now on sealed to the auditor.
pub(crate) fn sealing(world: &mut World) -> Result<()> {
    let config = world.relay_data().join("relay.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}recording_recipients = [\"{RECIPIENT}\"]\n"))?;
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()?;
    world.wait_for("the device greets the relay that seals", || {
        run(&mut world.belay(&["exec", DEVICE, "--", "true"])).map(|done| done.success().is_ok())
    })
}

/// The file of the auditor's secret key.
pub(crate) fn auditor(world: &World) -> Result<String> {
    let key = world.path("auditor.age");
    std::fs::write(&key, format!("# public key: {RECIPIENT}\n{AUDITOR}\n"))?;
    Ok(key.to_str().context("path")?.to_owned())
}

/// Whether any file below a directory has this in it.
fn is_below(dir: &Path, text: &str) -> Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if is_below(&path, text)? {
                return Ok(true);
            }
            continue;
        }
        // A socket is no file.
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_sealed_recording_is_read_by_its_auditor_and_by_nobody_on_the_way() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    sealing(&mut world)?;
    let said = format!("echo {SECRET}; echo oh >&2; exit 3");
    run(&mut world.belay(&["exec", DEVICE, "--", &said]))?.expect_status(3)?;
    let decisions = world.decisions()?;
    let opened = decisions.iter().rev().find(|decision| decision.kind == "session-opened");
    let id = opened.and_then(|opened| opened.session).context("no session")?.to_string();
    let mut listed = Value::Null;
    world.wait_for("the recording is whole", || {
        let all = world.belay_json(&["play"])?;
        listed = all
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["session"] == *id)
            .cloned()
            .unwrap_or_default();
        Ok(listed["state"] == "whole")
    })?;
    ensure!(listed["user"] == "admin", "what the relay knows stays readable: {listed}");
    ensure!(!is_below(&world.relay_data().join("recordings"), SECRET)?, "the relay's disk has it");
    ensure!(!is_below(&world.device_state(DEVICE), SECRET)?, "the device's disk has it");

    // Without a key: that it is whole, and what it would take.
    let known = world.belay_json(&["play", &id])?;
    ensure!(known["sealed"] == true && known["state"] == "whole", "{known}");
    let locked = run(&mut world.belay(&["play", &id, "--text"]))?.expect_status(1)?;
    ensure!(locked.stderr.contains("--identity"), "{}", locked.stderr);
    ensure!(locked.stdout.is_empty(), "{}", locked.stdout);

    let key = auditor(&world)?;
    let text = run(&mut world.belay(&["play", &id, "--text", "--identity", &key]))?.success()?;
    for part in [SECRET, "oh", "exit status 3", "opened kind=exec"] {
        ensure!(text.stdout.contains(part), "{part} is not in {}", text.stdout);
    }
    // A copy, sealed as it is, and the key from the environment.
    let saved = world.path("saved");
    let saved = saved.to_str().context("path")?;
    run(&mut world.belay(&["play", &id, "--save", saved]))?.success()?;
    let mut copy = world.belay(&["play", saved, "--text"]);
    copy.env("BELAY_IDENTITY", &key);
    ensure!(run(&mut copy)?.success()?.stdout.contains(SECRET), "the copy does not open");

    std::fs::write(&key, STRANGER)?;
    let refused = run(&mut world.belay(&["play", &id, "--text", "--identity", &key]))?;
    ensure!(refused.expect_status(1)?.stderr.contains("no AGE-SECRET-KEY"), "a key that is none");
    Ok(())
}

#[test]
fn a_recipient_that_is_none_stops_the_relay_with_a_line() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    world.relay()?.kill()?;
    world.relay = None;
    let config = world.relay_data().join("relay.toml");
    let text = std::fs::read_to_string(&config)?;
    for (wrong, why) in
        [(RECIPIENT.replace("nls7", "nls8"), "mistyped"), (AUDITOR.to_owned(), "secret")]
    {
        std::fs::write(&config, format!("{text}recording_recipients = [\"{wrong}\"]\n"))?;
        let mut relay = world.command("relay", belay_tests::world::binary("belay-relay"));
        relay.arg("run").arg("--data").arg(world.relay_data());
        let said = run(&mut relay)?.expect_status(1)?;
        ensure!(said.stderr.contains(why), "{}", said.stderr);
        ensure!(!said.stderr.contains("7SJUPCYYMQHSDXT8TZY"), "a secret key is in the log");
    }
    Ok(())
}
