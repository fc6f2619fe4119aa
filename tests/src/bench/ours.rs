//! Belay in a lab: relay, one device behind its NAT, a laptop that is logged in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;
use serde_json::Value;

use super::Way;
use crate::lab::{Lab, Netns, Proc};
use crate::program;

/// The device's name.
const DEVICE: &str = "demo";

/// A start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay that runs in the lab's `relay`.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub process: Proc,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its first administrator's login code.
    code: String,
}

/// A deployment that does not run yet.
#[derive(Debug)]
pub struct Deployment {
    /// The relay's data directory.
    pub data: PathBuf,
    address: SocketAddr,
    code: String,
}

impl Deployment {
    /// Makes one that will listen on this port.
    ///
    /// # Errors
    /// When `belay-relay init` fails.
    pub fn init(lab: &Lab, name: &str, port: u16) -> Result<Self> {
        let data = lab.dir().join(name);
        let address = SocketAddr::from((lab.address("relay"), port));
        let mut command = Command::new(program("belay-relay")?);
        command.arg("init").arg("--data").arg(&data).arg("--json");
        command.args(["--name", &address.to_string(), "--listen", &address.to_string()]);
        let said = json(&mut command)?;
        let code = text(&said, "login_code")?;
        Ok(Self { data, address, code })
    }

    /// Starts its relay and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&self, lab: &Lab) -> Result<Relay> {
        let ns = lab.ns("relay");
        let mut command = ns.bare(program("belay-relay")?);
        // A line of log for each of 20,000 devices is not what is measured.
        command.arg("run").arg("--data").arg(&self.data).env("RUST_LOG", "warn");
        let process = lab.spawn("belay-relay", command)?;
        let deadline = Instant::now() + PATIENCE;
        while ns.run(|| std::net::TcpStream::connect(self.address))?.is_err() {
            ensure!(Instant::now() < deadline, "the relay does not listen: {}", process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Relay { process, address: self.address, code: self.code.clone() })
    }
}

/// The whole of it.
#[derive(Debug)]
pub struct Ours {
    /// The relay.
    pub relay: Relay,
    /// The device's supervisor.
    pub agent: Proc,
    home: PathBuf,
    ssh_config: PathBuf,
}

