//! Running the machine's network tools, and finding out whether they and the
//! rights to use them are there.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

/// Program, and the Debian package it is in.
const NEEDED: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
];

/// Whether this machine can hold a lab.
///
/// # Errors
/// One line: what is missing and what to do about it.
pub fn available() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(probe).clone()
}

fn probe() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("network namespaces need root: run the tests as root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
        .map(|&(_, package)| package)
        .collect();
    if !missing.is_empty() {
        return Err(format!("tools are missing: apt-get install {}", missing.join(" ")));
    }
    if let Err(error) = std::fs::File::open("/dev/net/tun") {
        return Err(format!("/dev/net/tun cannot be opened ({error}): modprobe tun"));
    }
    // One throw-away namespace with the one rule everything rests on.
    let mut trial = Command::new("unshare");
    trial.args(["--net", "--mount", "--", "nft", "-f", "-"]);
    feed(
        &mut trial,
        "table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }",
    )
    .map_err(|error| {
        let first = format!("{error:#}").lines().next().unwrap_or_default().to_owned();
        format!("this kernel or container allows no namespaces with NAT ({first}): run on a host or with --privileged")
    })
}

/// Runs to the end; standard output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end with `input` on standard input.
pub(super) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("waiting for {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    written.with_context(|| format!("writing to {command:?}"))
}
