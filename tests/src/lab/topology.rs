//! What a lab is made of, and the wiring of it.
//!
//! | network | between |
//! |---|---|
//! | 198.18.1.0/24 | `internet` .1, `relay` .2 |
//! | 198.18.2.0/24 | `internet` .1, `site` (or `carrier`) .2 |
//! | 198.18.3.0/24 | `internet` .1, `laptop` (or `home`) .2 |
//! | 100.64.2.0/24 | `carrier` .1, `site` .2, with [`Nat::Double`] |
//! | 10.77.1.0/24 | `site` .1, `device` .2 |
//! | 10.78.1.0/24 | `home` .1, `laptop` .2, with a laptop NAT |
//!
//! 198.18.0.0/15 is the range for benchmarking networks (RFC 2544, RFC 6890),
//! 100.64.0.0/10 that of carrier-grade NAT (RFC 6598).

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::link::{Link, LinkConfig};
use super::netns::Netns;
use super::{Lab, Node, UPLINK};

/// How a router translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Linux masquerading: the source port is kept where it is free. One
    /// mapping serves every destination as long as it lives.
    Masquerade,
    /// A fresh random port for every connection (`random,fully-random`): what
    /// is learnt from one destination is useless for another.
    Symmetric,
    /// Two masquerading routers in a row: the site's own and its carrier's.
    Double,
}

/// What joins an edge node to `internet`.
#[derive(Debug, Clone, Default)]
pub enum Edge {
    /// A kernel veth pair: as fast as the machine.
    #[default]
    Veth,
    /// A user-space link with delay, rate and loss; see [`super::link`].
    Link(LinkConfig),
}

/// The shape of a lab. The default is the standard one.
#[derive(Debug, Clone)]
pub struct Topology {
    /// How the device is hidden.
    pub device_nat: Nat,
    /// How the laptop is hidden, if it is.
    pub laptop_nat: Option<Nat>,
    /// What joins `relay` to `internet`.
    pub relay_edge: Edge,
    /// What joins the device's outermost router to `internet`.
    pub site_edge: Edge,
    /// What joins the laptop (or its outermost router) to `internet`.
    pub laptop_edge: Edge,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            device_nat: Nat::Masquerade,
            laptop_nat: None,
            relay_edge: Edge::Veth,
            site_edge: Edge::Veth,
            laptop_edge: Edge::Veth,
        }
    }
}

/// A /24 whose .1 is the parent and whose .2 is the child.
type Net24 = [u8; 3];

const RELAY_NET: Net24 = [198, 18, 1];
const SITE_NET: Net24 = [198, 18, 2];
const LAPTOP_NET: Net24 = [198, 18, 3];
const CARRIER_LAN: Net24 = [100, 64, 2];
const SITE_LAN: Net24 = [10, 77, 1];
const HOME_CARRIER_LAN: Net24 = [100, 64, 3];
const HOME_LAN: Net24 = [10, 78, 1];

impl Topology {
    pub(super) fn build(&self, lab: &mut Lab) -> Result<()> {
        let internet = make(lab, "internet")?;
        internet.sysctl("ipv4/ip_forward", "1")?;
        lab.nodes.insert(
            "internet",
            Node {
                ns: internet,
                address: Ipv4Addr::new(198, 18, 1, 1),
                gateway: Ipv4Addr::UNSPECIFIED,
                parent: None,
                nat: None,
                rebinds: 0,
            },
        );
        super::fault::prepare(lab)?;

        attach(lab, "internet", "relay", RELAY_NET, &self.relay_edge, None)?;

        let veth = Edge::Veth;
        if self.device_nat == Nat::Double {
            let nat = Some(Nat::Masquerade);
            attach(lab, "internet", "carrier", SITE_NET, &self.site_edge, nat)?;
            attach(lab, "carrier", "site", CARRIER_LAN, &veth, nat)?;
        } else {
            let nat = Some(self.device_nat);
            attach(lab, "internet", "site", SITE_NET, &self.site_edge, nat)?;
        }
        attach(lab, "site", "device", SITE_LAN, &veth, None)?;

        match self.laptop_nat {
            None => attach(lab, "internet", "laptop", LAPTOP_NET, &self.laptop_edge, None)?,
            Some(Nat::Double) => {
                let nat = Some(Nat::Masquerade);
                attach(lab, "internet", "home-carrier", LAPTOP_NET, &self.laptop_edge, nat)?;
                attach(lab, "home-carrier", "home", HOME_CARRIER_LAN, &veth, nat)?;
                attach(lab, "home", "laptop", HOME_LAN, &veth, None)?;
            }
            nat @ Some(Nat::Masquerade | Nat::Symmetric) => {
                attach(lab, "internet", "home", LAPTOP_NET, &self.laptop_edge, nat)?;
                attach(lab, "home", "laptop", HOME_LAN, &veth, None)?;
            }
        }
        lab.write_name_files()
    }
}

