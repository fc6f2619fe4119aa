//! A terminal outlives its client, and another client has it as it was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, World, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::resume::workers;

/// A terminal on the laptop that can be looked at: a tmux server of its own.
pub(crate) struct Desk<'a> {
    world: &'a World,
    socket: PathBuf,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(world: &'a World) -> Result<Self> {
        for node in ["laptop", "device"] {
            world.lab.ns(node).ip("link set lo up")?;
        }
        Ok(Self { world, socket: world.path("tmux") })
    }

    /// Leaves it standing.
    pub(crate) fn leave(self) -> PathBuf {
        let socket = self.socket.clone();
        std::mem::forget(self);
        socket
    }

    /// Comes back to one that was left.
    pub(crate) fn again(world: &'a World, socket: PathBuf) -> Self {
        Self { world, socket }
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.world.lab.ns("laptop").command("tmux");
        command.arg("-f/dev/null").arg("-S").arg(&self.socket).args(arguments);
        command.env("BELAY_HOME", self.world.home("admin")).env_remove("TMUX");
        Ok(run(&mut command)?.success()?.stdout)
    }

    /// A window of 80 × 24 in which this runs; what is left when it ended stays to be seen.
    pub(crate) fn window(&self, name: &str, command: &Command) -> Result<()> {
        self.window_of(name, command, &self.world.home("admin"))
    }

    /// The same with somebody's login.
    pub(crate) fn window_of(&self, name: &str, command: &Command, home: &Path) -> Result<()> {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let line = format!("exec env BELAY_HOME='{}' {}", home.display(), words.join(" "));
        let size = ["-d", "-x", "80", "-y", "24", "-s", name];
        self.tmux(&[["new-session"].as_slice(), &size, &[&line]].concat())?;
        self.tmux(&["set-option", "-w", "-t", name, "remain-on-exit", "on"])?;
        Ok(())
    }

    pub(crate) fn keys(&self, name: &str, keys: &[&str]) -> Result<()> {
        self.tmux(&[["send-keys", "-t", name].as_slice(), keys].concat())?;
        Ok(())
    }

    pub(crate) fn screen(&self, name: &str) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-t", name])
    }

    pub(crate) fn shows(&self, name: &str, text: &str) -> Result<()> {
        // Lines that were wrapped are one again.
        let joined = || self.tmux(&["capture-pane", "-p", "-J", "-t", name]);
        let waited =
            self.world.wait_for(&format!("{text:?} in {name}"), || Ok(joined()?.contains(text)));
        waited.with_context(|| self.screen(name).unwrap_or_default())
    }

    /// Gives a window another size.
    pub(crate) fn resize(&self, name: &str, columns: u32, rows: u32) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-t", name, "-x", &columns, "-y", &rows])?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<Pid> {
        let pid = self.tmux(&["display-message", "-p", "-t", name, "#{pane_pid}"])?;
        Ok(Pid::from_raw(pid.trim().parse()?))
    }

    /// Waits until the window's program has ended, and says how.
    pub(crate) fn status(&self, name: &str) -> Result<String> {
        let ask = "#{pane_dead}:#{pane_dead_status}";
        let mut status = String::new();
        // A pane is dead before its status is known; tmux may miss the signal that says so, and
        // looks again when another of its children ends.
        self.world.wait_for(&format!("{name} ends"), || {
            let said = self.tmux(&["display-message", "-p", "-t", name, ask])?;
            let Some(known) = said.trim().strip_prefix("1:") else { return Ok(false) };
            if known.is_empty() {
                self.tmux(&["run-shell", "true"])?;
            }
            status = known.to_owned();
            Ok(!status.is_empty())
        })?;
        Ok(status)
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        drop(self.tmux(&["kill-server"]));
    }
}

/// The one open session, once it is waiting for a client or has one. Of a client that was killed
/// nothing is heard, so the relay waits for a minute before it takes its line for dead.
pub(crate) fn session(world: &World, attached: bool) -> Result<String> {
    let mut id = String::new();
    let what = format!("one session, attached: {attached}");
    let mut found = || {
        let sessions = world.belay_json(&["sessions"])?;
        let [only] = sessions.as_array().context("no list")?.as_slice() else { return Ok(false) };
        id = only["id"].as_str().context("no id")?.to_owned();
        Ok(only["attached"] == attached)
    };
    world.wait_for(&what, &mut found).or_else(|_| world.wait_for(&what, &mut found))?;
    Ok(id)
}

/// Waits until there is none.
pub(crate) fn over(world: &World) -> Result<()> {
    world.wait_for("the session is over", || {
        Ok(world.belay_json(&["sessions"])?.as_array().is_some_and(Vec::is_empty))
    })
}

/// A shell with vim in it and a loop that counts behind it, in a window of this name.
fn at_work(desk: &Desk<'_>, name: &str) -> Result<()> {
    let counted = desk.world.path("counted");
    desk.shows(name, "#")?;
    let counts =
        format!("(n=0; while n=$((n+1)); do echo $n >> {}; sleep 0.05; done) &", counted.display());
    desk.keys(name, &[&counts, "Enter"])?;
    desk.keys(name, &["vim -u NONE -N", "Enter"])?;
    desk.shows(name, "VIM - Vi IMproved")?;
    desk.keys(name, &["i", "first words"])?;
    desk.shows(name, "first words")?;
    desk.shows(name, "-- INSERT --")
}

/// What was counted so far.
fn counted(world: &World) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(world.path("counted"))?;
    text.lines().map(|line| Ok(line.parse()?)).collect()
}

