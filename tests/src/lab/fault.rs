//! What can go wrong in a lab, made on purpose while it runs.
//!
//! Cuts and losses act in `internet`'s forward chain, between two edges, in
//! both directions; they drop without a word, as a broken path does.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Lab, UPLINK, tools, topology};

/// What a cut takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// UDP alone: QUIC dies, TCP lives.
    Udp,
    /// TCP alone.
    Tcp,
    /// Every packet.
    All,
}

/// Makes the empty table that the faults fill.
pub(super) fn prepare(lab: &Lab) -> Result<()> {
    lab.ns("internet").nft(
        "table inet faults {
           chain cut { type filter hook forward priority 10; policy accept; }
           chain lose { type filter hook forward priority 20; policy accept; }
         }",
    )
}

impl Lab {
    /// Drops `traffic` between two nodes from now on, silently and both ways.
    /// They must hang from different edges of `internet`. Cuts add up.
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn cut(&self, traffic: Traffic, a: &str, b: &str) -> Result<()> {
        let what = match traffic {
            Traffic::Udp => "meta l4proto udp ",
            Traffic::Tcp => "meta l4proto tcp ",
            Traffic::All => "",
        };
        self.between("cut", a, b, &format!("{what}drop"))
    }

    /// Takes all cuts back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal(&self) -> Result<()> {
        self.ns("internet").nft("flush chain inet faults cut")
    }

    /// Loses this share of the packets between two nodes, each way, at random;
    /// 0 takes it back. What must be the same in every run wants a
    /// [`super::Link`] with a seed instead.
    ///
    /// # Errors
    /// When `share` is not within 0 and 1, or the kernel refuses the rule.
    pub fn lose(&self, a: &str, b: &str, share: f64) -> Result<()> {
        const STEPS: f64 = 100_000.0;
        ensure!((0.0..=1.0).contains(&share), "a share of packets is 0 to 1");
        self.ns("internet").nft("flush chain inet faults lose")?;
        if share == 0.0 {
            return Ok(());
        }
        let below = (share * STEPS).round();
        if below >= STEPS {
            return self.between("lose", a, b, "drop");
        }
        self.between("lose", a, b, &format!("numgen random mod {STEPS} < {below} drop"))
    }

    /// Lets only this many packets of each UDP conversation through between two nodes, each way:
    /// a network on which QUIC's handshake succeeds, and nothing after it. [`Lab::heal`] takes it
    /// back.
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn choke_udp(&self, a: &str, b: &str, packets: u32) -> Result<()> {
        self.ns("internet").sysctl("netfilter/nf_conntrack_acct", "1")?;
        self.between("cut", a, b, &format!("meta l4proto udp ct packets > {packets} drop"))
    }

    fn between(&self, chain: &str, a: &str, b: &str, verdict: &str) -> Result<()> {
        let (from, to) = (self.edge_of(a), self.edge_of(b));
        if from == to {
            bail!("{a} and {b} are both behind {from}: faults act between edges");
        }
        let (from, to) = (topology::port_of(from), topology::port_of(to));
        self.ns("internet").nft(&format!(
            "add rule inet faults {chain} iifname {from} oifname {to} {verdict}\n\
             add rule inet faults {chain} iifname {to} oifname {from} {verdict}\n"
        ))
    }

    /// Makes a router forget all its connections and give other ports from now
    /// on: what a reboot or a short memory of a NAT does to those behind it.
    ///
    /// # Errors
    /// When `router` masquerades nothing, or the kernel refuses.
    pub fn rebind_nat(&mut self, router: &str) -> Result<()> {
        let node = self.node_mut(router)?;
        let nat = node.nat.with_context(|| format!("{router} is no NAT router"))?;
        node.rebinds += 1;
        node.ns.nft(&topology::router(nat, node.rebinds))?;
        tools::run(node.ns.bare("conntrack").arg("--flush"))?;
        Ok(())
    }

    /// Sets after how long a router forgets a quiet UDP mapping: one that saw
    /// only one direction, and one that counts as a stream. Linux: 30 and 120.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn udp_timeouts(&self, router: &str, single_secs: u32, stream_secs: u32) -> Result<()> {
        let ns = self.ns(router);
        ns.sysctl("netfilter/nf_conntrack_udp_timeout", &single_secs.to_string())?;
        ns.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &stream_secs.to_string())
    }

    /// Gives a node the next address of its network in place of the present
    /// one, as a roaming laptop or a modem with a new lease gets; the old one
    /// is gone. Gives the new one.
    ///
    /// # Errors
    /// When the kernel refuses, or the network's addresses are used up.
    pub fn change_address(&mut self, node: &str) -> Result<Ipv4Addr> {
        let node = self.node_mut(node)?;
        let [a, b, c, last] = node.address.octets();
        ensure!(last < 250, "the addresses of this network are used up");
        let next = Ipv4Addr::new(a, b, c, last + 1);
        node.ns.ip(&format!("address flush dev {UPLINK}"))?;
        node.ns.ip(&format!("address add {next}/24 dev {UPLINK}"))?;
        node.ns.ip(&format!("route replace default via {}", node.gateway))?;
        node.address = next;
        self.write_name_files()?;
        Ok(next)
    }

    /// Takes a node's cable out (`false`) or puts it in again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_uplink(&mut self, node: &str, connected: bool) -> Result<()> {
        let node = self.node_mut(node)?;
        if connected {
            node.ns.ip(&format!("link set dev {UPLINK} up"))?;
            node.ns.ip(&format!("route replace default via {}", node.gateway))?;
        } else {
            node.ns.ip(&format!("link set dev {UPLINK} down"))?;
        }
        Ok(())
    }

    /// Sets the MTU in bytes of the line from a node to what it hangs from.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&self, node: &str, bytes: u32) -> Result<()> {
        let parent = self.parent_of(node)?;
        self.ns(node).ip(&format!("link set dev {UPLINK} mtu {bytes}"))?;
        let port = topology::port_of(node);
        self.ns(parent).ip(&format!("link set dev {port} mtu {bytes}"))?;
        Ok(())
    }

    /// Shapes the line of a node to this many megabits a second each way, with
    /// at most `queue_ms` of queue (token bucket filter).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_rate(&self, node: &str, mbit: u32, queue_ms: u32) -> Result<()> {
        let parent = self.parent_of(node)?;
        let port = topology::port_of(node);
        // A bucket of 5 ms worth, and never less than some full-sized packets:
        // smaller ones starve on a kernel that ticks at 250 Hz.
        let burst = (u64::from(mbit) * 1_000_000 / 8 / 200).max(16 * 1024);
        for (ns, device) in [(self.ns(parent), port.as_str()), (self.ns(node), UPLINK)] {
            tools::run(ns.bare("tc").args(
                format!("qdisc replace dev {device} root tbf rate {mbit}mbit burst {burst} latency {queue_ms}ms")
                    .split_whitespace(),
            ))?;
        }
        Ok(())
    }

    fn parent_of(&self, node: &str) -> Result<&'static str> {
        self.node(node).parent.with_context(|| format!("{node} hangs from nothing"))
    }
}
