//! The peer: what people build from OpenSSH. The device's sshd is behind `ssh -R` to an sshd on
//! the relay, and the laptop jumps through that one with `ssh -J`. All settings that matter for
//! speed are OpenSSH's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::ours::{run, with_empty_home};
use crate::lab::{Lab, Netns, Proc};

/// The relay's sshd.
const RELAY_PORT: u16 = 2022;

/// The device's sshd, and the port on the relay that leads to it.
const DEVICE_PORT: u16 = 2222;

/// Debian's path; sshd must be started by its absolute one.
const SSHD: &str = "/usr/sbin/sshd";

const PATIENCE: Duration = Duration::from_secs(60);

/// Both servers and the tunnel between them.
#[derive(Debug)]
pub struct Peer {
    config: PathBuf,
    // Ended in this order: the tunnel before the servers.
    _tunnel: Proc,
    _servers: [Proc; 2],
}

impl Peer {
    /// Brings servers and tunnel up.
    ///
    /// # Errors
    /// When OpenSSH is not installed, or a part does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        ensure!(Path::new(SSHD).exists(), "{SSHD} is missing: apt-get install openssh-server");
        // Where sshd changes its root to; Debian's service makes it.
        fs::create_dir_all("/run/sshd").context("making /run/sshd")?;
        let dir = lab.dir().join("peer");
        fs::create_dir(&dir).context("making the peer's directory")?;
        for key in ["relay-host", "device-host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)))?;
        }
        let relay = lab.address("relay").to_string();
        let known =
            [("relay-host", format!("[{relay}]:{RELAY_PORT}")), ("device-host", "behind".into())]
                .iter()
                .map(|(key, name)| Ok(format!("{name} {}", public(&dir, key)?)))
                .collect::<Result<String>>()?;
        fs::write(dir.join("known_hosts"), known).context("writing known_hosts")?;
        let config = dir.join("ssh_config");
        fs::write(&config, ssh_config(&dir, &relay)).context("writing ssh_config")?;

        let servers = [
            server(lab, &dir, "relay", &relay, RELAY_PORT)?,
            server(lab, &dir, "device", "127.0.0.1", DEVICE_PORT)?,
        ];
        let mut tunnel = lab.ns("device").bare("ssh");
        let forward = format!("127.0.0.1:{DEVICE_PORT}:127.0.0.1:{DEVICE_PORT}");
        tunnel.arg("-F").arg(&config).args(["-N", "-R", &forward]);
        tunnel.args(["-o", "ExitOnForwardFailure=yes", "relay-alone"]);
        let tunnel = lab.spawn("ssh-reverse", tunnel)?;
        wait_for(lab.ns("relay"), &format!("127.0.0.1:{DEVICE_PORT}"))?;
        Ok(Self { config, _tunnel: tunnel, _servers: servers })
    }

    /// `ssh -J`.
    #[must_use]
    pub fn ssh(&self) -> Way {
        let config = self.config.display().to_string();
        let host = || "behind".to_owned();
        Way {
            name: "ssh -J, ssh -R",
            program: "ssh".into(),
            plain: vec!["-F".into(), config.clone(), host()],
            terminal: vec!["-tt".into(), "-F".into(), config, host()],
            environment: Vec::new(),
        }
    }
}

fn public(dir: &Path, key: &str) -> Result<String> {
    fs::read_to_string(dir.join(format!("{key}.pub"))).context("reading a public key")
}

fn ssh_config(dir: &Path, relay: &str) -> String {
    let dir = dir.display();
    format!(
        "Host relay-alone\n    HostName {relay}\n    Port {RELAY_PORT}\n\
         Host behind\n    HostName 127.0.0.1\n    Port {DEVICE_PORT}\n    HostKeyAlias behind\n    \
         ProxyJump relay-alone\n\
         Host *\n    User root\n    IdentityFile {dir}/user\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile {dir}/known_hosts\n    GlobalKnownHostsFile /dev/null\n    \
         StrictHostKeyChecking yes\n    BatchMode yes\n"
    )
}

fn server(lab: &Lab, dir: &Path, node: &'static str, listen: &str, port: u16) -> Result<Proc> {
    let file = dir.join(format!("{node}-sshd_config"));
    let (keys, shown) = (dir.join(format!("{node}-host")), dir.display());
    let config = format!(
        "ListenAddress {listen}:{port}\nHostKey {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         AuthorizedKeysFile {shown}/user.pub\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nPrintMotd no\nPrintLastLog no\nUseDNS no\n",
        keys.display()
    );
    fs::write(&file, config).context("writing sshd_config")?;
    let mut command = with_empty_home(lab.ns(node), SSHD);
    command.arg("-D").arg("-e").arg("-f").arg(&file);
    let process = lab.spawn(&format!("sshd-{node}"), command)?;
    wait_for(lab.ns(node), &format!("{listen}:{port}"))?;
    Ok(process)
}

fn wait_for(ns: &Netns, address: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while ns.run(|| std::net::TcpStream::connect(address))?.is_err() {
        ensure!(Instant::now() < deadline, "nothing listens on {address} in {}", ns.name());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
