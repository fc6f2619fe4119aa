//! Other people's sessions, while they run: listed, watched, ended with a reason.

use std::time::{Duration, Instant};

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
        let told = told(&world, &id)?;
        // A client that had not heard of it yet may have asked for the session once more.
        let rest = told.strip_prefix(order.map(str::to_owned).as_slice());
        let rest = rest.with_context(|| format!("{told:?}"))?;
        ensure!(rest.iter().all(|kind| kind == "session-refused"), "{told:?}");
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

#[test]
fn sessions_are_listed_as_they_stand_and_as_they_were() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "admin"])?;
    world.add_user("ida", &["--role", "auditor"])?;
    run(&mut world.belay_as("olga", &["exec", DEVICE, "--", "true"]))?.success()?;
    over(&world)?;
    let command = world.belay(&["exec", DEVICE, "--", "echo begun; exec sleep 600"]);
    let mut running = world.lab.spawn("running", command)?;
    running.wait_for_log("begun", Duration::from_secs(20))?;
    let id = session(&world, true)?;
    let ids = |flags: &[&str]| -> Result<Vec<(String, String)>> {
        let listed = run(&mut world.belay_as("ida", &[&["sessions", "--json"], flags].concat()))?;
        let listed = listed.success()?.json()?;
        let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let rows = listed.as_array().context("no list")?.iter();
        Ok(rows.map(|one| (word(one, "id"), word(one, "user"))).collect())
    };
    let admins = vec![(id.clone(), "admin".to_owned())];
    ensure!(ids(&[])? == admins, "{:?}", ids(&[])?);
    ensure!(ids(&["--state", "attached", "--device", DEVICE, "--login", "root"])? == admins);
    for none in [["--user", "olga"], ["--state", "detached"], ["--device", "other"]] {
        ensure!(ids(&none)?.is_empty(), "{none:?}");
    }
    let all = ids(&["--all"])?;
    ensure!(all.len() == 2 && all[0] == admins[0] && all[1].1 == "olga", "{all:?}");
    ensure!(ids(&["--all", "--limit", "1"])? == admins, "the newest first");
    ensure!(ids(&["--state", "ended", "--since", "1h"])? == all[1..], "{all:?}");
    let shown = run(&mut world.belay_as("ida", &["sessions", "--all"]))?.success()?.stdout;
    ensure!(shown.contains("ended: it ended") && shown.contains("attached"), "{shown}");
    ensure!(world.recorded("evidence-read", None)?, "that it was read is not on record");
    run(&mut world.belay(&["kill", &id, "--reason", "done"]))?.success()?;
    running.wait(Duration::from_secs(5))?;
    Ok(())
}

#[test]
fn an_auditor_sees_what_the_engineer_sees_some_seconds_later_and_the_end() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("ida", &["--role", "auditor"])?;
    let desk = Desk::new(&world)?;
    desk.window("one", &world.belay(&["shell", DEVICE]))?;
    desk.shows("one", "#")?;
    let id = session(&world, true)?;
    let watch = world.belay_as("ida", &["watch", id.get(..30).context("id")?]);
    desk.window_of("watch", &watch, &world.home("ida"))?;
    desk.keys("one", &["printf '\\033[31mfi''rst\\033[0m\\n'", "Enter"])?;
    desk.shows("one", "first")?;
    let began = Instant::now();
    desk.shows("watch", "first")?;
    ensure!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    desk.shows("watch", "live")?;
    // Full screen, drawn from the middle of it.
    desk.keys("one", &["vim -u NONE -N", "Enter"])?;
    desk.keys("one", &["i", "words of mine"])?;
    desk.shows("watch", "words of mine")?;
    let listed = run(&mut world.belay(&["sessions"]))?.success()?.stdout;
    ensure!(listed.contains("watched by ida"), "{listed}");
    desk.keys("one", &["Escape", ":q!", "Enter"])?;
    desk.keys("one", &["exit 7", "Enter"])?;
    desk.shows("watch", "ended with 7")?;
    desk.shows("watch", "recording whole")?;
    desk.keys("watch", &["q"])?;
    ensure!(desk.status("watch")? == "0", "status {}", desk.status("watch")?);
    ensure!(desk.status("one")? == "7", "watching touched it");
    let read = world.decisions()?.into_iter().filter(|one| {
        one.kind == "evidence-read" && one.session.is_some_and(|session| session.to_string() == id)
    });
    ensure!(read.count() == 1, "one record covers ten minutes");
    Ok(())
}

