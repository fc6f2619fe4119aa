//! What a session showed is kept for auditors, whole, whatever happens on the way; and what they are
//! given is what the device signed.

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run, sha256};
use serde_json::Value;

use crate::attach::{Desk, over, session};

/// The recording of a session, once the relay has all of it.
pub(crate) fn whole(world: &World, id: &str) -> Result<Value> {
    let mut found = Value::Null;
    world.wait_for("the recording is whole", || {
        let all = world.belay_json(&["play"])?;
        let of = all.as_array().into_iter().flatten().find(|one| one["session"] == id);
        found = of.cloned().unwrap_or_default();
        Ok(found["state"] == "whole")
    })?;
    Ok(found)
}

pub(crate) fn text(world: &World, id: &str) -> Result<String> {
    Ok(run(&mut world.belay(&["play", id, "--text"]))?.success()?.stdout)
}

/// Any session's id that was opened.
pub(crate) fn last_session(world: &World) -> Result<String> {
    let decisions = world.decisions()?;
    let last = decisions.iter().rev().find(|decision| decision.kind == "session-opened");
    Ok(last.and_then(|last| last.session).context("no session")?.to_string())
}

pub(crate) fn restart_relay(world: &mut World) -> Result<()> {
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()
}

fn restart_agent(world: &mut World) -> Result<()> {
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    world.start_agent(DEVICE, "device")
}

const PASSWORD: &str = "hunter2-is-not-shown";

#[test]
fn a_shell_is_recorded_whole_through_a_killed_relay_and_a_killed_agent() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let socket = {
        let desk = Desk::new(&world)?;
        desk.window("one", &world.belay(&["shell", DEVICE]))?;
        desk.shows("one", "#")?;
        desk.keys(
            "one",
            &["stty -echo; echo rea''dy; read pw; stty echo; echo got-${#pw}", "Enter"],
        )?;
        desk.shows("one", "ready")?;
        desk.keys("one", &[PASSWORD, "Enter"])?;
        desk.shows("one", &format!("got-{}", PASSWORD.len()))?;
        let count = "for n in $(seq 1 60); do echo line-$n; sleep 0.1; done; echo fin''ished";
        desk.keys("one", &[count, "Enter"])?;
        desk.shows("one", "line-5")?;
        desk.leave()
    };
    let id = session(&world, true)?;
    restart_relay(&mut world)?;
    restart_agent(&mut world)?;
    let desk = Desk::again(&world, socket);
    desk.shows("one", "finished")?;
    desk.keys("one", &["exit 7", "Enter"])?;
    ensure!(desk.status("one")? == "7", "status {}", desk.status("one")?);
    over(&world)?;

    let recording = whole(&world, &id)?;
    ensure!(recording["user"] == "admin" && recording["login"] == "root", "{recording}");
    let text = text(&world, &id)?;
    let counted: Vec<_> = text.lines().filter(|line| line.starts_with("line-")).collect();
    let wanted: Vec<_> = (1..=60).map(|n| format!("line-{n}")).collect();
    ensure!(counted == wanted, "{text}");
    ensure!(text.contains("got-20") && text.contains("exit status 7"), "{text}");
    ensure!(!text.contains(PASSWORD), "a password that was not echoed is recorded");
    // What stood on the engineer's screen is what the auditor reads.
    let seen = desk.screen("one")?;
    for line in seen.lines().map(str::trim_end).filter(|line| line.starts_with("line-")) {
        ensure!(text.lines().any(|read| read.trim_end() == line), "{line:?} is not in {text}");
    }
    let proven = world.belay_json(&["play", &id])?;
    ensure!(proven["state"] == "whole" && proven["missing"] == serde_json::json!([]), "{proven}");
    let head = proven["head"].as_str().context("no head")?.to_owned();
    let decisions = world.decisions()?;
    let of = |kind: &str| -> Vec<_> {
        let own = decisions
            .iter()
            .filter(|one| one.session.is_some_and(|session| session.to_string() == id));
        own.filter(|one| one.kind == kind).collect()
    };
    ensure!(!of("recording-started").is_empty(), "its beginning is not on record");
    let ended = of("recording-ended").last().and_then(|ended| ended.detail.clone());
    ensure!(ended.as_ref().is_some_and(|detail| detail.contains(&head)), "{ended:?}, not {head}");
    ensure!(!of("evidence-read").is_empty(), "that somebody read it is not on record");
    Ok(())
}

#[test]
fn a_command_leaves_what_it_wrote_and_a_changed_recording_is_not_shown() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let command = ["exec", DEVICE, "--", "echo to-out; echo to-err >&2; exit 3"];
    run(&mut world.belay(&command))?.expect_status(3)?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let text = text(&world, &id)?;
    for part in ["to-out", "to-err", "exit status 3", "opened kind=exec"] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    let file = world.path("saved");
    let saved = file.to_str().context("path")?;
    run(&mut world.belay(&["play", &id, "--save", saved]))?.success()?;
    run(&mut world.belay(&["play", saved, "--text"]))?.success()?;
    let mut bytes = std::fs::read(&file)?;
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes)?;
    let refused = run(&mut world.belay(&["play", saved, "--text"]))?.expect_status(1)?;
    ensure!(refused.stdout.is_empty() && refused.stderr.contains("segment"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn files_and_forwards_are_told_one_by_one() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let (file, copy) = (world.path("moved"), world.path("moved-copy"));
    std::fs::write(&file, "some content\n".repeat(1000))?;
    let mut scp = world.openssh("scp")?;
    scp.arg(&file).arg(format!("root@{DEVICE}.belay:{}", copy.display()));
    run(&mut scp)?.success()?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let text = text(&world, &id)?;
    let digest = sha256(&file)?;
    for part in ["direction=to-device", "bytes=13000", &digest, "moved-copy", "result=closed"] {
        ensure!(text.contains(part), "{part} is not in {text}");
    }
    let mut through = world.openssh("ssh")?;
    through.args(["-W", "127.0.0.1:9"]).arg(format!("root@{DEVICE}.belay"));
    // Nobody listens there: what counts is that it was asked for.
    run(&mut through)?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let text = self::text(&world, &id)?;
    ensure!(text.contains("opened kind=forward channel=2 detail=127.0.0.1:9"), "{text}");
    Ok(())
}

#[test]
fn who_may_not_read_evidence_is_not_given_any_and_an_auditor_is() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success()?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    world.add_user("eve", &["--role", "engineer", "--label", "site=oslo", "--login", "root"])?;
    let refused = run(&mut world.belay_as("eve", &["play", &id, "--text"]))?.expect_status(1)?;
    ensure!(refused.stderr.contains("roles"), "{}", refused.stderr);
    world.add_user("audrey", &["--role", "auditor"])?;
    run(&mut world.belay_as("audrey", &["play", &id, "--text"]))?.success()?;
    Ok(())
}
