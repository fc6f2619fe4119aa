//! Two people at one terminal: real programs, each at a terminal of their own that can be looked at.

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};
use serde_json::Value;

use crate::attach::{Desk, over, session};
use crate::resume::workers;

/// A host at a shell in window `host`, an engineer `olga`, an auditor `ida`; the host's session.
fn at_work(world: &World, desk: &Desk<'_>) -> Result<String> {
    run(&mut world.belay(&["device", "label", DEVICE, "site=oslo"]))?.success()?;
    world.add_user("olga", &["--role", "engineer", "--label", "site=oslo", "--login", "root"])?;
    world.add_user("ida", &["--role", "auditor"])?;
    desk.window("host", &world.belay(&["shell", DEVICE]))?;
    desk.shows("host", "#")?;
    session(world, true)
}

fn joins(desk: &Desk<'_>, world: &World, name: &str, flags: &[&str]) -> Result<()> {
    let command = world.belay(&[&["join"], flags].concat());
    desk.window_of(name, &command, &world.home("olga"))
}

/// The one session that joins this one, as its person sees it.
fn guest_of(world: &World, host: &str) -> Result<String> {
    let listed = run(&mut world.belay_as("olga", &["sessions", "--json"]))?.success()?.json()?;
    let all = listed.as_array().context("no list")?;
    let guest = all.iter().find(|one| one["joins"]["session"] == host);
    Ok(guest.and_then(|one| one["id"].as_str()).context("nobody joins it")?.to_owned())
}

fn told(world: &World, id: &str) -> Result<Vec<(String, String)>> {
    let decisions = world.decisions()?.into_iter();
    let own = decisions.filter(|one| one.session.is_some_and(|session| session.to_string() == id));
    Ok(own.map(|one| (one.kind, one.detail.unwrap_or_default())).collect())
}

#[test]
fn two_people_see_and_type_in_one_terminal_and_each_is_told_of_the_other() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    let host = at_work(&world, &desk)?;
    desk.keys("host", &["echo be''fore", "Enter"])?;
    desk.shows("host", "before")?;
    joins(&desk, &world, "guest", &[&host[..30]])?;
    desk.shows("guest", "before")?;
    for name in ["host", "guest"] {
        desk.shows(name, "[belay] olga joined (may type), with admin")?;
    }
    desk.keys("guest", &["echo gu''est", "Enter"])?;
    desk.keys("host", &["echo ho''st", "Enter"])?;
    for name in ["host", "guest"] {
        desk.shows(name, "guest")?;
        desk.shows(name, "host")?;
    }
    // Both programs are the one shell.
    desk.keys("host", &["X=from-the-host", "Enter"])?;
    desk.keys("guest", &["echo \"<$X>\"", "Enter"])?;
    desk.shows("host", "<from-the-host>")?;
    desk.shows("guest", "<from-the-host>")?;

    let guest = guest_of(&world, &host)?;
    let listed = world.belay_json(&["sessions"])?;
    let all = listed.as_array().context("no list")?;
    let one = all.iter().find(|one| one["id"] == *host).context("no host")?;
    ensure!(one["joined_by"][0]["user"] == "olga", "{one}");
    ensure!(one["joined_by"][0]["may_type"] == Value::Bool(true), "{one}");
    let opened = told(&world, &guest)?;
    let opened = opened.iter().find(|(kind, _)| kind == "session-opened").context("not opened")?;
    ensure!(opened.1 == format!("ssh: join; session {host} of admin: may type"), "{opened:?}");
    ensure!(told(&world, &host)?.iter().any(|(kind, detail)| kind == "session-joined"
        && *detail == format!("olga joined admin in session {guest}: may type")));

    // The guest leaves by the escape: the host goes on.
    desk.keys("guest", &["Enter", "~."])?;
    ensure!(desk.status("guest")? == "255", "status {}", desk.status("guest")?);
    desk.shows("host", "[belay] olga left")?;
    desk.keys("host", &["echo on''ly", "Enter"])?;
    desk.shows("host", "only")?;
    world.wait_for("the guest's worker is gone", || Ok(workers(&world)? == 1))?;

    // With the terminal joining it ends.
    joins(&desk, &world, "again", &[&host])?;
    desk.shows("again", "olga joined")?;
    desk.keys("again", &["exit 7", "Enter"])?;
    ensure!(desk.status("host")? == "7", "status {}", desk.status("host")?);
    desk.shows("again", "[belay] the session's terminal has ended")?;
    ensure!(desk.status("again")? == "0", "status {}", desk.status("again")?);
    over(&world)?;
    let agent = world.agents.get(DEVICE).context("no agent")?.log();
    ensure!(agent.contains("guest joined") && agent.contains("guest left"), "{agent}");
    // What happened is in both recordings, and who was there in the host's.
    for id in [&host, &guest] {
        world.wait_for("it is recorded", || {
            let played = run(&mut world.belay_as("ida", &["play", id, "--text"]))?;
            Ok(played.stdout.contains("<from-the-host>"))
        })?;
    }
    Ok(())
}

