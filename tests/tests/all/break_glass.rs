//! Where sessions must be recorded and a device cannot, whoever may says why and gets in, and everybody
//! hears of it.

use anyhow::{Context as _, Result, ensure};
use belay_relay::store::Decision;
use belay_tests::world::{DEVICE, World, run};

use crate::attach::{Desk, session};
use crate::recording::last_session;
use crate::recording_input::relay_with;

const REASON: &str = "pump 17 stands still, asked by the shift";

/// The device's supervisor finds no place to keep recordings in: it says that it records nothing.
fn without_a_place(world: &mut World) -> Result<()> {
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    let place = world.device_state(DEVICE).join("recordings");
    std::fs::remove_dir_all(&place)?;
    std::fs::write(&place, "no directory")?;
    world.start_agent(DEVICE, "device")?;
    world.wait_online(DEVICE)
}

/// A deployment where sessions must be recorded and the device cannot, an engineer `eve`, and `eli`, who may
/// break the glass.
fn unrecorded() -> Result<Option<World>> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(None) };
    relay_with(&mut world, "recording = \"required\"")?;
    without_a_place(&mut world)?;
    run(&mut world.belay(&["device", "label", DEVICE, "site=oslo"]))?.success()?;
    let role = ["--role", "engineer", "--label", "site=oslo", "--login", "root"];
    world.add_user("eve", &role)?;
    world.add_user("eli", &[&role[..], &["--break-glass"]].concat())?;
    Ok(Some(world))
}

/// What is on record of a session first.
fn first_of(world: &World, id: &str) -> Result<Decision> {
    let of = |one: &Decision| one.session.is_some_and(|session| session.to_string() == id);
    world.decisions()?.into_iter().find(of).context("nothing on record")
}

#[test]
fn a_session_that_cannot_be_recorded_is_had_for_a_reason_and_is_an_alarm() -> Result<()> {
    let Some(world) = unrecorded()? else { return Ok(()) };
    let command = ["exec", DEVICE, "--", "echo in"];
    let refused = run(&mut world.belay_as("eli", &command))?.expect_status(255)?;
    ensure!(refused.stderr.contains("must be recorded"), "{}", refused.stderr);
    let breaking = ["exec", DEVICE, "--break-glass", REASON, "--", "echo in"];
    let refused = run(&mut world.belay_as("eve", &breaking))?.expect_status(255)?;
    ensure!(refused.stderr.contains("break the glass"), "{}", refused.stderr);
    ensure!(world.recorded("session-refused", Some("not-allowed"))?, "it is not on record");

    let done = run(&mut world.belay_as("eli", &breaking))?.success()?;
    ensure!(done.stdout == "in\n" && done.stderr.contains("audit log"), "{}", done.stderr);
    let id = last_session(&world)?;
    let first = first_of(&world, &id)?;
    ensure!(first.kind == "break-glass" && first.detail.as_deref() == Some(REASON), "{first:?}");

    // Plain ssh, by the environment.
    let mut ssh = world.openssh("ssh")?;
    ssh.env("BELAY_BREAK_GLASS", REASON).arg(format!("root@{DEVICE}.belay")).arg("echo by-ssh");
    let done = run(&mut ssh)?.success()?;
    ensure!(done.stdout == "by-ssh\n" && done.stderr.contains("break-glass"), "{}", done.stderr);

    let listed = run(&mut world.belay(&["sessions", "--all", "--break-glass"]))?.success()?.stdout;
    ensure!(listed.matches("GLASS BROKEN").count() == 2 && listed.contains(REASON), "{listed}");
    let tail = run(&mut world.belay(&["audit", "tail", "-n", "50"]))?.success()?.stdout;
    ensure!(tail.contains("break-glass") && tail.contains(REASON), "{tail}");
    Ok(())
}

#[test]
fn whoever_joins_one_that_cannot_be_recorded_says_why_as_well() -> Result<()> {
    let Some(world) = unrecorded()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    desk.window("host", &world.belay(&["shell", DEVICE, "--break-glass", REASON]))?;
    desk.shows("host", "#")?;
    let host = session(&world, true)?;
    let refused = run(&mut world.belay_as("eli", &["join", &host]))?.expect_status(255)?;
    ensure!(refused.stderr.contains("--break-glass"), "{}", refused.stderr);
    let mut short = world.belay_as("eli", &["join", &host]);
    let refused = run(short.env("BELAY_BREAK_GLASS", "because"))?.expect_status(255)?;
    ensure!(refused.stderr.contains("--break-glass"), "{}", refused.stderr);
    let breaking = ["join", &host, "--break-glass", "anna asked me in, pump 17"];
    let refused = run(&mut world.belay_as("eve", &breaking))?.expect_status(255)?;
    ensure!(refused.stderr.contains("break the glass"), "{}", refused.stderr);

    desk.window_of("guest", &world.belay(&breaking), &world.home("eli"))?;
    desk.shows("host", "eli joined (may type)")?;
    desk.keys("guest", &["echo gu''est", "Enter"])?;
    desk.shows("host", "guest")?;
    let listed = run(&mut world.belay_as("eli", &["sessions", "--json"]))?.success()?.json()?;
    let all = listed.as_array().context("no list")?;
    let guest = all.iter().find(|one| one["joins"]["session"] == host).context("nobody joins")?;
    let first = first_of(&world, guest["id"].as_str().context("no id")?)?;
    let detail = first.detail.as_deref();
    ensure!(
        first.kind == "break-glass" && detail == Some("anna asked me in, pump 17"),
        "{first:?}"
    );
    Ok(())
}
