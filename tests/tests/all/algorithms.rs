//! What the device's SSH server offers, as a public auditing tool judges it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use belay_tests::lab::loud;
use belay_tests::world::{DEVICE, World, run};

/// What Debian's release of the tool has not heard of yet: the post-quantum exchange, and the mark
/// of strict key exchange. Newer releases rate both as good.
const NEWER: [&str; 2] = ["mlkem768x25519-sha256", "kex-strict-s-v00@openssh.com"];

/// The tool wants a host and a port: each connection becomes one of `belay proxy`.
fn listen(world: &Arc<World>) -> Result<u16> {
    let listener = world.lab.ns("laptop").run(|| TcpListener::bind("127.0.0.1:0"))??;
    let port = listener.local_addr()?.port();
    let world = Arc::clone(world);
    thread::spawn(move || -> Result<()> {
        for connection in listener.incoming() {
            let input = OwnedFd::from(connection?);
            let output = input.try_clone()?;
            let mut child = world
                .belay(&["proxy", DEVICE])
                .stdin(Stdio::from(input))
                .stdout(Stdio::from(output))
                .stderr(Stdio::null())
                .spawn()
                .context("belay proxy")?;
            thread::spawn(move || child.wait());
        }
        Ok(())
    });
    Ok(port)
}

#[test]
fn an_audit_of_the_devices_algorithms_finds_nothing_weak() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    if Command::new("ssh-audit").arg("--help").output().is_err() {
        loud("SKIPPED the audit of algorithms: ssh-audit is not installed");
        return Ok(());
    }
    world.lab.ns("laptop").ip("link set lo up")?;
    let world = Arc::new(world);
    let port = listen(&world)?.to_string();
    let mut audit = world.lab.ns("laptop").command("ssh-audit");
    audit.args(["--no-colors", "--ssh2", "--timeout", "20", "--port", &port, "127.0.0.1"]);
    let found = run(&mut audit)?;
    println!("{}", found.stdout);
    ensure!(found.stdout.contains("(kex) "), "it has audited nothing: {found:?}");
    ensure!(found.stdout.contains("ssh-ed25519"), "no host key was audited: {found:?}");
    let weak: Vec<_> = found
        .stdout
        .lines()
        .filter(|line| line.contains("[fail]") || line.contains("[warn]"))
        .filter(|line| !NEWER.iter().any(|name| line.contains(name) && line.contains("unknown")))
        .collect();
    ensure!(weak.is_empty(), "{weak:#?}");
    Ok(())
}
