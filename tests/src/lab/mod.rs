//! A network lab of real kernel namespaces: routers that masquerade, public
//! and private addresses, cuts, loss, rebinding, slow links.
//!
//! ```text
//!  device 10.77.1.2 ── site (NAT) ──┐
//!                                   internet ── relay 198.18.1.2
//!  laptop 198.18.3.2 ─ [home (NAT)] ┘
//! ```
//!
//! Its law: a lab touches nothing outside the namespaces it made, and vanishes
//! whole. The namespaces have no names: they are held by file descriptors of
//! the test process, so the kernel frees them when that process ends however
//! it ends; what still runs inside is ended by [`Lab`]'s drop, or by the
//! [`reaper`] when the test process was killed. There is nothing to sweep.
//!
//! It is not a simulator: time is real, and so are the kernels' TCP, NAT and
//! routing. Delay, jitter and seeded loss come from [`link`], because not every
//! kernel has netem.

mod fault;
pub mod link;
mod netns;
pub mod pipe;
mod process;
mod reaper;
mod tools;
mod topology;
pub mod tun;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

pub use fault::Traffic;
pub use link::{Direction, Link, LinkConfig};
pub use netns::Netns;
pub use process::Proc;
pub use tools::available;
pub use topology::{Edge, Nat, Topology};

use reaper::Reaper;

/// One machine of the lab.
#[derive(Debug)]
pub struct Node {
    /// Its network namespace.
    ns: Netns,
    /// The address of its uplink interface, [`UPLINK`].
    address: Ipv4Addr,
    /// Its default gateway.
    gateway: Ipv4Addr,
    /// The node it hangs from; `None` for `internet` itself.
    parent: Option<&'static str>,
    /// How it masquerades what hangs from it.
    nat: Option<Nat>,
    /// How often [`Lab::rebind_nat`] was called here.
    rebinds: u32,
}

/// The interface of every node towards the internet.
pub const UPLINK: &str = "wan";

/// A running lab. Dropping it ends everything inside it.
#[derive(Debug)]
pub struct Lab {
    // Field order is drop order: links first, so that their forwarders see
    // their own end of input and leave by themselves.
    links: BTreeMap<&'static str, Link>,
    nodes: BTreeMap<&'static str, Node>,
    reaper: Reaper,
    dir: tempfile::TempDir,
    spawned: AtomicU32,
}

impl Lab {
    /// The lab of the module's picture: a plain masquerading `site` router, and
    /// a laptop with a public address.
    ///
    /// # Errors
    /// When the machine cannot make namespaces; see [`available`].
    pub fn standard() -> Result<Self> {
        Self::new(&Topology::default())
    }

    /// As [`Lab::standard`]; where this machine cannot hold a lab, says so in
    /// one line on standard error (once a process, past the test harness's
    /// capture) and gives `None`: the test then returns.
    ///
    /// # Errors
    /// When the machine can hold a lab but this one could not be built.
    pub fn standard_or_skip() -> Result<Option<Self>> {
        Self::new_or_skip(&Topology::default())
    }

    /// As [`Lab::new`], skipping like [`Lab::standard_or_skip`].
    ///
    /// # Errors
    /// When the machine can hold a lab but this one could not be built.
    pub fn new_or_skip(topology: &Topology) -> Result<Option<Self>> {
        if skip() {
            return Ok(None);
        }
        Self::new(topology).map(Some)
    }

    /// Builds a lab of any shape.
    ///
    /// # Errors
    /// When a namespace, an interface or a rule could not be made.
    pub fn new(topology: &Topology) -> Result<Self> {
        available().map_err(anyhow::Error::msg)?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("belay-lab-{}-", std::process::id()))
            .tempdir()
            .context("making the lab's directory")?;
        let mut lab = Self {
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            reaper: Reaper::start()?,
            dir,
            spawned: AtomicU32::new(0),
        };
        topology.build(&mut lab)?;
        Ok(lab)
    }

    /// The namespace of a node: `internet`, `relay`, `site`, `device`,
    /// `laptop`, and where the topology has them `carrier` and `home`.
    ///
    /// # Panics
    /// When there is no such node: a mistake in the test.
    #[must_use]
    pub fn ns(&self, node: &str) -> &Netns {
        &self.node(node).ns
    }

    /// The present address of a node's uplink.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn address(&self, node: &str) -> Ipv4Addr {
        self.node(node).address
    }

    /// The address under which the internet sees a node: its own, or that of
    /// the outermost router that masquerades it.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn public_address(&self, node: &str) -> Ipv4Addr {
        self.address(self.edge_of(node))
    }

    /// A directory of this lab, gone with it: state, sockets, logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The user-space link of an edge that the topology made one.
    #[must_use]
    pub fn link(&self, edge: &str) -> Option<&Link> {
        self.links.get(edge)
    }

    /// Starts a long-running program in a namespace: output goes to a file of
    /// the lab, and it is killed when the [`Proc`] or the lab is dropped.
    /// `command` comes from [`Netns::command`]; `name` is for its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Proc> {
        self.spawn_reading(name, command, Stdio::null())
    }

    /// The same, with something to read.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_reading(
        &self,
        name: &str,
        command: Command,
        stdin: impl Into<Stdio>,
    ) -> Result<Proc> {
        let number = self.spawned.fetch_add(1, Ordering::Relaxed);
        let log = self.dir().join(format!("{number:02}-{name}.log"));
        Proc::start(name, command, stdin.into(), log)
    }

    /// The files that [`Netns::command`] puts in place of the machine's own:
    /// every node's name resolves (`relay`, `device.lab` and so on), and DNS
    /// fails at once instead of leaking out or timing out.
    fn write_name_files(&self) -> Result<()> {
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, node) in &self.nodes {
            hosts.push_str(&format!("{} {name} {name}.lab\n", node.address));
        }
        std::fs::write(self.hosts_file(), hosts).context("writing the lab's hosts file")?;
        std::fs::write(self.resolv_file(), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            .context("writing the lab's resolv.conf")
    }

    fn hosts_file(&self) -> PathBuf {
        self.dir().join("hosts")
    }

    fn resolv_file(&self) -> PathBuf {
        self.dir().join("resolv.conf")
    }

    #[expect(clippy::panic, reason = "a test that names no node is itself wrong")]
    fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("the lab has no node {name:?}"))
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("the lab has no node {name:?}"))
    }

    /// The outermost node on the way from `node` to `internet`.
    fn edge_of<'a>(&self, node: &'a str) -> &'a str
    where
        'static: 'a,
    {
        let mut at = node;
        while let Some(parent) = self.node(at).parent {
            if parent == "internet" {
                break;
            }
            at = parent;
        }
        at
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.links.clear();
        let spaces: Vec<u64> = self.nodes.values().map(|node| node.ns.inode()).collect();
        reaper::end_all_in(&spaces);
        self.reaper.dismiss();
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            loud(&format!("the lab's logs are kept in {}", self.dir.path().display()));
        }
    }
}

/// Whether lab tests must be skipped here; says so loudly the first time.
#[must_use]
pub fn skip() -> bool {
    static SAID: Once = Once::new();
    match available() {
        Ok(()) => false,
        Err(why) => {
            SAID.call_once(|| loud(&format!("SKIPPED lab tests: {why}")));
            true
        }
    }
}

/// Writes one line to standard error past the test harness's capture, which
/// only takes what the print macros write.
pub fn loud(line: &str) {
    // Nothing to be done when standard error is gone.
    drop(writeln!(std::io::stderr(), "{line}"));
}
