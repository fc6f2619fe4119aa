//! Sessions that do not drop: a copy, a synchronisation, somebody typing and a forwarded port go on
//! through every fault, and no byte of them is lost or repeated.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use belay_tests::lab::{Topology, Traffic};
use belay_tests::load::Load;
use belay_tests::world::{DEVICE, World, run};
use nix::sys::signal::Signal;

/// Bytes of each transfer, and the line's rate: a few seconds of transfer for a fault to fall into.
const BYTES: usize = 48 * 1024 * 1024;
const MBIT: u32 = 100;

/// The long ones, and 256 MiB, are for a machine that has the time.
fn soak() -> bool {
    std::env::var_os("BELAY_SOAK").is_some()
}

fn bytes() -> usize {
    if soak() { 256 * 1024 * 1024 } else { BYTES }
}

/// Runs the work through a fault, in the standard world.
fn survives(fault: impl FnOnce(&mut World, &Load) -> Result<()>) -> Result<()> {
    let Some(mut world) = World::new_or_skip(&Topology::default())? else { return Ok(()) };
    world.lab.set_rate("laptop", MBIT, 50)?;
    let load = Load::start(&world, bytes())?;
    let outcome = fault(&mut world, &load).and_then(|()| {
        load.wait_alive()?;
        load.finish()
    });
    if outcome.is_err()
        && let Some(agent) = world.agents.get(DEVICE)
    {
        println!("agent:\n{}", tail(&agent.log()));
        println!("relay:\n{}", tail(&world.relay.as_ref().map(|r| r.log()).unwrap_or_default()));
    }
    outcome
}

pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// How long until the terminal answers again, after the fault is over.
fn back(what: &str, load: &Load) -> Result<()> {
    let took = load.wait_alive()?;
    println!("{what}: bytes flow again after {took:?}");
    Ok(())
}

#[test]
fn through_a_nat_that_forgets_and_gives_other_ports() -> Result<()> {
    survives(|world, load| {
        world.lab.rebind_nat("site")?;
        back("NAT rebinding", load)
    })
}

#[test]
fn through_a_laptop_that_changes_its_address() -> Result<()> {
    survives(|world, load| {
        world.lab.change_address("laptop")?;
        back("client address", load)
    })
}

#[test]
fn through_a_device_that_changes_its_address_and_its_uplink() -> Result<()> {
    survives(|world, load| {
        world.lab.change_address("device")?;
        back("device address", load)?;
        world.lab.set_uplink("device", false)?;
        sleep(Duration::from_secs(3));
        world.lab.set_uplink("device", true)?;
        world.lab.change_address("device")?;
        back("device uplink", load)
    })
}

fn blackhole(length: Duration) -> Result<()> {
    survives(|world, load| {
        for node in ["laptop", "site"] {
            world.lab.cut(Traffic::All, node, "relay")?;
            sleep(length);
            world.lab.heal()?;
            back(&format!("{length:?} blackhole before {node}"), load)?;
        }
        Ok(())
    })
}

#[test]
fn through_short_blackholes_on_either_side() -> Result<()> {
    blackhole(Duration::from_secs(2))
}

#[test]
fn through_blackholes_of_a_minute() -> Result<()> {
    blackhole(Duration::from_secs(60))
}

#[test]
#[ignore = "takes 20 minutes: cargo test -- --ignored"]
fn through_blackholes_of_ten_minutes() -> Result<()> {
    blackhole(Duration::from_secs(600))
}

#[test]
fn through_a_line_that_loses_a_fifth_of_all_packets() -> Result<()> {
    survives(|world, load| {
        for share in [0.05, 0.2] {
            world.lab.lose("laptop", "relay", share)?;
            sleep(Duration::from_secs(3));
            back(&format!("{share} loss"), load)?;
        }
        world.lab.lose("laptop", "relay", 0.0)
    })
}

#[test]
fn through_a_relay_that_is_killed_and_comes_back() -> Result<()> {
    survives(|world, load| {
        world.relay()?.kill()?;
        world.relay = None;
        world.start_relay()?;
        back("relay killed and restarted", load)?;
        world.relay()?.signal(Signal::SIGTERM)?;
        world.relay()?.wait(Duration::from_secs(60))?;
        world.relay = None;
        sleep(Duration::from_secs(if soak() { 600 } else { 10 }));
        world.start_relay()?;
        back("relay stopped for a while", load)
    })
}

#[test]
fn through_an_agent_that_is_killed_restarted_and_upgraded() -> Result<()> {
    survives(|world, load| {
        world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
        world.start_agent(DEVICE, "device")?;
        back("supervisor killed", load)?;
        let agent = world.agents.get_mut(DEVICE).context("no agent")?;
        agent.signal(Signal::SIGTERM)?;
        agent.wait(Duration::from_secs(30))?;
        world.start_agent(DEVICE, "device")?;
        back("supervisor restarted", load)?;
        let agent = world.agents.get_mut(DEVICE).context("no agent")?;
        agent.signal(Signal::SIGTERM)?;
        agent.wait(Duration::from_secs(30))?;
        start_newer_agent(world, "belay-agent-newer")?;
        back("supervisor upgraded", load)
    })
}