#[test]
fn watching_outlives_a_device_that_goes_away_and_a_relay_that_is_restarted() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let go_on = world.path("go-on");
    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.1; done; echo go''ne on; exec sleep 600",
        go_on.display()
    );
    let command = world.belay(&["exec", DEVICE, "--", &script]);
    let mut running = world.lab.spawn("running", command)?;
    running.wait_for_log("begun", Duration::from_secs(20))?;
    let id = session(&world, true)?;
    let mut watch = world.lab.spawn("watch", world.belay(&["watch", &id, "--text"]))?;
    watch.wait_for_log("begun", Duration::from_secs(20))?;
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    world.agents.remove(DEVICE);
    watch.wait_for_log("has no line", Duration::from_secs(60))?;
    world.relay()?.kill()?;
    world.relay = None;
    watch.wait_for_log("trying again", Duration::from_secs(20))?;
    world.start_relay()?;
    world.start_agent(DEVICE, "device")?;
    world.wait_online(DEVICE)?;
    std::fs::write(&go_on, "")?;
    watch.wait_for_log("gone on", Duration::from_secs(30))?;
    run(&mut world.belay(&["kill", &id, "--reason", "seen enough"]))?.success()?;
    let ended = watch.wait(Duration::from_secs(30))?;
    ensure!(ended.code() == Some(0), "{}", watch.log());
    ensure!(watch.log().contains("recording is"), "{}", watch.log());
    // A client to whom nobody speaks finds out by its keep-alive, each 20 s, that its relay was killed.
    running.wait(Duration::from_secs(40))?;
    let again = run(&mut world.belay(&["watch", &id]))?.expect_status(1)?;
    ensure!(again.stderr.contains(&format!("belay play {id}")), "{}", again.stderr);
    Ok(())
}

#[test]
fn who_reads_no_evidence_watches_nobody_and_nothing_that_was_changed_is_shown() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("eve", &["--role", "engineer", "--label", "site=oslo", "--login", "root"])?;
    let command = world.belay(&["exec", DEVICE, "--", "echo begun; exec sleep 600"]);
    let mut running = world.lab.spawn("running", command)?;
    running.wait_for_log("begun", Duration::from_secs(20))?;
    let id = session(&world, true)?;
    let refused = run(&mut world.belay_as("eve", &["watch", &id]))?.expect_status(1)?;
    ensure!(refused.stderr.contains("no such session"), "{}", refused.stderr);
    world.wait_for("something of it is there", || {
        let all = world.belay_json(&["play"])?;
        let of = all.as_array().into_iter().flatten().find(|one| one["session"] == id.as_str());
        Ok(of.is_some_and(|of| of["segments"].as_u64() > Some(1)))
    })?;
    let named = format!("{id}.belay");
    let days = std::fs::read_dir(world.relay_data().join("recordings"))?;
    let mut files = days.flatten().map(|day| day.path().join(&named));
    let file = files.find(|file| file.exists()).context("no recording")?;
    let mut bytes = std::fs::read(&file)?;
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes)?;
    let broken = run(&mut world.belay(&["watch", &id, "--text"]))?.expect_status(1)?;
    ensure!(broken.stderr.contains("segment"), "{}", broken.stderr);
    running.kill()?;
    Ok(())
}
