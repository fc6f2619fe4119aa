//! A whole deployment inside a [`Lab`]: relay, an enrolled device behind NAT, a logged-in
//! administrator on the laptop. Real binaries, nothing else.

#![allow(clippy::indexing_slicing, reason = "JSON of our own programs, in tests")]

mod raw;
mod run;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Lab, Proc, Topology};
pub use raw::{Credentials, Identity, RawPeer, honest_hello};
pub use run::{Outcome, run, run_with_input};

/// The relay's name in the lab, and its port.
pub const RELAY: &str = "relay.lab:443";

/// The administrator's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// The one device of a standard world.
pub const DEVICE: &str = "demo";

/// Long enough for a loaded machine; nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A deployment. Everything in it ends with it.
pub struct World {
    /// The running relay; `None` while a test has it stopped.
    pub relay: Option<Proc>,
    /// Running agents by device name.
    pub agents: BTreeMap<String, Proc>,
    /// More environment of our programs, by the node they run in.
    environment: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// The lab. Last, so that it outlives what runs in it.
    pub lab: Lab,
}

impl World {
    /// The standard lab with relay, device `demo` and administrator `admin`; `None` (and a loud
    /// line) where there is no lab.
    ///
    /// # Errors
    /// When any part of it does not start.
    pub fn standard_or_skip() -> Result<Option<Self>> {
        Self::new_or_skip(&Topology::default())
    }

    /// The same in another topology.
    ///
    /// # Errors
    /// When any part of it does not start.
    pub fn new_or_skip(topology: &Topology) -> Result<Option<Self>> {
        match Lab::new_or_skip(topology)? {
            Some(lab) => {
                let mut world = Self::bare(lab)?;
                world.add_device(DEVICE, "device", &[])?;
                world.wait_online(DEVICE)?;
                Ok(Some(world))
            }
            None => Ok(None),
        }
    }

    /// Relay and administrator in this lab, no device yet.
    ///
    /// # Errors
    /// When any part of it does not start.
    pub fn bare(lab: Lab) -> Result<Self> {
        let (agents, environment) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { relay: None, agents, environment, lab };
        fs::create_dir_all(world.path("home"))?;
        let init = run(world
            .lab
            .ns("relay")
            .command(binary("belay-relay"))
            .args(["init", "--name", RELAY, "--listen", "0.0.0.0:443", "--json", "--data"])
            .arg(world.relay_data()))?
        .success()?;
        let code = init.json()?["login_code"].as_str().context("no login code")?.to_owned();
        world.start_relay()?;
        world.log_in("admin", Some(&code))?;
        Ok(world)
    }

    /// Sets a variable for our programs that are started in a node from now on.
    pub fn set_variable(&mut self, node: &'static str, name: &'static str, value: &str) {
        self.environment.entry(node).or_default().insert(name, value.to_owned());
    }

    /// Takes all of a node's variables back.
    pub fn clear_variables(&mut self, node: &'static str) {
        self.environment.remove(node);
    }

    /// A program in a node, with the lab's names and the node's variables.
    pub fn command(&self, node: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.lab.ns(node).command(program);
        command.envs(self.environment.get(node).into_iter().flatten());
        command
    }

    /// A file or folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    /// The relay's data directory.
    pub fn relay_data(&self) -> PathBuf {
        self.path("relay")
    }

    /// A device's state directory.
    pub fn device_state(&self, device: &str) -> PathBuf {
        self.path(&format!("agent-{device}"))
    }

    /// A person's `BELAY_HOME`.
    pub fn home(&self, user: &str) -> PathBuf {
        self.path("home").join(user)
    }

