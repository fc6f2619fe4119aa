//! What the agent writes, as systemd's journal has it: a real one, in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_agent::journal::Journal;
use belay_tests::lab::{Proc, loud};
use belay_tests::world::{DEVICE, World, binary, run};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::recording::last_session;

const REASON: &str = "pump 17 stands still, asked by the shift";

/// Its own `/run` and `/var/log`; of its files, what is to be read from outside. It listens to nobody but
/// to who writes to its sockets.
const SCRIPT: &str = r#"mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log || exit 125
mkdir -p /run/systemd/journald.conf.d /run/log/journal || exit 125
mount --bind "$1" /run/log/journal || exit 125
cat > /run/systemd/journald.conf.d/test.conf <<'END' || exit 125
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
RateLimitIntervalSec=0
END
exec "$2""#;

/// What systemd says to a service's program and systemd-cat does not: that its standard error is the journal
/// (systemd.exec(5)).
const SERVICE: &str =
    r#"JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec "$@""#;

/// A journal that runs on the device.
struct Journald {
    process: Proc,
    files: PathBuf,
}

impl Journald {
    /// Starts one; `None`, and a loud line, where there is none to start.
    fn start_or_skip(world: &World) -> Result<Option<Self>> {
        let at = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];
        let program = at.iter().find(|at| Path::new(at).exists());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there =
            |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
        // It runs nowhere without one (machine-id(5)).
        let named = std::fs::read("/etc/machine-id").is_ok_and(|id| id.len() >= 32);
        let Some(program) =
            program.filter(|_| is_there("journalctl") && is_there("systemd-cat") && named)
        else {
            loud("SKIPPED the test with a real journal: apt-get install systemd, and a machine-id");
            return Ok(None);
        };
        let files = world.path("journal");
        std::fs::create_dir_all(&files)?;
        let mut command = world.lab.ns("device").command("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(&files).arg(program);
        let process = world.lab.spawn("journald", command)?;
        let journald = Self { process, files };
        world.wait_for("the journal listens", || {
            Ok(journald.socket("socket").exists() && journald.socket("stdout").exists())
        })?;
        Ok(Some(journald))
    }

    /// One of its sockets, as it is reached from here.
    fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/systemd/journal/{name}", self.process.pid()))
    }

    /// The agent as a service: its standard error is the journal.
    fn start_agent(&self, world: &mut World) -> Result<()> {
        world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
        let mut command = world.lab.ns("device").bare("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.process.pid()));
        command.args(["--", "systemd-cat", "sh", "-c", SERVICE, "sh"]).arg(binary("belay-agent"));
        command.args(["run", "--state"]).arg(world.device_state(DEVICE));
        let agent = world.lab.spawn("agent-in-journal", command)?;
        world.agents.insert(DEVICE.to_owned(), agent);
        world.wait_online(DEVICE)
    }

    /// The entries that have all of these fields.
    fn entries(&self, fields: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new("journalctl");
        command.args(["--quiet", "--no-pager", "-o", "json", "--directory"]).arg(&self.files);
        let text = run(command.args(fields))?.success()?.stdout;
        text.lines().map(|line| serde_json::from_str(line).context("no entry")).collect()
    }
}

#[test]
fn who_why_and_what_stand_in_the_devices_journal_and_nothing_forges_a_field() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let Some(journald) = Journald::start_or_skip(&world)? else { return Ok(()) };
    journald.start_agent(&mut world)?;
    run(&mut world.belay(&["device", "label", DEVICE, "site=oslo"]))?.success()?;
    let role = ["--role", "engineer", "--label", "site=oslo", "--login", "root", "--break-glass"];
    world.add_user("eli", &role)?;
    // To the shell three lines, the later of which do nothing.
    let command = "echo in\nBELAY_USER=forged\nMESSAGE=forged";
    let breaking = ["exec", DEVICE, "--break-glass", REASON, "--", command];
    let done = run(&mut world.belay_as("eli", &breaking))?.success()?;
    ensure!(done.stdout == "in\n", "{done:?}");
    let id = last_session(&world)?;
    let session = format!("BELAY_SESSION={id}");
    world.wait_for("the end is in the journal", || {
        let all = journald.entries(&[&session])?;
        Ok(all.iter().any(|entry| says(entry, "session closed")))
    })?;

    let device = world.device(DEVICE)?["id"].as_str().context("no id")?.to_owned();
    let about = journald.entries(&[&session, "BELAY_USER=eli"])?;
    ensure!(about.len() > 3, "{about:?}");
    for entry in &about {
        ensure!(entry["SYSLOG_IDENTIFIER"] == "belay-agent", "{entry}");
        ensure!(entry["_TRANSPORT"] == "journal", "{entry}");
        ensure!(entry["BELAY_LOGIN"] == "root" && entry["BELAY_DEVICE"] == *device, "{entry}");
    }
    let glass = journald.entries(&[&format!("BELAY_REASON={REASON}")])?;
    let [glass] = glass.as_slice() else { anyhow::bail!("not one: {glass:?}") };
    ensure!(says(glass, "glass broken") && glass["PRIORITY"] == "4", "{glass}");
    ensure!(glass["BELAY_USER"] == "eli" && glass["BELAY_SESSION"] == *id, "{glass}");

    let opened = about.iter().find(|entry| says(entry, "channel open"));
    let opened = opened.context("no channel")?;
    ensure!(says(opened, "BELAY_USER=forged"), "the command is not in it: {opened}");
    for forged in ["BELAY_USER=forged", "MESSAGE=forged"] {
        ensure!(journald.entries(&[forged])?.is_empty(), "there is one with {forged}");
    }
    hostile_names(&journald)
}

fn says(entry: &Value, text: &str) -> bool {
    entry["MESSAGE"].as_str().is_some_and(|message| message.contains(text))
}

/// No name gets so far; were one to, it would stay one.
fn hostile_names(journald: &Journald) -> Result<()> {
    let log = tracing_subscriber::registry().with(Journal::at(&journald.socket("socket"))?);
    tracing::subscriber::with_default(log, || {
        let user = "anna\nBELAY_USER=root\n\nMESSAGE\n\u{4}\0\0\0\0\0\0\0evil\n\u{1b}[2J";
        tracing::info!(session = "hostile", user, reason = "x\nPRIORITY=0", "channel open");
    });
    let mut found = journald.entries(&["BELAY_SESSION=hostile"])?;
    let (entry, more) = (found.pop().context("it is not there")?, found.len());
    ensure!(more == 0, "{found:?}");
    let end = "\u{fffd}".repeat(8);
    let name = format!(
        "anna\u{fffd}BELAY_USER=root\u{fffd}\u{fffd}MESSAGE\u{fffd}{end}evil\u{fffd}\u{fffd}[2J"
    );
    ensure!(entry["BELAY_USER"] == *name, "{entry}");
    ensure!(entry["PRIORITY"] == "6" && says(&entry, "channel open"), "{entry}");
    ensure!(journald.entries(&["BELAY_USER=root"])?.is_empty(), "a name was two fields");
    Ok(())
}
