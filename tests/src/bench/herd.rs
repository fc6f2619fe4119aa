//! Very many devices: how fast they connect, and what each costs the relay while it is idle.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::footprint::Memory;
use super::ours::Deployment;
use crate::fleet::{Credentials, Ramp, RampReport, Remote};
use crate::lab::Lab;

/// Handshakes under way at once: below what makes a relay ask for a second round trip
/// (`quic_retry_above`).
const IN_FLIGHT: usize = 64;

/// Where the fleet's own relay listens.
const PORT: u16 = 4433;

/// Between two looks at memory: each device is probed once meanwhile
/// (`belay_proto::presence::Probing`).
pub const ROUND: Duration = Duration::from_secs(26);

/// How far to go.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Herd sizes at which memory is looked at, ascending.
    pub sizes: Vec<u32>,
    /// Probe rounds to wait before each look.
    pub settle: u32,
    /// Further rounds at the largest size, a look after each.
    pub hold: u32,
    /// Devices of the herd that must come back after the relay was restarted; 0: none is.
    pub returning: u32,
}

/// How a herd came back after its relay was restarted.
#[derive(Debug, Clone)]
pub struct Return {
    /// How the relay ended.
    pub signal: Signal,
    /// How many lines there were.
    pub devices: u32,
    /// From the signal to the last device's answer to a probe.
    pub seconds: f64,
    /// Devices not back when patience ended.
    pub missing: usize,
    /// The new relay's resident memory with all of them, over the old one's before.
    pub memory: f64,
    /// Attempts that failed on the way, by reason.
    pub attempts: Vec<(String, usize)>,
}

/// Longer than any herd should take; what is missing then is counted as failed.
const BACK_WITHIN: Duration = Duration::from_secs(180);

/// The largest memory counts, not the one it settles at: looked at so often.
const LOOK: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The relay's resident KiB before any device.
    pub empty: f64,
    /// By herd size: KiB for each device.
    pub each: Vec<(u32, f64)>,
    /// The same at the largest size, after each further round of probes.
    pub held: Vec<f64>,
    /// Each ramp.
    pub ramps: Vec<RampReport>,
    /// Lines lost and why, at the end.
    pub lost: Vec<(String, usize)>,
}

impl Found {
    /// Devices connected a second over all ramps.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds: f64 = self.ramps.iter().map(|ramp| ramp.seconds).sum();
        let connected = self.ramps.iter().map(|ramp| ramp.connected).sum::<usize>() as f64;
        if seconds > 0.0 { connected / seconds } else { 0.0 }
    }

    /// Devices that did not get in, and lines that were lost.
    #[must_use]
    pub fn failed(&self) -> usize {
        let refused = self.ramps.iter().flat_map(|ramp| ramp.failed.values()).sum::<usize>();
        refused + self.lost.iter().map(|(_, n)| n).sum::<usize>()
    }

    /// Every reason for it.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let failed = self.ramps.iter().flat_map(|ramp| &ramp.failed);
        let failed = failed.map(|(why, n)| format!("{n} not connected: {why}"));
        failed.chain(self.lost.iter().map(|(why, n)| format!("{n} lost: {why}"))).collect()
    }
}

