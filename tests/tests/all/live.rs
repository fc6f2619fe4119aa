//! Other people's sessions, while they run: ended with a reason.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};
use serde_json::Value;

use crate::attach::{Desk, over, session};
use crate::resume::workers;

/// Kinds of what is on record of a session itself, in their order.
fn told(world: &World, id: &str) -> Result<Vec<String>> {
    let decisions = world.decisions()?.into_iter();
    let own = decisions.filter(|one| one.session.is_some_and(|session| session.to_string() == id));
    Ok(own.map(|one| one.kind).filter(|kind| kind.starts_with("session-")).collect())
}

/// A program that leaves a file behind when its terminal is closed.
fn hangs(world: &World) -> String {
    let (gone, begun) = (world.path("hung-up"), "be''gun");
    format!("trap 'echo > {}; exit' HUP; echo {begun}; while :; do sleep 0.1; done", gone.display())
}

#[test]
fn a_killed_session_says_who_and_why_and_its_programs_end() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "admin"])?;
    let desk = Desk::new(&world)?;
    let mut ssh = world.openssh("ssh")?;
    let ssh = ssh.arg("-t").arg(format!("root@{DEVICE}.belay"));
    for (name, command) in [("belay", &world.belay(&["shell", DEVICE])), ("ssh", &*ssh)] {
        desk.window(name, command)?;
        desk.shows(name, "#")?;
        desk.keys(name, &[&hangs(&world), "Enter"])?;
        desk.shows(name, "begun")?;
        let id = session(&world, true)?;
        let reason = "pump is taken down";
        let kill = ["kill", id.get(..30).context("id")?, "--reason", reason];
        let said = run(&mut world.belay_as("olga", &kill))?.success()?;
        ensure!(said.stdout.contains(&format!("ended: {id} (admin, root@{DEVICE})")), "{said:?}");
        ensure!(desk.status(name)? == "255", "status {}", desk.status(name)?);
        desk.shows(name, &format!("olga ended this session: {reason}"))?;
        world.wait_for("its program was hung up", || Ok(world.path("hung-up").exists()))?;
        std::fs::remove_file(world.path("hung-up"))?;
        world.wait_for("the worker is gone", || Ok(workers(&world)? == 0))?;
        over(&world)?;
        let order = ["session-opened", "session-killed", "session-closed"];
        ensure!(told(&world, &id)? == order, "{:?}", told(&world, &id)?);
        let gone = run(&mut world.belay(&["attach", &id]))?.expect_status(255)?;
        ensure!(gone.stderr.contains("no open session"), "{}", gone.stderr);
    }
    Ok(())
}

#[test]
fn a_session_killed_while_its_device_was_away_ends_when_the_device_is_back() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let socket = {
        let desk = Desk::new(&world)?;
        desk.window("one", &world.belay(&["shell", DEVICE]))?;
        desk.shows("one", "#")?;
        desk.keys("one", &[&hangs(&world), "Enter"])?;
        desk.shows("one", "begun")?;
        desk.leave()
    };
    let id = session(&world, true)?;
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    world.agents.remove(DEVICE);
    world.wait_offline(DEVICE)?;
    ensure!(workers(&world)? == 1, "the worker did not outlive its agent");
    let killed = world.belay_json(&["kill", &id, "--reason", "seen on site"])?;
    ensure!(killed["device_online"] == Value::Bool(false), "{killed}");
    let desk = Desk::again(&world, socket);
    ensure!(desk.status("one")? == "255", "status {}", desk.status("one")?);
    desk.shows("one", "admin ended this session: seen on site")?;
    ensure!(workers(&world)? == 1 && !world.path("hung-up").exists(), "it ended already");
    drop(desk);
    world.start_agent(DEVICE, "device")?;
    world.wait_for("its program was hung up", || Ok(world.path("hung-up").exists()))?;
    world.wait_for("the worker is gone", || Ok(workers(&world)? == 0))?;
    Ok(())
}

#[test]
fn nobody_ends_another_persons_session_without_the_right_to() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("eve", &["--role", "engineer", "--label", "site=oslo", "--login", "root"])?;
    world.add_user("ida", &["--role", "auditor"])?;
    let command = world.belay(&["exec", DEVICE, "--", "echo begun; exec sleep 600"]);
    let mut running = world.lab.spawn("running", command)?;
    running.wait_for_log("begun", Duration::from_secs(20))?;
    let id = session(&world, true)?;
    for (who, says) in [("eve", "there is no such session"), ("ida", "end-session")] {
        let kill = ["kill", &id, "--reason", "I want to"];
        let refused = run(&mut world.belay_as(who, &kill))?.expect_status(1)?;
        ensure!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    ensure!(running.try_wait()?.is_none(), "it ended");
    // Without a reason not even asked.
    run(&mut world.belay(&["kill", &id]))?.expect_status(2)?;
    run(&mut world.belay(&["kill", &id, "--reason", "done with it"]))?.success()?;
    let ended = running.wait(Duration::from_secs(5))?;
    ensure!(ended.code() == Some(255), "{}", running.log());
    ensure!(running.log().contains("admin ended this session: done with it"), "{}", running.log());
    Ok(())
}