#[test]
fn who_looks_on_types_nothing_and_the_smallest_window_counts() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    let host = at_work(&world, &desk)?;
    joins(&desk, &world, "guest", &[&host, "--read-only"])?;
    desk.shows("host", "[belay] olga joined (looks on), with admin")?;
    desk.shows("guest", "olga joined")?;
    desk.keys("guest", &["echo ev''il", "Enter"])?;
    desk.shows("guest", "you look on: what you type goes nowhere")?;
    desk.keys("host", &["echo go''od", "Enter"])?;
    desk.shows("host", "good")?;
    desk.shows("guest", "good")?;
    ensure!(!desk.screen("host")?.contains("evil"), "{}", desk.screen("host")?);
    desk.resize("guest", 60, 20)?;
    let size = |wanted: &str| {
        world.wait_for(wanted, || {
            desk.keys("host", &["clear; stty size", "Enter"])?;
            Ok(desk.screen("host")?.contains(wanted))
        })
    };
    size("20 60")?;
    desk.keys("guest", &["Enter", "~."])?;
    desk.shows("host", "olga left")?;
    size("24 80")?;
    Ok(())
}

#[test]
fn a_guest_and_a_host_are_ended_apart_from_each_other() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let socket = {
        let desk = Desk::new(&world)?;
        let host = at_work(&world, &desk)?;
        joins(&desk, &world, "guest", &[&host])?;
        desk.shows("host", "olga joined")?;
        let guest = guest_of(&world, &host)?;
        run(&mut world.belay(&["kill", &guest, "--reason", "enough"]))?.success()?;
        ensure!(desk.status("guest")? == "255", "status {}", desk.status("guest")?);
        desk.shows("guest", "admin ended this session: enough")?;
        desk.shows("host", "[belay] olga left")?;
        joins(&desk, &world, "second", &[&host])?;
        desk.shows("second", "olga joined")?;
        desk.leave()
    };
    // Neither notices that the agent is another.
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    world.agents.remove(DEVICE);
    world.start_agent(DEVICE, "device")?;
    world.wait_online(DEVICE)?;
    let desk = Desk::again(&world, socket);
    desk.keys("second", &["echo st''ill", "Enter"])?;
    desk.shows("second", "still")?;
    desk.shows("host", "still")?;
    let listed = world.belay_json(&["sessions"])?;
    let all = listed.as_array().context("no list")?;
    let host = all.iter().find(|one| one["joined_by"].is_array()).context("no host")?;
    let host = host["id"].as_str().context("no id")?;
    run(&mut world.belay(&["kill", host, "--reason", "closing time"]))?.success()?;
    ensure!(desk.status("host")? == "255", "status {}", desk.status("host")?);
    let why = "admin's session is over: \"admin ended this session: closing time\"";
    desk.shows("second", &format!("[belay] {why}"))?;
    ensure!(desk.status("second")? == "0", "status {}", desk.status("second")?);
    over(&world)?;
    world.wait_for("the workers are gone", || Ok(workers(&world)? == 0))
}

#[test]
fn who_may_not_join_is_told_why_or_nothing() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    let host = at_work(&world, &desk)?;
    world.add_user("eve", &["--role", "engineer", "--label", "site=bergen", "--login", "root"])?;
    let refused = run(&mut world.belay_as("eve", &["join", &host]))?.expect_status(255)?;
    ensure!(refused.stderr.contains("there is no open session"), "{}", refused.stderr);
    let refused = run(&mut world.belay_as("ida", &["join", &host]))?.expect_status(255)?;
    ensure!(refused.stderr.contains("an auditor's role opens no session"), "{}", refused.stderr);
    let flags = ["join", &host, "--terminal", "3"];
    let refused = run(&mut world.belay_as("olga", &flags))?.expect_status(255)?;
    ensure!(refused.stderr.contains("no terminal 3; it has 1 (shell)"), "{}", refused.stderr);
    ensure!(!desk.screen("host")?.contains("[belay]"), "{}", desk.screen("host")?);
    Ok(())
}