impl Ours {
    /// Brings relay, device and login up.
    ///
    /// # Errors
    /// When a part does not start, or the device does not come online.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, |_| Ok(()))
    }

    /// The same; `enrolled` is given the device's state directory before its agent runs.
    ///
    /// # Errors
    /// When a part does not start, or the device does not come online.
    pub fn start_with(lab: &Lab, enrolled: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        Self::start_all(lab, "", enrolled)
    }

    /// The same with these lines in the relay's configuration.
    ///
    /// # Errors
    /// When a part does not start, or the device does not come online.
    pub fn start_configured(lab: &Lab, settings: &str) -> Result<Self> {
        Self::start_all(lab, settings, |_| Ok(()))
    }

    fn start_all(
        lab: &Lab,
        settings: &str,
        enrolled: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let deployment = Deployment::init(lab, "relay", 443)?;
        let config = deployment.data.join("relay.toml");
        let written = std::fs::read_to_string(&config).context("reading relay.toml")?;
        std::fs::write(&config, written + settings).context("writing relay.toml")?;
        let relay = deployment.start(lab)?;
        let home = lab.dir().join("home");
        let laptop = lab.ns("laptop");
        log_in(laptop, &home, &relay.code)?;
        let token = ask(laptop, &home, &["token", "create", "--name", DEVICE])?;
        let token = text(&token, "token")?;
        let state = lab.dir().join("device");
        let device = lab.ns("device");
        let agent = program("belay-agent")?;
        let mut enrol = device.bare(&agent);
        enrol.args(["enroll", &token, "--state"]).arg(&state);
        run(&mut enrol)?;
        enrolled(&state)?;
        let mut command = with_empty_home(device, &agent);
        command.arg("run").arg("--state").arg(&state);
        let agent = lab.spawn("belay-agent", command)?;
        let ssh_config = lab.dir().join("belay-ssh-config");
        let ours = Self { relay, agent, home, ssh_config };
        ours.wait_online(laptop)?;
        let mut config = client(&ours.home, &["ssh-config"])?;
        std::fs::write(&ours.ssh_config, run_in(laptop, &mut config)?)
            .context("writing the ssh configuration")?;
        Ok(ours)
    }

    fn wait_online(&self, laptop: &Netns) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let devices = ask(laptop, &self.home, &["devices"])?;
            if devices.to_string().contains("\"online\":true") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the device stays offline: {}", self.agent.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the device's line is up, and has been for so many seconds.
    ///
    /// # Errors
    /// When the relay cannot be asked.
    pub fn line_is_up(&self, laptop: &Netns, seconds: f64) -> Result<bool> {
        let devices = ask(laptop, &self.home, &["devices"])?;
        let since = devices.pointer("/0/line/since").and_then(Value::as_u64);
        let now = belay_tunnel::clock::now().0;
        Ok(since.is_some_and(|since| now.saturating_sub(since) as f64 + 1.0 >= seconds))
    }

    /// Plain `ssh` with the configuration that `belay ssh-config` writes.
    #[must_use]
    pub fn ssh(&self) -> Way {
        let config = self.ssh_config.display().to_string();
        let host = format!("root@{DEVICE}.belay");
        Way {
            name: "ssh over belay",
            program: "ssh".into(),
            plain: vec!["-F".into(), config.clone(), host.clone()],
            terminal: vec!["-tt".into(), "-F".into(), config, host],
            environment: Vec::new(),
        }
    }

    /// `belay exec`.
    ///
    /// # Errors
    /// When `belay` is not built.
    pub fn exec(&self) -> Result<Way> {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Ok(Way {
            name: "belay exec",
            program: program("belay")?,
            plain: words(&["exec", "--login", "root", DEVICE, "--"]),
            terminal: words(&["exec", "-t", "--login", "root", DEVICE, "--"]),
            environment: vec![("BELAY_HOME".into(), self.home.clone())],
        })
    }

    /// The supervisor and its workers.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn agent_processes(&self) -> Result<Vec<Pid>> {
        let mut found = vec![self.agent.pid()];
        let mut at = 0;
        while let Some(pid) = found.get(at) {
            at += 1;
            let path = format!("/proc/{pid}/task/{pid}/children");
            // A process that has just ended has no children.
            let children = std::fs::read_to_string(path).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|c| c.parse::<i32>().ok()) {
                // A session's own programs are not the agent's memory.
                if same_program(self.agent.pid(), child) {
                    found.push(Pid::from_raw(child));
                }
            }
        }
        Ok(found)
    }
}

/// A command whose sessions find an empty home. What this machine's root keeps in its own (a shell's
/// start-up files that take half a second) is not what is measured, of ours or of the peer's.
pub(super) fn with_empty_home(node: &Netns, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = node.command("sh");
    command.args(["-c", r#"mount -t tmpfs -o mode=700 home ~root && exec "$@""#, "sh"]);
    command.arg(program);
    command
}

fn same_program(agent: Pid, other: i32) -> bool {
    let program = |pid: i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(agent.as_raw()).is_some_and(|ours| program(other) == Some(ours))
}

fn log_in(laptop: &Netns, home: &Path, code: &str) -> Result<()> {
    let mut command = client(home, &["login", "--password-stdin"])?;
    command.env("BELAY_CODE", code);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = laptop.run(|| command.spawn())?.context("starting belay login")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::io::Write::write_all(&mut stdin, b"a password of the benchmark\n")
        .context("giving the password")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for belay login")?;
    ensure!(
        output.status.success(),
        "belay login: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn client(home: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("belay")?);
    command.args(arguments).env("BELAY_HOME", home).stdin(Stdio::null());
    Ok(command)
}

fn ask(laptop: &Netns, home: &Path, arguments: &[&str]) -> Result<Value> {
    let mut command = client(home, arguments)?;
    command.arg("--json");
    serde_json::from_str(&run_in(laptop, &mut command)?).context("an answer that is not JSON")
}

fn run_in(ns: &Netns, command: &mut Command) -> Result<String> {
    ns.run(|| run(command))?
}

fn json(command: &mut Command) -> Result<Value> {
    serde_json::from_str(&run(command)?).context("an answer that is not JSON")
}

/// Runs to the end; standard output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("output that is not text")
}

fn text(answer: &Value, key: &str) -> Result<String> {
    let found = answer.get(key).and_then(Value::as_str);
    found.map(ToOwned::to_owned).with_context(|| format!("no {key} in {answer}"))
}
