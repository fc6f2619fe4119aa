//! The work that must not notice a fault: a copy, a synchronisation, a terminal with somebody
//! typing, a forwarded port, all at once, each with its own proof at the end.
//!
//! Its law: every byte is there once and in order, or [`Load::finish`] says which is not.

mod counted;
mod listener;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::world::{DEVICE, World, sha256};
use counted::Counted;
use listener::EchoServer;

/// How long everything may take to end after the last fault, on a loaded machine.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// What is under way.
pub struct Load {
    copy: Transfer,
    sync: Transfer,
    terminal: Counted,
    forward: Counted,
    tunnel: Child,
    _echo: EchoServer,
}

/// One program that moves a file.
struct Transfer {
    name: &'static str,
    child: Child,
    from: PathBuf,
    to: PathBuf,
    errors: PathBuf,
}

impl Load {
    /// Starts all of it, with files of this many bytes, and returns when each moves.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(world: &World, bytes: usize) -> Result<Self> {
        let folder = world.path("load");
        std::fs::create_dir_all(&folder)?;
        let copied = folder.join("copied");
        let synced = folder.join("synced");
        for (file, seed) in [(&copied, 1), (&synced, 2)] {
            std::fs::write(file, noise(bytes, seed))?;
        }
        for node in ["laptop", "device"] {
            world.lab.ns(node).ip("link set lo up")?;
        }
        let echo = EchoServer::start(world)?;
        let config = world.ssh_config("admin")?;

        let mut tunnel = world.openssh("ssh")?;
        tunnel
            .args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"])
            .arg(format!("127.0.0.1:7007:127.0.0.1:{}", EchoServer::PORT))
            .arg(format!("root@{DEVICE}.belay"));
        let tunnel = tunnel.stderr(log(world, "tunnel")?).spawn()?;

        let script = "stty raw -echo && echo ready && exec cat";
        let terminal = world.belay(&["exec", "-t", DEVICE, "--", script]);
        let terminal = Counted::program("terminal", terminal, log(world, "terminal")?)
            .with_context(|| said(world, "terminal"))?;
        let forward = Counted::port("forward", world, 7007)?;

        let to = folder.join("copied-there");
        let mut copy = world.openssh("scp")?;
        copy.arg(&copied).arg(format!("root@{DEVICE}.belay:{}", to.display()));
        let copy = Transfer::start(world, "scp", copy, copied, to)?;
        let to = folder.join("synced-here");
        let mut sync = world.command("laptop", "rsync");
        sync.arg("--inplace")
            .arg("-e")
            .arg(format!("ssh -F {} -o BatchMode=yes", config.display()))
            .arg(format!("root@{DEVICE}.belay:{}", synced.display()))
            .arg(&to)
            .stdin(Stdio::null());
        let sync = Transfer::start(world, "rsync", sync, synced, to)?;
        let load = Self { copy, sync, terminal, forward, tunnel, _echo: echo };
        load.copy.wait_for_bytes()?;
        load.sync.wait_for_bytes()?;
        load.terminal.wait_for(20)?;
        load.forward.wait_for(20)?;
        Ok(load)
    }

    /// How many counted lines have come back over the terminal: a sign of life.
    pub fn echoed(&self) -> u64 {
        self.terminal.echoed()
    }

    /// Waits until the terminal and the forwarded port answer what is typed from now on; how long
    /// that took.
    ///
    /// # Errors
    /// When they do not within the patience of a test.
    pub fn wait_alive(&self) -> Result<Duration> {
        let began = Instant::now();
        self.terminal.wait_for(self.terminal.typed() + 2)?;
        let took = began.elapsed();
        self.forward.wait_for(self.forward.typed() + 2)?;
        Ok(took)
    }

    /// Lets all of it come to its end, and proves it.
    ///
    /// # Errors
    /// What was lost, repeated, or did not end.
    pub fn finish(mut self) -> Result<()> {
        self.copy.finish()?;
        self.sync.finish()?;
        let typed = self.terminal.finish().context("the terminal")?;
        let sent = self.forward.finish().context("the forwarded port")?;
        ensure!(typed > 20 && sent > 20, "next to nothing was typed: {typed}, {sent}");
        ensure!(self.tunnel.try_wait()?.is_none(), "ssh -L had ended");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in [&mut self.tunnel, &mut self.copy.child, &mut self.sync.child] {
            // One that has ended needs no killing.
            if child.kill().is_ok() && child.wait().is_err() {
                crate::lab::loud("a program of the load cannot be waited for");
            }
        }
    }
}

impl Transfer {
    fn start(
        world: &World,
        name: &'static str,
        mut command: Command,
        from: PathBuf,
        to: PathBuf,
    ) -> Result<Self> {
        let errors = world.path(&format!("load/{name}.log"));
        let child = command
            .stdout(Stdio::null())
            .stderr(log(world, name)?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, from, to, errors })
    }

    fn wait_for_bytes(&self) -> Result<()> {
        let deadline = Instant::now() + ENDS_WITHIN;
        // rsync without --inplace, and scp's sftp, write the file itself from its start.
        while !std::fs::metadata(&self.to).is_ok_and(|file| file.len() > 0) {
            ensure!(Instant::now() < deadline, "{} moves nothing: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + ENDS_WITHIN;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    bail!("{} did not end: {}", self.name, self.said())
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.said());
        ensure!(sha256(&self.from)? == sha256(&self.to)?, "{}: the copy differs", self.name);
        Ok(())
    }
}

fn said(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(&format!("load/{name}.log"))).unwrap_or_default()
}

fn log(world: &World, name: &str) -> Result<std::fs::File> {
    Ok(std::fs::File::create(world.path(&format!("load/{name}.log")))?)
}

/// Bytes that do not compress, the same for the same seed (splitmix64).
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    out.truncate(bytes);
    out
}
