//! Networks that do not want QUIC, or anything: the line finds a way, moves back when there is a
//! better one, and the doctors say what is wrong.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use belay_tests::lab::{Lab, Topology, Traffic};
use belay_tests::load::Load;
use belay_tests::middle::{ISSUER, Interceptor, Proxy, Speaks};
use belay_tests::world::{DEVICE, Outcome, PATIENCE, RELAY, World, binary, run};
use serde_json::Value;

use crate::recording::{last_session, whole};

/// Seconds between two looks for QUIC, in place of a minute.
const LOOK: &str = "2";

/// A world whose ends look for QUIC every [`LOOK`].
fn eager(mut world: World) -> Result<World> {
    for node in ["laptop", "device"] {
        world.set_variable(node, "BELAY_QUIC_SECONDS", LOOK);
    }
    restart_agent(&mut world)?;
    let agent = world.agents.get_mut(DEVICE).context("no agent")?;
    agent.wait_for_log("line up", PATIENCE)?;
    Ok(world)
}

fn restart_agent(world: &mut World) -> Result<()> {
    world.agents.remove(DEVICE);
    world.start_agent(DEVICE, "device")
}

fn exec(world: &World, line: &str) -> Result<Outcome> {
    run(&mut world.belay(&["exec", DEVICE, "--", line]))
}

fn works(world: &World) -> Result<()> {
    let said = exec(world, "echo through")?.success()?.stdout;
    ensure!(said == "through\n", "{said:?}");
    Ok(())
}

/// What a doctor found: its exit status, and its findings by name.
struct Found(Option<i32>, Vec<Value>);

impl Found {
    fn by(doctor: &mut Command) -> Result<Self> {
        let ran = run(doctor.arg("--json"))?;
        let found: Vec<Value> =
            serde_json::from_str(&ran.stdout).with_context(|| format!("{ran:?}"))?;
        Ok(Self(ran.status, found))
    }

    fn client(world: &World) -> Result<Self> {
        Self::by(&mut world.belay(&["doctor"]))
    }

    fn agent(world: &World) -> Result<Self> {
        Self::by(&mut world.agent(DEVICE, "device", &["doctor"]))
    }

    /// A finding is there, well or not, and says each of these.
    fn says(&self, check: &str, ok: bool, words: &[&str]) -> Result<&Self> {
        let found = self.1.iter().find(|found| found["check"] == check);
        let found = found.with_context(|| format!("no {check} in {:?}", self.1))?;
        ensure!(found["ok"] == ok, "{check} is not {ok}: {found}");
        for word in words {
            ensure!(found.to_string().contains(word), "{word:?} is not in {found}");
        }
        Ok(self)
    }

    fn exits(&self, status: i32) -> Result<&Self> {
        ensure!(self.0 == Some(status), "exit {:?}: {:?}", self.0, self.1);
        Ok(self)
    }
}

/// TCP connections to the relay on the laptop.
fn tcp_connections(world: &World) -> Result<usize> {
    let listed = world.lab.ns("laptop").sh("ss -Htn state established dport = :443")?;
    Ok(listed.lines().count())
}