/// An upgrade is a restart from another file, of this name.
pub(crate) fn start_newer_agent(world: &mut World, name: &str) -> Result<()> {
    let program = world.path(name);
    fs::copy(belay_tests::program("belay-agent")?, &program)?;
    let mut command = world.command("device", program);
    command.args(["run", "--state"]).arg(world.device_state(DEVICE));
    let agent = world.lab.spawn("agent-newer", command)?;
    world.agents.insert(DEVICE.to_owned(), agent);
    Ok(())
}

#[test]
fn through_a_client_that_is_stopped_for_a_while() -> Result<()> {
    survives(|world, load| {
        let clients = clients(world)?;
        ensure!(clients.len() >= 3, "clients: {clients:?}");
        for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
            signal_all(&clients, signal)?;
            if signal == Signal::SIGSTOP {
                sleep(Duration::from_secs(if soak() { 600 } else { 70 }));
            }
        }
        back("client stopped", load)
    })
}

pub(crate) fn signal_all(processes: &[i32], signal: Signal) -> Result<()> {
    for process in processes {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*process), signal)?;
    }
    Ok(())
}

/// Processes of `belay` on the laptop.
pub(crate) fn clients(world: &World) -> Result<Vec<i32>> {
    let listed = Command::new("pgrep").args(["-x", "belay"]).output()?;
    let mut found = Vec::new();
    for pid in String::from_utf8(listed.stdout)?.lines() {
        let inside = fs::metadata(format!("/proc/{pid}/ns/net"));
        use std::os::unix::fs::MetadataExt as _;
        if inside.is_ok_and(|ns| ns.ino() == world.lab.ns("laptop").inode()) {
            found.push(pid.parse()?);
        }
    }
    ensure!(!found.is_empty(), "no client runs");
    Ok(found)
}

#[test]
fn a_session_is_given_back_only_to_its_own_user() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "admin"])?;
    let mut session = world
        .lab
        .spawn("session", world.belay(&["exec", DEVICE, "--", "echo in; exec sleep 600"]))?;
    session.wait_for_log("in", Duration::from_secs(20))?;
    let opened = world.decisions()?;
    let opened = opened.iter().rev().find(|d| d.kind == "session-opened").context("not opened")?;
    let session_id = opened.session.context("no session id")?;
    for (user, why) in [("olga", "another person"), ("admin", "a made-up id")] {
        let id = if user == "olga" {
            session_id
        } else {
            belay_proto::ids::SessionId::from_uuid(uuid::Uuid::from_bytes([9; 16]))
        };
        let answer = world.resume_by_hand(user, id)?;
        let refused = answer.refused.with_context(|| format!("{why} got the session"))?;
        ensure!(refused.code() == belay_proto::refusal::Code::SessionOver, "{why}: {refused}");
    }
    ensure!(world.recorded("session-refused", Some("session-over"))?, "not recorded");
    ensure!(session.try_wait()?.is_none(), "the session ended");
    Ok(())
}

#[test]
fn a_session_whose_permission_ended_while_it_had_no_line_is_over_with_a_reason() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "admin"])?;
    let command = world.belay_as("olga", &["exec", DEVICE, "--", "echo in; exec sleep 600"]);
    let mut session = world.lab.spawn("olga", command)?;
    session.wait_for_log("in", Duration::from_secs(20))?;
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()?;
    world.lab.cut(Traffic::All, "site", "relay")?;
    run(&mut world.belay(&["user", "disable", "olga"]))?.success()?;
    world.lab.heal()?;
    let began = Instant::now();
    let ended = session.wait(Duration::from_secs(60))?;
    ensure!(ended.code() == Some(255), "{ended}: {}", session.log());
    ensure!(session.log().contains("disabled"), "it does not say why: {}", session.log());
    println!("ended after {:?}", began.elapsed());
    world.wait_for("the worker is gone", || Ok(workers(&world)? == 0))
}

/// Session workers on the device.
pub(crate) fn workers(world: &World) -> Result<usize> {
    let listed = Command::new("pgrep").args(["-f", "^belay-agent worker"]).output()?;
    let mut found = 0;
    for pid in String::from_utf8(listed.stdout)?.lines() {
        use std::os::unix::fs::MetadataExt as _;
        let inside = fs::metadata(format!("/proc/{pid}/ns/net"));
        if inside.is_ok_and(|ns| ns.ino() == world.lab.ns("device").inode()) {
            found += 1;
        }
    }
    Ok(found)
}

#[test]
fn what_waits_for_the_line_is_ended_by_a_signal() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let command = world.belay(&["exec", DEVICE, "--", "echo in; exec cat >/dev/null"]);
    let zeroes = fs::File::open("/dev/zero")?;
    let mut upload = world.lab.spawn_reading("upload", command, zeroes)?;
    upload.wait_for_log("in", Duration::from_secs(20))?;
    world.lab.cut(Traffic::All, "laptop", "relay")?;
    // All that may be under way is, by then.
    sleep(Duration::from_secs(2));
    upload.signal(Signal::SIGINT)?;
    let status = upload.wait(Duration::from_secs(10))?;
    ensure!(!status.success(), "{status}");
    Ok(())
}