/// Goes on in the window: the same editor, the same loop, and an orderly end.
fn goes_on(desk: &Desk<'_>, name: &str, before: &str) -> Result<()> {
    let world = desk.world;
    desk.shows(name, "-- INSERT --")?;
    world.wait_for("the same screen", || Ok(desk.screen(name)? == before)).with_context(|| {
        format!("before:\n{before}\nnow:\n{}", desk.screen(name).unwrap_or_default())
    })?;
    desk.keys(name, &[" and more"])?;
    desk.shows(name, "first words and more")?;
    desk.keys(name, &["Escape", ":q!", "Enter"])?;
    let far = counted(world)?.len();
    world.wait_for("the loop counts on", || Ok(counted(world)?.len() > far + 5))?;
    let numbers = counted(world)?;
    ensure!(numbers.iter().zip(1..).all(|(n, wanted)| *n == wanted), "{numbers:?}");
    desk.keys(name, &["kill %1; exit 7", "Enter"])?;
    ensure!(desk.status(name)? == "7", "status {}", desk.status(name)?);
    over(world)?;
    world.wait_for("the worker is gone", || Ok(workers(world)? == 0))
}

#[test]
fn a_shell_whose_client_was_killed_is_taken_up_by_another() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    desk.window("one", &world.belay(&["shell", DEVICE]))?;
    at_work(&desk, "one")?;
    let before = desk.screen("one")?;
    kill(desk.pid("one")?, Signal::SIGKILL)?;
    let id = session(&world, false)?;
    desk.window("two", &world.belay(&["attach"]))?;
    goes_on(&desk, "two", &before)?;
    let kinds: Vec<_> = world
        .decisions()?
        .into_iter()
        .filter(|d| d.session.is_some_and(|session| session.to_string() == id))
        .filter(|d| d.kind.starts_with("session-"))
        .map(|d| d.kind)
        .collect();
    let order = ["session-opened", "session-detached", "session-taken-over", "session-closed"];
    ensure!(kinds == order, "{kinds:?}");
    Ok(())
}

#[test]
fn plain_ssh_that_was_killed_is_taken_up_by_belay() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    let mut ssh = world.openssh("ssh")?;
    desk.window("one", ssh.arg("-t").arg(format!("root@{DEVICE}.belay")))?;
    at_work(&desk, "one")?;
    let before = desk.screen("one")?;
    kill(desk.pid("one")?, Signal::SIGKILL)?;
    let id = session(&world, false)?;
    desk.window("two", &world.belay(&["attach", id.get(..30).unwrap_or_default()]))?;
    goes_on(&desk, "two", &before)
}

#[test]
fn a_session_that_has_a_client_is_taken_over_and_back_and_each_is_told() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    desk.window("one", &world.belay(&["shell", DEVICE]))?;
    at_work(&desk, "one")?;
    let before = desk.screen("one")?;
    let id = session(&world, true)?;
    desk.window("two", &world.belay(&["attach", &id]))?;
    desk.shows("two", "first words")?;
    ensure!(desk.status("one")? == "255", "status {}", desk.status("one")?);
    desk.shows("one", "takes it back")?;
    desk.window("three", &world.belay(&["attach", &id]))?;
    ensure!(desk.status("two")? == "255", "status {}", desk.status("two")?);
    desk.shows("two", "takes it back")?;
    goes_on(&desk, "three", &before)
}

#[test]
fn a_program_that_ended_without_a_client_tells_the_next_one_how() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let desk = Desk::new(&world)?;
    let ends = world.path("ends");
    let wait = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.1; done; echo last words; exit 9",
        ends.display()
    );
    desk.window("one", &world.belay(&["exec", "-t", DEVICE, "--", &wait]))?;
    desk.shows("one", "begun")?;
    let id = session(&world, true)?;
    kill(desk.pid("one")?, Signal::SIGKILL)?;
    std::fs::write(&ends, "")?;
    world.wait_for("the program has ended", || {
        let agent = world.agents.get(DEVICE).context("no agent")?;
        Ok(agent.log().contains("exit=9"))
    })?;
    desk.window("two", &world.belay(&["attach", &id]))?;
    ensure!(desk.status("two")? == "9", "status {}", desk.status("two")?);
    desk.shows("two", "last words")?;
    world.wait_for("the worker is gone", || Ok(workers(&world)? == 0))
}

#[test]
fn a_terminal_nobody_comes_back_to_is_gone_when_its_window_is_over() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let config = world.relay_data().join("relay.toml");
    let settings = std::fs::read_to_string(&config)? + "\nresume_interactive_seconds = 3\n";
    std::fs::write(&config, settings)?;
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()?;
    world.wait_online(DEVICE)?;
    let desk = Desk::new(&world)?;
    let mut ssh = world.openssh("ssh")?;
    desk.window("one", ssh.arg("-t").arg(format!("root@{DEVICE}.belay")))?;
    desk.shows("one", "#")?;
    let id = session(&world, true)?;
    kill(desk.pid("one")?, Signal::SIGKILL)?;
    world.wait_for("the worker is gone", || Ok(workers(&world)? == 0))?;
    over(&world)?;
    let refused = run(&mut world.belay(&["attach", &id]))?.expect_status(255)?;
    ensure!(refused.stderr.contains("no open session"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn what_has_no_terminal_is_not_taken_from_whoever_has_it() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let command = world.belay(&["exec", DEVICE, "--", "echo begun; exec sleep 600"]);
    let mut running = world.lab.spawn("running", command)?;
    running.wait_for_log("begun", Duration::from_secs(20))?;
    let id = session(&world, true)?;
    let refused = run(&mut world.belay(&["attach", &id]))?.expect_status(255)?;
    ensure!(refused.stderr.contains("no terminal"), "{}", refused.stderr);
    ensure!(running.try_wait()?.is_none(), "it ended");
    session(&world, true)?;
    Ok(())
}
