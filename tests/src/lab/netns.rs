//! One anonymous network namespace.
//!
//! It is held by an open file, never by a name or a mount: when the last
//! process in it and the last holder of the file are gone, so is it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use super::tools;

/// A network namespace, alive as long as this value.
#[derive(Debug)]
pub struct Netns {
    name: &'static str,
    file: File,
    inode: u64,
    hosts: PathBuf,
    resolv: PathBuf,
}

impl Netns {
    /// Makes an empty namespace with its loopback up. `hosts` and `resolv` are
    /// the files [`Netns::command`] mounts over the machine's own.
    pub(super) fn new(name: &'static str, hosts: PathBuf, resolv: PathBuf) -> Result<Self> {
        // A thread of its own, because unshare moves the thread that calls it.
        let file = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            File::open("/proc/thread-self/ns/net").context("opening the new namespace")
        })
        .join()
        .map_err(|_| anyhow!("the thread that makes namespaces panicked"))?
        .with_context(|| format!("making the network namespace {name}"))?;
        let inode = file.metadata().context("reading the namespace's id")?.ino();
        let ns = Self { name, file, inode, hosts, resolv };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// The node's name in its lab.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What identifies the namespace to the kernel: the inode of `ns/net`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A path to the namespace that any process may open while this one lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// A command that will run `program` in this namespace, seeing the lab's
    /// names in `/etc/hosts`. Nothing forks on the way: the child's id,
    /// signals and exit status are those of `program` itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        const NAMES: &str = r#"mount --bind "$1" /etc/hosts || exit 125
[ ! -e /etc/resolv.conf ] || mount --bind "$2" /etc/resolv.conf || exit 125
shift 2
exec "$@""#;
        let mut command = self.bare("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
            .arg(NAMES)
            .arg("sh")
            .arg(&self.hosts)
            .arg(&self.resolv)
            .arg(program);
        command
    }

    /// As [`Netns::command`] without the lab's names: for network tools.
    #[must_use]
    pub fn bare(&self, program: impl AsRef<OsStr>) -> Command {
        let mut flag = std::ffi::OsString::from("--net=");
        flag.push(self.path());
        let mut command = Command::new("nsenter");
        command.arg(flag).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread that stands in this namespace: sockets opened
    /// there belong to it for good, whoever uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let outcome = scope
                .spawn(|| -> Result<T> {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("entering the namespace {}", self.name))?;
                    Ok(work())
                })
                .join();
            match outcome {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `ip` here with a line of arguments.
    ///
    /// # Errors
    /// When `ip` fails; the error holds what it said.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        tools::run(self.bare("ip").args(arguments.split_whitespace()))
    }

    /// Runs a shell line here; for what a test needs once.
    ///
    /// # Errors
    /// When it exits with anything but 0; the error holds what it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        tools::run(self.command("sh").args(["-euc", script]))
    }

    /// Loads an nftables script here.
    ///
    /// # Errors
    /// When `nft` refuses it; the error holds what it said.
    pub fn nft(&self, script: &str) -> Result<()> {
        tools::feed(self.bare("nft").args(["-f", "-"]), script)
    }

    /// Sets a `net.*` kernel parameter, which each namespace has for itself:
    /// `sysctl("netfilter/nf_conntrack_udp_timeout", "5")`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = Path::new("/proc/sys/net").join(key);
        self.run(|| std::fs::write(&file, value))?
            .with_context(|| format!("setting net/{key}={value} in {}", self.name))
    }
}