#[test]
fn where_udp_is_blocked_from_the_start_sessions_go_over_tcp_and_everybody_says_so() -> Result<()> {
    let Some(lab) = Lab::new_or_skip(&Topology::default())? else { return Ok(()) };
    for node in ["laptop", "site"] {
        lab.cut(Traffic::Udp, node, "relay")?;
    }
    let mut world = World::bare(lab)?;
    world.add_device(DEVICE, "device", &[])?;
    world.wait_online(DEVICE)?;
    works(&world)?;
    ensure!(world.carrier(DEVICE)?.as_deref() == Some("websocket"));
    let listed = run(&mut world.belay(&["devices"]))?.success()?.stdout;
    ensure!(listed.contains("CARRIER") && listed.contains("websocket"), "{listed}");
    let status = run(&mut world.agent(DEVICE, "device", &["status"]))?.success()?.stdout;
    ensure!(status.contains("over websocket"), "{status}");

    // It works, so nothing is wrong; and what would be better is said.
    let blocked = ["UDP does not get through", "let the network pass UDP"];
    let found = Found::client(&world)?;
    found.exits(0)?.says("quic", true, &blocked)?.says("websocket", true, &["198.18.1.2:443"])?;
    found.says("line", true, &["over websocket"])?.says("clock", true, &[])?;
    let found = Found::agent(&world)?;
    found.exits(0)?.says("quic", true, &blocked)?.says("agent", true, &["over websocket"])?;
    found.says("clock", true, &["agrees"])?.says("nat", true, &["10.77.1.2"])?;

    // With neither, it is wrong.
    world.lab.cut(Traffic::Tcp, "laptop", "relay")?;
    let found = Found::client(&world)?;
    found.exits(1)?.says("quic", false, &["no answer"])?.says(
        "websocket",
        false,
        &["no answer"],
    )?;
    Ok(())
}

#[test]
fn a_doctor_on_a_device_disturbs_nothing_and_sees_what_there_is() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let before = world.device(DEVICE)?["line"]["since"].clone();
    let ups = |world: &World| -> Result<usize> {
        Ok(world.decisions()?.iter().filter(|d| d.kind == "line-up").count())
    };
    let up = ups(&world)?;
    ensure!(up > 0, "no line was recorded");
    let found = Found::agent(&world)?;
    found.exits(0)?.says("state", true, &[])?.says("enrolment", true, &[DEVICE, RELAY])?;
    found.says("certificate", true, &["good for"])?.says("agent", true, &["over quic"])?;
    found.says("dns", true, &["198.18.1.2"])?.says("quic", true, &["proved itself"])?;
    found.says("mtu", true, &["datagrams of 14"])?.says("websocket", true, &["proved itself"])?;
    let lines = run(&mut world.agent(DEVICE, "device", &["doctor"]))?.success()?.stdout;
    ensure!(lines.lines().all(|line| line.starts_with("ok ")), "{lines}");
    ensure!(world.device(DEVICE)?["line"]["since"] == before, "the line is another one");
    ensure!(ups(&world)? == up, "a line was taken");

    // Small datagrams are remarked; they work.
    world.lab.set_mtu("device", 1_240)?;
    Found::agent(&world)?.says("quic", true, &[])?.says("mtu", true, &["tunnel"])?;

    world.agents.remove(DEVICE);
    Found::agent(&world)?.exits(1)?.says("agent", false, &["no agent runs", "start it"])?;
    Ok(())
}

#[test]
fn a_session_falls_back_when_udp_goes_and_moves_back_when_it_returns() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let world = eager(world)?;
    world.wait_for("QUIC at first", || Ok(world.carrier(DEVICE)?.as_deref() == Some("quic")))?;
    world.lab.set_rate("laptop", 60, 50)?;
    let load = Load::start(&world, 48 * 1024 * 1024)?;

    for node in ["site", "laptop"] {
        world.lab.cut(Traffic::Udp, node, "relay")?;
        let took = load.wait_alive()?;
        println!("UDP gone before {node}: bytes flow again after {took:?}");
    }
    world.wait_for("the device's fallback", || {
        Ok(world.carrier(DEVICE)?.as_deref() == Some("websocket"))
    })?;
    ensure!(tcp_connections(&world)? >= 2, "the sessions are not on TCP");

    world.lab.heal()?;
    let healed = Instant::now();
    world
        .wait_for("the device's move", || Ok(world.carrier(DEVICE)?.as_deref() == Some("quic")))?;
    println!("the device is back on QUIC after {:?}", healed.elapsed());
    world.wait_for("the sessions' move", || Ok(tcp_connections(&world)? == 0))?;
    println!("the sessions are back on QUIC after {:?}", healed.elapsed());
    load.wait_alive()?;
    load.finish()
}

