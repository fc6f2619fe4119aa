//! However a device is used, an auditor finds it: in the log, and in the session's recording.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run, run_with_input};

use crate::attach::{Desk, over, session};
use crate::compat::{TARGET, connect_on_laptop, echo_on_device, echoes, remote, socks_to};
use crate::recording::{text, whole};

/// One way, the session it was, and what an auditor must read of it.
struct Left {
    way: &'static str,
    session: String,
    words: Vec<String>,
}

/// Sessions told apart by when they were opened: one way is used after the other.
#[derive(Default)]
struct Seen {
    known: BTreeSet<String>,
    left: Vec<Left>,
}

impl Seen {
    fn note(&mut self, world: &World, way: &'static str, words: &[&str]) -> Result<()> {
        let decisions = world.decisions()?;
        let opened = decisions.iter().filter(|one| one.kind == "session-opened");
        let ids = opened.filter_map(|one| one.session).map(|id| id.to_string());
        let new: Vec<String> = ids.filter(|id| self.known.insert(id.clone())).collect();
        let [session] = new.as_slice() else { anyhow::bail!("{way} opened {new:?}") };
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.left.push(Left { way, session: session.clone(), words });
        Ok(())
    }
}

#[test]
fn every_way_to_use_a_device_leaves_evidence() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let mut seen = Seen::default();
    commands(&world, &mut seen)?;
    files(&world, &mut seen)?;
    forwards(&world, &mut seen)?;
    shared_connection(&world, &mut seen)?;
    taken_over(&world, &mut seen)?;

    for Left { way, session, words } in &seen.left {
        whole(&world, session).context(*way)?;
        let text = text(&world, session)?;
        for word in words {
            ensure!(text.contains(word), "{way}: {word:?} is not in {text}");
        }
        let decisions = world.decisions()?;
        let own =
            decisions.iter().filter(|one| one.session.is_some_and(|id| id.to_string() == *session));
        let kinds: BTreeSet<&str> = own.map(|one| one.kind.as_str()).collect();
        for kind in ["session-opened", "recording-started", "recording-ended", "session-closed"] {
            ensure!(kinds.contains(kind), "{way}: no {kind} among {kinds:?}");
        }
    }
    ensure!(world.recorded("session-taken-over", None)?, "that a session changed hands");
    run(&mut world.belay(&["audit", "verify"]))?.success()?;
    Ok(())
}

fn commands(world: &World, seen: &mut Seen) -> Result<()> {
    run(&mut world.belay(&["exec", DEVICE, "--", "echo", "by-exec"]))?.success()?;
    seen.note(world, "belay exec", &["opened kind=exec", "by-exec"])?;
    run(world.openssh("ssh")?.args([TARGET, "echo by-ssh; echo to-stderr >&2; exit 4"]))?
        .expect_status(4)?;
    seen.note(world, "ssh with a command", &["by-ssh", "to-stderr", "exit status 4"])?;
    let typed = b"echo by-she''ll\nexit 5\n";
    run_with_input(world.openssh("ssh")?.args(["-tt", TARGET]), typed)?.expect_status(5)?;
    seen.note(world, "ssh with a terminal", &["opened kind=shell", "by-shell", "exit status 5"])?;
    let outlives = "setsid sh -c 'sleep 1; echo late' >/dev/null 2>&1 & echo gone-before-it";
    run(world.openssh("ssh")?.args([TARGET, outlives]))?.success()?;
    seen.note(world, "a process that outlives its shell", &["setsid sh -c", "gone-before-it"])
}

