//! `deploy/quickstart`, the first thing anyone runs: what it prints, what it
//! exits with, and that it leaves nothing behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use belay_tests::lab;

/// Seconds. A run takes two; the one that also asks cargo whether everything is
/// built may have to wait for another cargo.
const LIMIT: &str = "240";

struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn quickstart() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/quickstart");
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg(script).stdin(Stdio::null());
    // What cargo tells this test about itself is not for the cargo within.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str], state: &Path) -> Result<Outcome> {
    finished(built()?.arg("--state").arg(state).args(arguments))
}

/// With the programs that this test was built with.
fn built() -> Result<Command> {
    let program = belay_tests::program("belay")?;
    let mut command = quickstart();
    command.arg("--bin").arg(program.parent().context("a directory")?);
    Ok(command)
}

fn finished(command: &mut Command) -> Result<Outcome> {
    let output = command.output().context("starting deploy/quickstart")?;
    Ok(Outcome {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// What a quickstart could leave on this machine: namespaces, interfaces and
/// routes, its default state directories.
fn traces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for arguments in [&["netns"][..], &["-o", "link"], &["-4", "route"]] {
        let output = Command::new("ip").args(arguments).output()?;
        for line in String::from_utf8(output.stdout)?.lines() {
            if line.contains("belay-") || line.contains(" bq") || line.contains(": bq") {
                found.insert(line.to_owned());
            }
        }
    }
    Ok(found)
}

#[test]
fn it_runs_a_command_on_the_device_and_leaves_nothing_behind() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    // The one test here that lets it build, as people do.
    let ran = finished(quickstart().arg("--state").arg(&state).args([
        "--",
        "sh",
        "-c",
        "id; uname -n; echo \"<$0>\"; exit 7",
        "a  b",
    ]))?;
    assert_eq!(ran.status, Some(7), "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    ensure!(lines.len() == 3, "standard output carries more than the command's: {lines:?}");
    assert!(lines[0].starts_with("uid="), "{lines:?}");
    assert_eq!(lines[1], "demo", "the device is no machine of its own");
    assert_eq!(lines[2], "<a  b>", "the argument did not arrive as it was");
    assert!(ran.stderr.contains("cannot be reached"), "it did not check: {}", ran.stderr);
    assert!(!state.exists(), "its state is left behind");
    let mine = state_names(&state)?;
    assert!(!traces()?.iter().any(|line| line.contains(&mine)), "left: {:?}", traces()?);
    Ok(())
}

/// The digits by which it names what belongs to this state directory.
fn state_names(state: &Path) -> Result<String> {
    let path = state.to_str().context("a path of plain text")?;
    let output = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | sha256sum | cut -c1-8", "sh", path])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn two_stay_up_beside_each_other_and_go_down_alone() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let states: Vec<PathBuf> = ["one", "two"].iter().map(|name| dir.path().join(name)).collect();
    let outcome = two_at_once(&states);
    // Down first, whatever happened: namespaces outlive a failed test.
    let downs: Vec<Result<Outcome>> = states.iter().map(|state| run(&["--down"], state)).collect();
    outcome?;
    for down in downs {
        let down = down?;
        assert_eq!(down.status, Some(0), "{}", down.stderr);
    }
    for state in &states {
        assert!(!state.exists());
        let mine = state_names(state)?;
        assert!(!traces()?.iter().any(|line| line.contains(&mine)), "left: {:?}", traces()?);
    }
    Ok(())
}

fn two_at_once(states: &[PathBuf]) -> Result<()> {
    let ups: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            states.iter().map(|state| scope.spawn(move || run(&["--up"], state))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for up in ups {
        let up = up?;
        ensure!(up.status == Some(0), "{}", up.stderr);
        // What it prints is what a shell evaluates: the client then finds its way.
        let listed = Command::new("sh")
            .args(["-c", &format!("{}\nbelay devices --json", up.stdout)])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&listed.stdout);
        ensure!(listed.status.success() && text.contains("demo"), "belay devices: {text}");
    }
    // A state that is up is used, and stays up.
    for _ in 0..2 {
        let used = run(&["--", "true"], &states[0])?;
        ensure!(used.status == Some(0), "{}", used.stderr);
    }
    let down = run(&["--down"], &states[0])?;
    ensure!(down.status == Some(0), "{}", down.stderr);
    let other = run(&["--", "sh", "-c", "exit 3"], &states[1])?;
    ensure!(other.status == Some(3), "one's end harmed the other: {}", other.stderr);
    Ok(())
}

#[test]
fn an_interrupted_one_takes_itself_down() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let marker = dir.path().join("running");
    let mut child = built()?
        .arg("--state")
        .arg(&state)
        .args(["--", "sh", "-c"])
        .arg(format!("touch {}; sleep 300", marker.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let limit = Instant::now() + Duration::from_secs(200);
    while !marker.exists() {
        let ended = child.try_wait()?;
        ensure!(ended.is_none(), "it ended: {ended:?}");
        ensure!(Instant::now() < limit, "the command did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    // timeout passes the signal on to the script.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    child.wait()?;
    let limit = Instant::now() + Duration::from_secs(20);
    while state.exists() {
        ensure!(Instant::now() < limit, "it left its state behind");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mine = state_names(&state)?;
    assert!(!traces()?.iter().any(|line| line.contains(&mine)), "left: {:?}", traces()?);
    Ok(())
}

#[test]
fn it_takes_no_directory_that_holds_something_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("thesis.tex"), "years of work")?;
    for arguments in [&["--", "true"][..], &["--up"], &["--down"]] {
        let refused = run(arguments, dir.path())?;
        assert!(dir.path().join("thesis.tex").exists());
        if arguments != ["--down"] {
            assert_eq!(refused.status, Some(255), "{}", refused.stderr);
            assert!(refused.stderr.contains("--state"), "no remedy: {}", refused.stderr);
        }
    }
    Ok(())
}
