//! Every fault in random order, some before the last one is over, while the work goes on.
//!
//! One round, of every fault once, is part of every run. `BELAY_CHAOS_SECONDS` goes on for longer,
//! round after round; `BELAY_CHAOS_SEED` takes the order of an earlier run again.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use belay_tests::lab::{Topology, Traffic};
use belay_tests::load::Load;
use belay_tests::world::{DEVICE, World};
use nix::sys::signal::Signal;

use crate::resume::{clients, signal_all, start_newer_agent, tail};

/// Bytes of each transfer, and the line's rate: more than half a minute when nothing goes wrong.
const BYTES: usize = 80 * 1024 * 1024;
const MBIT: u32 = 20;

/// How long a fault lasts that has an end.
const SPELL: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NatForgets,
    LaptopMoves,
    DeviceMoves,
    DeviceUnplugged,
    LaptopCutOff,
    SiteCutOff,
    PacketsLost,
    UdpCut,
    RelayKilled,
    RelayRestarted,
    RelayAway,
    AgentKilled,
    AgentRestarted,
    AgentUpgraded,
    ClientsStopped,
}

impl Fault {
    const ALL: [Self; 15] = [
        Self::NatForgets,
        Self::LaptopMoves,
        Self::DeviceMoves,
        Self::DeviceUnplugged,
        Self::LaptopCutOff,
        Self::SiteCutOff,
        Self::PacketsLost,
        Self::UdpCut,
        Self::RelayKilled,
        Self::RelayRestarted,
        Self::RelayAway,
        Self::AgentKilled,
        Self::AgentRestarted,
        Self::AgentUpgraded,
        Self::ClientsStopped,
    ];

    fn strike(self, world: &mut World, round: u32) -> Result<()> {
        match self {
            Self::NatForgets => world.lab.rebind_nat("site"),
            Self::LaptopMoves => world.lab.change_address("laptop").map(drop),
            Self::DeviceMoves => world.lab.change_address("device").map(drop),
            Self::DeviceUnplugged => {
                world.lab.set_uplink("device", false)?;
                sleep(SPELL);
                world.lab.set_uplink("device", true)
            }
            Self::LaptopCutOff => cut(world, Traffic::All, "laptop"),
            Self::SiteCutOff => cut(world, Traffic::All, "site"),
            Self::UdpCut => cut(world, Traffic::Udp, "laptop"),
            Self::PacketsLost => {
                world.lab.lose("laptop", "relay", 0.2)?;
                sleep(SPELL);
                world.lab.lose("laptop", "relay", 0.0)
            }
            Self::RelayKilled => {
                world.relay()?.kill()?;
                world.start_relay()
            }
            Self::RelayRestarted => {
                stop_relay(world)?;
                world.start_relay()
            }
            Self::RelayAway => {
                stop_relay(world)?;
                sleep(SPELL);
                world.start_relay()
            }
            Self::AgentKilled => {
                world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
                world.start_agent(DEVICE, "device")
            }
            Self::AgentRestarted => {
                stop_agent(world)?;
                world.start_agent(DEVICE, "device")
            }
            Self::AgentUpgraded => {
                stop_agent(world)?;
                start_newer_agent(world, &format!("belay-agent-newer-{round}"))
            }
            Self::ClientsStopped => {
                let clients = clients(world)?;
                signal_all(&clients, Signal::SIGSTOP)?;
                sleep(SPELL);
                signal_all(&clients, Signal::SIGCONT)
            }
        }
    }
}

fn cut(world: &World, traffic: Traffic, node: &str) -> Result<()> {
    world.lab.cut(traffic, node, "relay")?;
    sleep(SPELL);
    world.lab.heal()
}

fn stop_relay(world: &mut World) -> Result<()> {
    world.relay()?.signal(Signal::SIGTERM)?;
    world.relay()?.wait(Duration::from_secs(60)).map(drop)
}

fn stop_agent(world: &mut World) -> Result<()> {
    let agent = world.agents.get_mut(DEVICE).context("no agent")?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait(Duration::from_secs(30)).map(drop)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// All faults, in an order of this chance's (Fisher and Yates).
    fn order(&mut self) -> [Fault; Fault::ALL.len()] {
        let mut order = Fault::ALL;
        for at in (1..order.len()).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn round(world: &mut World, chance: &mut Chance, round: u32) -> Result<()> {
    let load = Load::start(world, BYTES)?;
    let mut struck = || {
        for fault in chance.order() {
            let waits = chance.below(2) == 0;
            println!("{fault:?}, then {}", if waits { "until all is well" } else { "the next" });
            fault.strike(world, round).with_context(|| format!("{fault:?}"))?;
            if waits {
                let back = load.wait_alive().with_context(|| format!("after {fault:?}"))?;
                println!("  back after {back:?}");
            }
        }
        load.wait_alive()
    };
    struck()?;
    load.finish()
}

#[test]
fn through_every_fault_in_random_order() -> Result<()> {
    let Some(mut world) = World::new_or_skip(&Topology::default())? else { return Ok(()) };
    world.lab.set_rate("laptop", MBIT, 50)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let seed = number("BELAY_CHAOS_SEED").unwrap_or(now);
    let until =
        Instant::now() + Duration::from_secs(number("BELAY_CHAOS_SECONDS").unwrap_or_default());
    let mut chance = Chance(seed);
    for count in 1.. {
        println!("round {count} of BELAY_CHAOS_SEED={seed}");
        let outcome = round(&mut world, &mut chance, count);
        if outcome.is_err() {
            let log = world.agents.get(DEVICE).map(|agent| agent.log()).unwrap_or_default();
            println!("agent:\n{}", tail(&log));
            let log = world.relay.as_ref().map(|relay| relay.log()).unwrap_or_default();
            println!("relay:\n{}", tail(&log));
        }
        outcome.with_context(|| format!("round {count} of BELAY_CHAOS_SEED={seed}"))?;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(())
}