#[test]
fn a_network_that_passes_only_handshakes_is_left_alone_after_a_few_tries() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let world = eager(world)?;
    // Somebody waits all the while, so that silence is noticed soon.
    let counting = "for i in $(seq 450); do echo n$i; sleep 0.1; done";
    let mut session =
        world.lab.spawn("counting", world.belay(&["exec", DEVICE, "--", counting]))?;
    session.wait_for_log("n5\n", PATIENCE)?;
    world.lab.choke_udp("site", "relay", 40)?;
    session.wait_for_log("n450\n", Duration::from_secs(150))?;
    let log = session.log();
    let counted: Vec<_> = log.lines().filter(|line| line.starts_with('n')).collect();
    let whole: Vec<_> = (1..=450).map(|i| format!("n{i}")).collect();
    ensure!(counted == whole, "lines were lost or repeated");
    let agent = world.agents.get(DEVICE).context("no agent")?.log();
    let moves = agent.matches("the line has moved to it").count();
    println!("{moves} moves to QUIC in 45 s");
    // Once every 2 s without a memory; with one after 4, 8, 16 s.
    ensure!((1..=4).contains(&moves), "{moves} moves:\n{agent}");
    Ok(())
}

#[test]
fn through_a_proxy_with_and_without_a_login_and_past_one_that_is_excepted() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    for node in ["laptop", "site"] {
        world.lab.cut(Traffic::All, node, "relay")?;
    }
    let proxies = [
        (Speaks::Http, false, 3128),
        (Speaks::Http, true, 3129),
        (Speaks::Socks5, false, 1080),
        (Speaks::Socks5, true, 1081),
    ];
    for (speaks, login, port) in proxies {
        let proxy = Proxy::start(&world, speaks, login, port)?;
        let url = proxy.url(if login { "hugo:geheim@" } else { "" });
        for node in ["laptop", "device"] {
            world.set_variable(node, "HTTPS_PROXY", &url);
        }
        restart_agent(&mut world)?;
        world.wait_for("the device's line", || {
            Ok(world.device(DEVICE)?["line"]["address"]
                .as_str()
                .is_some_and(|address| address.starts_with("198.18.1.1:")))
        })?;
        works(&world)?;
        world.log_in("admin", None)?;
        ensure!(proxy.passed() >= 3, "{speaks:?}: {} connections", proxy.passed());
        if !login {
            continue;
        }

        let found = Found::agent(&world)?;
        found.says("proxy", true, &["HTTPS_PROXY names", "with a user and password"])?;
        found.says("websocket", true, &["proved itself"])?.says("quic", true, &["UDP"])?;
        ensure!(!format!("{:?}", found.1).contains("geheim"), "a password is shown");

        for (who, says) in [("hugo:falsch@", "not these"), ("", "a user and a password")] {
            world.set_variable("laptop", "HTTPS_PROXY", &proxy.url(who));
            let ran = exec(&world, "true")?.expect_status(255)?;
            ensure!(ran.stderr.contains(says), "{}", ran.stderr);
            ensure!(ran.stderr.lines().count() == 1, "{}", ran.stderr);
            let found = Found::client(&world)?;
            found.exits(1)?.says("websocket", false, &[says, "http://USER:PASSWORD@HOST:PORT"])?;
            let said = format!("{ran:?}{:?}", found.1);
            ensure!(!said.contains("falsch"), "a password is shown: {said}");
        }
        // The agent says it too, and goes on trying.
        world.set_variable("device", "HTTPS_PROXY", &proxy.url("hugo:falsch@"));
        restart_agent(&mut world)?;
        let agent = world.agents.get_mut(DEVICE).context("no agent")?;
        agent.wait_for_log("and not these", PATIENCE)?;
        ensure!(!agent.log().contains("falsch"), "a password is logged");
        Found::agent(&world)?.exits(1)?.says("agent", false, &["not these"])?;
    }

    world.lab.heal()?;
    world.set_variable("laptop", "HTTPS_PROXY", "http://198.18.1.1:9");
    world.set_variable("laptop", "NO_PROXY", "localhost,.lab");
    world.clear_variables("device");
    restart_agent(&mut world)?;
    world.wait_online(DEVICE)?;
    works(&world)?;
    Found::client(&world)?.exits(0)?.says("proxy", true, &["NO_PROXY goes around it"])?;
    world.set_variable("laptop", "HTTPS_PROXY", "ftp://hugo:geheim@x");
    let ran = exec(&world, "true")?.expect_status(255)?;
    ensure!(ran.stderr.contains("HTTPS_PROXY is no proxy's address"), "{}", ran.stderr);
    ensure!(!ran.stderr.contains("geheim"), "a password is shown");
    Ok(())
}