fn make(lab: &mut Lab, name: &'static str) -> Result<Netns> {
    let hosts: PathBuf = lab.hosts_file();
    let ns = Netns::new(name, hosts, lab.resolv_file())?;
    lab.reaper.watch(ns.inode())?;
    Ok(ns)
}

/// Makes `child` and joins it to `parent`; a router where `nat` says so.
fn attach(
    lab: &mut Lab,
    parent: &'static str,
    child: &'static str,
    [a, b, c]: Net24,
    edge: &Edge,
    nat: Option<Nat>,
) -> Result<()> {
    let ns = make(lab, child)?;
    let above = lab.ns(parent);
    let port = port_of(child);
    match edge {
        Edge::Veth => {
            above.ip(&format!(
                "link add {port} type veth peer name {UPLINK} netns {}",
                ns.path().display()
            ))?;
        }
        Edge::Link(config) => {
            let link = Link::start(above, &port, &ns, UPLINK, config.clone())
                .with_context(|| format!("joining {child} to {parent}"))?;
            lab.links.insert(child, link);
        }
    }
    let above = lab.ns(parent);
    let gateway = Ipv4Addr::new(a, b, c, 1);
    let address = Ipv4Addr::new(a, b, c, 2);
    above.ip(&format!("address add {gateway}/24 dev {port}"))?;
    above.ip(&format!("link set dev {port} up"))?;
    ns.ip(&format!("address add {address}/24 dev {UPLINK}"))?;
    ns.ip(&format!("link set dev {UPLINK} up"))?;
    ns.ip(&format!("route add default via {gateway}"))?;
    if let Some(nat) = nat {
        ns.sysctl("ipv4/ip_forward", "1")?;
        ns.nft(&router(nat, 0))?;
    }
    lab.nodes.insert(child, Node { ns, address, gateway, parent: Some(parent), nat, rebinds: 0 });
    Ok(())
}

/// The interface of a parent that leads to `child`. At most 15 characters,
/// which is what the kernel allows.
pub(super) fn port_of(child: &str) -> String {
    match child {
        "home-carrier" => "to-home-carr".into(),
        short => format!("to-{short}"),
    }
}

/// The rules of a router as people have them at home and on sites: nothing
/// comes in that was not asked for from inside, not even a ping.
///
/// `rebinds` counts how often the router "forgot": a router that forgot gives
/// other ports than before, where plain masquerading would give the same again.
pub(super) fn router(nat: Nat, rebinds: u32) -> String {
    // Four disjoint ranges taken in turn, below where Linux picks its own
    // source ports from (32768 and up) only in part: overlap is harmless.
    let translate = match (nat, rebinds) {
        (Nat::Symmetric, _) => "masquerade random,fully-random".to_owned(),
        (Nat::Masquerade | Nat::Double, 0) => "masquerade".to_owned(),
        (Nat::Masquerade | Nat::Double, n) => {
            let from = 10_000 + (n % 4) * 5_000;
            let to = from + 4_999;
            format!("meta l4proto {{ tcp, udp }} masquerade to :{from}-{to} random\n    masquerade")
        }
    };
    format!(
        r#"
table inet router {{}}
flush table inet router
table inet router {{
  chain nat {{
    type nat hook postrouting priority srcnat;
    oifname != "{UPLINK}" accept
    {translate}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname != "{UPLINK}" accept
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{UPLINK}" ct state != {{ established, related }} drop
  }}
}}
"#
    )
}