fn files(world: &World, seen: &mut Seen) -> Result<()> {
    let dir = world.path("ways");
    fs::create_dir_all(&dir)?;
    let file = dir.join("moved");
    fs::write(&file, "a line\n".repeat(100))?;
    let digest = belay_tests::world::sha256(&file)?;
    let told = ["bytes=700", digest.as_str()];

    let batch = format!("put {} {}", file.display(), dir.join("by-sftp").display());
    run_with_input(world.openssh("sftp")?.args(["-b", "-", TARGET]), batch.as_bytes())?
        .success()?;
    seen.note(world, "sftp", &[&told[..], &["by-sftp"]].concat())?;
    run(world.openssh("scp")?.arg("-s").arg(&file).arg(remote(&dir.join("by-scp"))))?.success()?;
    seen.note(world, "scp", &[&told[..], &["by-scp"]].concat())?;
    run(world.openssh("scp")?.arg("-O").arg(&file).arg(remote(&dir.join("by-scp-o"))))?
        .success()?;
    seen.note(world, "scp -O", &["scp -t", "by-scp-o", "sha256"])?;

    let ssh = format!("ssh -F {} -o BatchMode=yes", world.ssh_config("admin")?.display());
    let mut rsync = world.lab.ns("laptop").command("rsync");
    rsync.args(["-e", &ssh]).arg(&file).arg(remote(&dir.join("by-rsync")));
    run(&mut rsync)?.success()?;
    seen.note(world, "rsync", &["rsync --server", "by-rsync"])?;

    let repository = dir.join("by-git");
    run(Command::new("git").args(["init", "-q"]).arg(&repository))?.success()?;
    let mut git = world.lab.ns("laptop").command("git");
    git.env("GIT_SSH_COMMAND", &ssh).args(["ls-remote"]).arg(remote(&repository));
    run(&mut git)?.success()?;
    seen.note(world, "git", &["git-upload-pack", "by-git"])
}

fn forwards(world: &World, seen: &mut Seen) -> Result<()> {
    let port = echo_on_device(world)?;
    let mut ssh = world.openssh("ssh")?;
    ssh.args(["-N", "-L", &format!("127.0.0.1:7001:127.0.0.1:{port}"), TARGET]);
    let local = world.lab.spawn("ssh-local", ssh)?;
    echoes(&mut connect_on_laptop(world, 7001)?, 20_000)?;
    drop(local);
    let target = format!("detail=127.0.0.1:{port}");
    seen.note(world, "ssh -L", &["opened kind=forward", &target, "20000", "ms="])?;

    let mut ssh = world.openssh("ssh")?;
    ssh.args(["-N", "-D", "127.0.0.1:7002", TARGET]);
    let dynamic = world.lab.spawn("ssh-dynamic", ssh)?;
    let mut socks = connect_on_laptop(world, 7002)?;
    socks_to(&mut socks, port)?;
    echoes(&mut socks, 30_000)?;
    drop(dynamic);
    let target = format!("detail=localhost:{port}");
    seen.note(world, "ssh -D", &["opened kind=forward", &target, "30000"])
}

fn shared_connection(world: &World, seen: &mut Seen) -> Result<()> {
    let socket = world.path("shared");
    let path = format!("ControlPath={}", socket.display());
    let mut master = world.openssh("ssh")?;
    master.args(["-o", &path, "-M", "-N", TARGET]);
    let master = world.lab.spawn("ssh-master", master)?;
    world.wait_for("the master's socket", || Ok(socket.exists()))?;
    for n in 1..=3 {
        let mut ssh = world.openssh("ssh")?;
        ssh.args(["-o", &path, "-o", "ControlMaster=no", TARGET, &format!("echo shared-{n}")]);
        run(&mut ssh)?.success()?;
    }
    drop(master);
    seen.note(world, "ControlMaster", &["shared-1", "shared-2", "shared-3"])
}

/// A terminal whose client is another one in the middle.
fn taken_over(world: &World, seen: &mut Seen) -> Result<()> {
    let desk = Desk::new(world)?;
    desk.window("first", &world.belay(&["shell", DEVICE]))?;
    desk.shows("first", "#")?;
    desk.keys("first", &["echo in-the-fi''rst", "Enter"])?;
    desk.shows("first", "in-the-first")?;
    let id = session(world, true)?;
    desk.window("second", &world.belay(&["attach", &id]))?;
    desk.shows("second", "in-the-first")?;
    desk.keys("second", &["echo in-the-se''cond; exit 6", "Enter"])?;
    ensure!(desk.status("second")? == "6");
    over(world)?;
    seen.note(world, "a session taken over", &["in-the-first", "in-the-second", "exit status 6"])
}