#[test]
fn somebody_who_opens_tls_on_the_way_is_named_and_gets_nothing() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let _between = Interceptor::start(&world)?;
    // QUIC is not theirs: sessions work, and the doctor says that TCP is not what it seems.
    works(&world)?;
    let found = Found::client(&world)?;
    found.exits(1)?.says("websocket", false, &["TLS is intercepted", ISSUER, "inspection"])?;
    found.says("quic", true, &[])?.says("line", true, &["over quic"])?;

    world.lab.cut(Traffic::Udp, "laptop", "relay")?;
    let ran = exec(&world, "true")?.expect_status(255)?;
    ensure!(ran.stderr.contains("somebody answers TLS in the place of"), "{}", ran.stderr);
    let ran = run(&mut world.belay(&["devices"]))?.expect_status(1)?;
    ensure!(ran.stderr.contains("somebody may be in between"), "{}", ran.stderr);
    Found::client(&world)?.exits(1)?.says("websocket", false, &["TLS is intercepted", ISSUER])?;
    Ok(())
}

#[test]
fn a_wrong_clock_and_a_name_nobody_knows_are_found() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    if run(Command::new("faketime").args(["-f", "+0", "true"])).is_ok() {
        let mut ahead = world.command("laptop", "faketime");
        ahead.args(["-f", "+2h"]).arg(binary("belay")).arg("doctor");
        let found = Found::by(ahead.env("BELAY_HOME", world.home("admin")))?;
        found.exits(1)?.says(
            "clock",
            false,
            &["ahead of the relay's", "set this machine's clock"],
        )?;
        found.says("line", false, &["clock"])?;
    } else {
        belay_tests::lab::loud("SKIPPED clock test: faketime is not installed");
    }

    // The lab's names are a file; without the relay in it, DNS is asked, which is not there.
    fs::write(world.path("hosts"), "127.0.0.1 localhost\n")?;
    let ran = exec(&world, "true")?.expect_status(255)?;
    ensure!(ran.stderr.contains("cannot find the relay"), "{}", ran.stderr);
    for found in [Found::client(&world)?, Found::agent(&world)?] {
        found.exits(1)?.says("dns", false, &["relay.lab", "DNS"])?;
    }
    Ok(())
}

#[test]
fn all_that_a_command_asks_goes_over_a_connection_that_is_kept() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let proxy = Proxy::start(&world, Speaks::Http, false, 3128)?;
    world.set_variable("laptop", "HTTPS_PROXY", &proxy.url(""));
    let file = world.path("evidence");
    let file = file.to_str().context("path")?;
    // A recording is played from one, and the log it is held against asked over another.
    let commands: [(&[&str], u32); 4] = [
        (&["evidence", &id, "-o", file], 1),
        (&["play", &id, "--text"], 2),
        (&["audit", "verify"], 1),
        (&["search", "through"], 1),
    ];
    for (command, wanted) in commands {
        let before = proxy.passed();
        run(&mut world.belay(command))?.success()?;
        let connections = proxy.passed() - before;
        ensure!(connections == wanted, "{command:?}: {connections} connections");
    }
    Ok(())
}
