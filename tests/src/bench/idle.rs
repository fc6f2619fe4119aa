//! What a line costs that nobody uses: bytes on the wire behind NATs that forget sooner or later.
//!
//! Counted by the site's router, IP headers included, both ways. Over whole periods: what is asked
//! once in a period is in it as often as it should be.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::ours::{Ours, run};
use crate::lab::{Lab, Topology};

/// Handshake, greeting and the search for the largest datagram are over by then.
const SETTLE: Duration = Duration::from_secs(15);

/// A NAT, and what is done behind it.
#[derive(Debug, Clone, Copy)]
pub struct Behind {
    /// Quiet seconds after which it forgets a UDP mapping.
    pub forgets: u32,
    /// What the agent remembers of the network, as it would after some hours in it: (seconds that
    /// are held, seconds that are not).
    pub known: (u32, Option<u32>),
    /// From one question of the relay to the next, in seconds.
    pub period: u32,
    /// Periods counted.
    pub periods: u32,
}

/// A NAT of 30 s and one of 5 min, over about ten minutes each.
pub const FULL: [Behind; 2] = [
    Behind { forgets: 30, known: (28, Some(58)), period: 112, periods: 5 },
    Behind { forgets: 300, known: (285, None), period: 285, periods: 2 },
];

/// That it can be counted.
pub const QUICK: [Behind; 1] =
    [Behind { forgets: 30, known: (28, Some(58)), period: 20, periods: 1 }];

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Behind what.
    pub forgets: u32,
    /// Bytes both ways.
    pub bytes: u64,
    /// Packets both ways.
    pub packets: u64,
    /// In so many seconds.
    pub seconds: f64,
}

impl Counted {
    /// 10^6 bytes in 30 days.
    #[must_use]
    pub fn megabytes_a_month(&self) -> f64 {
        self.bytes as f64 / self.seconds * 30.0 * 86_400.0 / 1e6
    }
}

/// Measures all at once, each in a lab of its own.
///
/// # Errors
/// When a lab or what runs in it does not start, or the line does not stay up.
pub fn measure(behind: &[Behind]) -> Result<Vec<Counted>> {
    let mut running = Vec::new();
    for one in behind {
        let lab = Lab::new(&Topology::default())?;
        lab.udp_timeouts("site", one.forgets, one.forgets)?;
        let (holds, fails) = one.known;
        let network = format!("{} via {}", lab.address("device"), gateway(&lab)?);
        let ours = Ours::start_with(&lab, |state| seed(state, &network, holds, fails))?;
        running.push((one, lab, ours));
    }
    sleep(SETTLE);
    let began = Instant::now();
    let mut before = Vec::new();
    for (_, lab, _) in &running {
        before.push(counters(lab)?);
    }
    let mut counted = Vec::new();
    // The shortest first.
    let mut order: Vec<_> = running.iter().zip(before).collect();
    order.sort_by_key(|((one, _, _), _)| one.period * one.periods);
    for ((one, lab, ours), (packets, bytes)) in order {
        let span = Duration::from_secs((one.period * one.periods).into());
        sleep(span.saturating_sub(began.elapsed()));
        let seconds = began.elapsed().as_secs_f64();
        let now = counters(lab)?;
        ensure!(ours.line_is_up(lab.ns("laptop"), seconds)?, "the line did not stay up");
        counted.push(Counted {
            forgets: one.forgets,
            bytes: now.1 - bytes,
            packets: now.0 - packets,
            seconds,
        });
    }
    Ok(counted)
}

fn gateway(lab: &Lab) -> Result<String> {
    let route = run(lab.ns("device").bare("ip").args(["-4", "route", "show", "default"]))?;
    let via = route.split_whitespace().skip_while(|word| *word != "via").nth(1);
    via.map(ToOwned::to_owned).with_context(|| format!("no gateway in {route}"))
}

fn seed(state: &Path, network: &str, holds: u32, fails: Option<u32>) -> Result<()> {
    let learnt = belay_tunnel::clock::now().0;
    let entry =
        serde_json::json!({ network: { "holds": holds, "fails": fails, "learnt": learnt } });
    std::fs::write(state.join("networks.json"), entry.to_string()).context("seeding the memory")
}

/// Packets and bytes that the site has forwarded for the device, both ways; begins to count when
/// asked for the first time.
fn counters(lab: &Lab) -> Result<(u64, u64)> {
    let site = lab.ns("site");
    let nft = |words: &str| -> Result<String> {
        let mut command: Command = site.bare("nft");
        run(command.arg(words))
    };
    if nft("list table ip idle").is_err() {
        nft("add table ip idle")?;
        nft("add chain ip idle both { type filter hook forward priority -300; policy accept; }")?;
        nft("add counter ip idle line")?;
        nft("add rule ip idle both meta l4proto udp counter name line")?;
    }
    let told = nft("list counter ip idle line")?;
    let number = |after: &str| {
        let mut words = told.split_whitespace().skip_while(|word| *word != after);
        words.nth(1).and_then(|n| n.parse().ok()).with_context(|| format!("no {after} in {told}"))
    };
    Ok((number("packets")?, number("bytes")?))
}
