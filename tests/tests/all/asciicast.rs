//! asciinema's own program reads what `belay play` writes.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run, run_with_input};

use crate::recording::{last_session, whole};

/// asciicast v3 came with asciinema 3, which Debian does not have yet.
fn reads_v3() -> bool {
    let asked = Command::new("asciinema").arg("--version").output();
    let said = asked.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let version = said.as_deref().ok().and_then(|said| said.split_whitespace().nth(1));
    version.is_some_and(|version| version.starts_with(|first: char| ('3'..='9').contains(&first)))
}

#[test]
fn asciinema_reads_terminals_and_commands() -> Result<()> {
    if !reads_v3() {
        belay_tests::lab::loud("SKIPPED asciinema's own reader: cargo install asciinema");
        return Ok(());
    }
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let typed = "printf 'gr\\303\\274n \\033[31mrot\\033[0m\\n'; echo en''de; exit\n";
    let mut ssh = world.openssh("ssh")?;
    run_with_input(ssh.args(["-tt", "root@demo.belay"]), typed.as_bytes())?.success()?;
    converted(&world, &["grün rot", "ende"])?;
    run(&mut world.belay(&["exec", DEVICE, "--", "seq 1 2000; echo to-stderr >&2"]))?.success()?;
    converted(&world, &["1999\n2000", "to-stderr"])
}

/// The last session's track, as asciinema prints it.
fn converted(world: &World, wanted: &[&str]) -> Result<()> {
    let id = last_session(world)?;
    whole(world, &id)?;
    let (cast, plain) = (world.path("played.cast"), world.path("played.txt"));
    let path = cast.to_str().context("path")?;
    run(&mut world.belay(&["play", &id, "--cast", path]))?.success()?;
    let mut asciinema = Command::new("asciinema");
    asciinema.args(["convert", "--overwrite", "-f", "txt"]).arg(&cast).arg(&plain);
    run(&mut asciinema)?.success()?;
    let text = std::fs::read_to_string(&plain)?;
    for words in wanted {
        ensure!(text.contains(words), "{words:?} is not in {text}");
    }
    Ok(())
}