/// Enrols a fleet with a relay of its own, connects it, holds it.
///
/// # Errors
/// When the relay or the fleet cannot be run at all.
pub fn measure(lab: &Lab, plan: &Plan, mut say: impl FnMut(&str)) -> Result<Found> {
    let most = *plan.sizes.last().context("a herd wants a size")?;
    let deployment = Deployment::init(lab, "fleet-relay", PORT)?;
    let file = lab.dir().join("fleet.credentials");
    say(&format!("enrolling {most} simulated devices"));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?
        .block_on(Credentials::enrol(&deployment.data, "sim", most))?
        .save(&file)?;
    let relay = deployment.start(lab)?;
    let pid = relay.process.pid();
    let mut fleet =
        Remote::start(|program| lab.ns("device").bare(program), &file, &relay.address.to_string())?;
    fleet.standing()?;
    let resident = || Ok::<_, anyhow::Error>(Memory::of(pid)?.resident);
    let mut found = Found { empty: resident()?, ..Found::default() };
    let mut before = 0;
    for &size in &plan.sizes {
        ensure!(size > before, "herd sizes must ascend");
        say(&format!("connecting simulated devices up to {size}"));
        let ramp =
            Ramp { devices: (size - before) as usize, in_flight: IN_FLIGHT, per_second: None };
        found.ramps.push(fleet.connect(ramp)?);
        before = size;
        std::thread::sleep(ROUND * plan.settle);
        found.each.push((size, (resident()? - found.empty) / f64::from(size)));
    }
    for _ in 0..plan.hold {
        std::thread::sleep(ROUND);
        found.held.push((resident()? - found.empty) / f64::from(most));
    }
    found.lost = fleet.standing()?.lost.into_iter().collect();
    Ok(found)
}

/// Connects a herd to a relay of its own, and restarts that: by SIGTERM, then by SIGKILL.
///
/// # Errors
/// When the relay or the fleet cannot be run at all.
pub fn measure_return(
    lab: &Lab,
    devices: u32,
    settle: Duration,
    mut say: impl FnMut(&str),
) -> Result<Vec<Return>> {
    let deployment = Deployment::init(lab, "herd-relay", PORT + 1)?;
    let file = lab.dir().join("herd.credentials");
    say(&format!("enrolling {devices} simulated devices"));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?
        .block_on(Credentials::enrol(&deployment.data, "sim", devices))?
        .save(&file)?;
    let mut relay = deployment.start(lab)?;
    let mut fleet =
        Remote::start(|program| lab.ns("device").bare(program), &file, &relay.address.to_string())?;
    say(&format!("connecting {devices} simulated devices"));
    let ramp = Ramp { devices: devices as usize, in_flight: IN_FLIGHT, per_second: None };
    fleet.faithful(true)?;
    fleet.connect(ramp)?;
    // One that failed at first, as on a busy machine, dials again.
    let deadline = Instant::now() + BACK_WITHIN;
    while fleet.standing()?.alive < devices as usize {
        ensure!(Instant::now() < deadline, "not connected: {:?}", fleet.standing()?);
        std::thread::sleep(LOOK);
    }
    let mut found = Vec::new();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // Lines are as they are in the field: each has been probed, and its handshake is long over.
        std::thread::sleep(settle);
        let idle = Memory::of(relay.process.pid())?.resident;
        say(&format!("restarting the relay of {devices} devices by {signal}"));
        let before = fleet.standing()?;
        let began = Instant::now();
        relay.process.signal(signal)?;
        relay.process.wait(BACK_WITHIN)?;
        say(&format!("the relay ended after {:.1} s", began.elapsed().as_secs_f64()));
        relay = deployment.start(lab)?;
        let (mut most, mut last_back, mut alive) = (0.0_f64, Duration::ZERO, 0);
        while began.elapsed() < BACK_WITHIN {
            let now = fleet.standing()?;
            most = most.max(Memory::of(relay.process.pid())?.resident);
            if now.again > before.again && now.alive != alive {
                (alive, last_back) = (now.alive, began.elapsed());
            }
            if now.again - before.again >= u64::from(devices) && now.alive == devices as usize {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let now = fleet.standing()?;
        let attempts = now.attempts.iter().map(|(why, n)| {
            (why.clone(), n - before.attempts.get(why).copied().unwrap_or_default())
        });
        found.push(Return {
            signal,
            devices,
            seconds: last_back.as_secs_f64(),
            missing: (devices as usize).saturating_sub(now.alive),
            memory: most / idle,
            attempts: attempts.filter(|(_, n)| *n > 0).collect(),
        });
    }
    Ok(found)
}