    /// Starts the relay and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_relay(&mut self) -> Result<()> {
        self.start_relay_with(&[])
    }

    /// The same with more environment.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_relay_with(&mut self, env: &[(&str, &str)]) -> Result<()> {
        let mut command = self.lab.ns("relay").command(binary("belay-relay"));
        command.arg("run").arg("--data").arg(self.relay_data());
        command.envs(env.iter().copied());
        let mut relay = self.lab.spawn("relay", command)?;
        relay.wait_for_log("relay running", PATIENCE)?;
        self.relay = Some(relay);
        Ok(())
    }

    /// The relay's process.
    ///
    /// # Errors
    /// When a test has stopped it.
    pub fn relay(&mut self) -> Result<&mut Proc> {
        self.relay.as_mut().context("the relay is stopped")
    }

    /// `belay` as a person, on the laptop.
    pub fn belay_as(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("laptop", binary("belay"));
        command.args(arguments).env("BELAY_HOME", self.home(user)).stdin(Stdio::null());
        command
    }

    /// `belay` as the administrator.
    pub fn belay(&self, arguments: &[&str]) -> Command {
        self.belay_as("admin", arguments)
    }

    /// Runs `belay` as the administrator with `--json` and reads what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn belay_json(&self, arguments: &[&str]) -> Result<Value> {
        run(self.belay(arguments).arg("--json"))?.success()?.json()
    }

    /// Logs a person in, with a one-time code or with the password.
    ///
    /// # Errors
    /// When the relay does not take it.
    pub fn log_in(&self, user: &str, code: Option<&str>) -> Result<()> {
        let mut command = self.belay_as(user, &["login", "--password-stdin"]);
        match code {
            Some(code) => command.args(["--code", code]),
            None => command.args(["--user", user]),
        };
        run_with_input(&mut command, format!("{PASSWORD}\n").as_bytes())?.success()?;
        Ok(())
    }

    /// Adds a person with these flags of `belay user add`, and logs them in.
    ///
    /// # Errors
    /// When either fails.
    pub fn add_user(&self, user: &str, flags: &[&str]) -> Result<()> {
        let arguments = [&["user", "add", user], flags].concat();
        let added = self.belay_json(&arguments)?;
        let code = added["login_code"].as_str().context("no login code")?.to_owned();
        self.log_in(user, Some(&code))
    }

    /// An enrolment token, with flags of `belay token create`.
    ///
    /// # Errors
    /// When it is not made.
    pub fn token(&self, flags: &[&str]) -> Result<String> {
        let made = self.belay_json(&[&["token", "create"], flags].concat())?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }

    /// Enrols a device in a node of the lab and starts its agent.
    ///
    /// # Errors
    /// When either fails.
    pub fn add_device(&mut self, device: &str, node: &str, labels: &[&str]) -> Result<()> {
        let mut flags = vec!["--name", device];
        for label in labels {
            flags.extend(["--label", label]);
        }
        let token = self.token(&flags)?;
        run(&mut self.enrol(device, node, &token))?.success()?;
        self.start_agent(device, node)
    }

    /// `belay-agent enroll` in a node.
    pub fn enrol(&self, device: &str, node: &str, token: &str) -> Command {
        let mut command = self.command(node, binary("belay-agent"));
        command.args(["enroll", token, "--state"]).arg(self.device_state(device));
        command.stdin(Stdio::null());
        command
    }

    /// Starts a device's agent.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_agent(&mut self, device: &str, node: &str) -> Result<()> {
        let mut command = self.command(node, binary("belay-agent"));
        command.args(["run", "--state"]).arg(self.device_state(device));
        let agent = self.lab.spawn(&format!("agent-{device}"), command)?;
        self.agents.insert(device.to_owned(), agent);
        Ok(())
    }

    /// `belay-agent` with this device's state, in a node.
    pub fn agent(&self, device: &str, node: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(node, binary("belay-agent"));
        command.args(arguments).arg("--state").arg(self.device_state(device));
        command.stdin(Stdio::null());
        command
    }

    /// What a device's line runs over, as the relay has it; `None` when it has none.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn carrier(&self, device: &str) -> Result<Option<String>> {
        Ok(self.device(device)?["line"]["carrier"].as_str().map(ToOwned::to_owned))
    }

    /// A device as `belay devices` shows it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn device(&self, device: &str) -> Result<Value> {
        let devices = self.belay_json(&["devices"])?;
        let list = devices.as_array().or_else(|| devices["devices"].as_array());
        list.into_iter()
            .flatten()
            .find(|entry| entry["name"] == device)
            .cloned()
            .with_context(|| format!("no device {device} in {devices}"))
    }

    /// Waits until a device answers.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`].
    pub fn wait_online(&self, device: &str) -> Result<()> {
        self.wait_for(&format!("{device} online"), || {
            Ok(self.device(device)?["online"] == Value::Bool(true))
        })
    }

    /// Waits until a device holds no line.
    ///
    /// # Errors
    /// When it still does after [`PATIENCE`].
    pub fn wait_offline(&self, device: &str) -> Result<()> {
        self.wait_for(&format!("{device} offline"), || {
            Ok(self.device(device)?["online"] == Value::Bool(false))
        })
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// When it does not hold within [`PATIENCE`], or cannot be asked.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds()? {
            if Instant::now() > deadline {
                bail!("waited {} s in vain for: {what}", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the relay recorded, oldest first: rows of `decisions` as JSON objects.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn decisions(&self) -> Result<Vec<belay_relay::store::Decision>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let store = belay_relay::store::Store::open(&self.relay_data()).await?;
            let mut all = Vec::new();
            loop {
                let after = all.last().map_or(0, |last: &belay_relay::store::Decision| last.seq);
                let page = store.decisions(after).await?;
                if page.is_empty() {
                    return Ok(all);
                }
                all.extend(page);
            }
        })
    }

    /// Whether the relay recorded an event of this kind with this code.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn recorded(&self, kind: &str, code: Option<&str>) -> Result<bool> {
        let decisions = self.decisions()?;
        Ok(decisions
            .iter()
            .any(|d| d.kind == kind && (code.is_none() || d.code.as_deref() == code)))
    }

    /// An `ssh_config` for a person: what `belay ssh-config` prints, in a file.
    ///
    /// # Errors
    /// When it prints none.
    pub fn ssh_config(&self, user: &str) -> Result<PathBuf> {
        let text = run(&mut self.belay_as(user, &["ssh-config"]))?.success()?.stdout;
        let path = self.path(&format!("ssh_config-{user}"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// An OpenSSH program (`ssh`, `scp`, `sftp`) on the laptop, with `belay ssh-config`.
    ///
    /// # Errors
    /// When there is no configuration.
    pub fn openssh(&self, program: &str) -> Result<Command> {
        let config = self.ssh_config("admin")?;
        let mut command = self.command("laptop", program);
        command.arg("-F").arg(config).args(["-o", "BatchMode=yes"]).stdin(Stdio::null());
        Ok(command)
    }
}

/// One of our binaries, built beside this test.
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap_or_default();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir.join(name)
}

/// SHA-256 of a file, as `sha256sum` prints it.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    ensure!(output.status.success(), "sha256sum {}: failed", path.display());
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}
