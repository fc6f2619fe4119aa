//! mosh, the other program whose sessions outlive the network. It wants UDP straight to the far
//! host, which no device behind a NAT has: here it crosses one leg, and ends at the relay.

use std::fs::File;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use nix::pty::{Winsize, openpty};

use super::way::Running;
use crate::lab::Netns;

/// Where its servers listen, each on the first that is free.
const PORTS: &str = "60001:60099";

/// As most people have it.
const SCREEN: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// A client on a terminal of its own.
#[derive(Debug)]
pub struct Mosh {
    /// What is typed, and what the screen is told.
    pub terminal: File,
    /// The client. The server ends with the lab.
    pub running: Running,
}

impl Mosh {
    /// Starts a server that runs `remote`, and a client elsewhere.
    ///
    /// # Errors
    /// When mosh is not installed, or a part does not start.
    pub fn start(client: &Netns, server: &Netns, address: IpAddr, remote: &str) -> Result<Self> {
        let address = address.to_string();
        let mut command = server.command("mosh-server");
        command.args(["new", "-i", &address, "-p", PORTS, "--", "sh", "-c", remote]);
        let output = utf8(&mut command).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = said.lines().find_map(|line| line.strip_prefix("MOSH CONNECT "));
        let (port, key) = told.and_then(|told| told.trim().split_once(' ')).with_context(|| {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("mosh-server does not start (apt-get install mosh): {}", why.trim())
        })?;
        let pair = openpty(Some(&SCREEN), None).context("making a terminal")?;
        let mut command = client.command("mosh-client");
        command.args([address.as_str(), port]).env("MOSH_KEY", key).env("TERM", "xterm");
        // What it shows is what came back, not what it guesses.
        command.env("MOSH_PREDICTION_DISPLAY", "never");
        let terminal = File::from(pair.slave);
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
        let child = utf8(&mut command).spawn().context("starting mosh-client")?;
        Ok(Self { terminal: File::from(pair.master), running: Running(child) })
    }
}

/// It refuses to work without a UTF-8 locale.
fn utf8(command: &mut Command) -> &mut Command {
    command.env("LC_ALL", "C.UTF-8")
}
