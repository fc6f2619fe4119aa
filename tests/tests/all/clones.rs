//! A device's disk copied to a second machine, with the real agent on both.

use std::process::Command;

use anyhow::{Result, ensure};
use belay_tests::world::{DEVICE, World, run};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The second machine's state directory, and the name of its process in the lab.
const COPY: &str = "copy";

fn suspected(world: &World) -> Result<bool> {
    Ok(world.device(DEVICE)?.get("clone").is_some_and(|clone| *clone != Value::Null))
}

/// What the device that answers a session says it is.
fn who_answers(world: &World) -> Result<String> {
    let script = "cat /proc/net/fib_trie | grep -c 10.77.1.2";
    Ok(run(&mut world.belay(&["exec", DEVICE, "--", script]))?.stdout)
}

#[test]
fn a_copied_disk_is_noticed_and_the_newer_machine_is_refused_until_somebody_decides() -> Result<()>
{
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let original = who_answers(&world)?;
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(world.device_state(DEVICE)).arg(world.device_state(COPY));
    run(&mut copy)?.success()?;
    world.start_agent(COPY, "laptop")?;
    world.wait_for("the alarm", || suspected(&world))?;
    ensure!(world.recorded("clone-suspected", None)?, "not recorded");
    let shown = run(&mut world.belay(&["devices"]))?.success()?.stdout;
    ensure!(shown.contains("CLONE at 198.18.3."), "{shown}");
    let refused = world.agents.get_mut(COPY).expect("it was started");
    refused.wait_for_log(
        "another machine with this device's key",
        std::time::Duration::from_secs(20),
    )?;
    ensure!(who_answers(&world)? == original, "a session went to the copy");

    // The first machine may restart, killed or in order, while nobody has decided.
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = world.agents.remove(DEVICE).expect("it runs");
        agent.signal(signal)?;
        agent.wait(std::time::Duration::from_secs(20))?;
        world.start_agent(DEVICE, "device")?;
        world.wait_online(DEVICE)?;
        world.wait_for("the first machine answers", || {
            Ok(run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success().is_ok())
        })?;
        ensure!(who_answers(&world)? == original, "a session went to the copy");
    }

    let mut agent = world.agents.remove(COPY).expect("it runs");
    agent.kill()?;
    run(&mut world.belay(&["device", "activate", DEVICE]))?.success()?;
    ensure!(!suspected(&world)?, "the alarm is closed");
    Ok(())
}

#[test]
fn an_agent_that_restarts_or_whose_device_moves_is_never_taken_for_two() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    for signal in [Signal::SIGKILL, Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = world.agents.remove(DEVICE).expect("it runs");
        agent.signal(signal)?;
        agent.wait(std::time::Duration::from_secs(20))?;
        world.start_agent(DEVICE, "device")?;
        world.wait_for("a session", || {
            Ok(run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success().is_ok())
        })?;
    }
    // It gets another address: what comes next comes from elsewhere.
    world.lab.change_address("device")?;
    world.wait_for("a session", || {
        Ok(run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success().is_ok())
    })?;
    ensure!(!suspected(&world)?, "taken for two");
    ensure!(!world.recorded("clone-suspected", None)?, "taken for two");
    Ok(())
}
