//! The whole run, from an empty machine to the table.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Way;
use super::bad_links;
use super::footprint;
use super::herd;
use super::idle::{self, Counted};
use super::machine::{Machine, load};
use super::ours::Ours;
use super::peer::Peer;
use super::record;
use super::stats::Samples;
use super::table::{Goal, Row, Table, Unit};
use super::transfer::{Payload, Towards};
use super::way::Terminal;
use super::{echo, prompt};
use crate::lab::{Direction, Edge, Lab, LinkConfig, Topology};
use crate::program;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// MiB of a transfer on a fast network.
    pub mebibytes: u64,
    /// Turns of each transfer.
    pub transfers: usize,
    /// Turns of each prompt.
    pub prompts: usize,
    /// Bytes echoed.
    pub echoes: usize,
    /// The same four on the slow link.
    pub slow: Slow,
    /// Bad links.
    pub bad_links: bad_links::Plan,
    /// Recording.
    pub record: record::Plan,
    /// The herd.
    pub herd: herd::Plan,
    /// NATs that an idle line stands behind.
    pub idle: Vec<idle::Behind>,
    /// Sessions open at once for the agent's memory.
    pub sessions: u32,
    /// Only these parts; empty: all.
    pub only: Vec<Part>,
    /// The agent built for shipping, when it was; else the one beside this program is looked at.
    pub shipped_agent: Option<PathBuf>,
}

/// What is measured on the slow link.
#[derive(Debug, Clone)]
pub struct Slow {
    /// MiB of a transfer.
    pub mebibytes: u64,
    /// Turns of each transfer.
    pub transfers: usize,
    /// Turns of each prompt.
    pub prompts: usize,
    /// Bytes echoed.
    pub echoes: usize,
}

/// Parts that can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Transfers on a fast network.
    Transfer,
    /// Time to a prompt on a fast network.
    Prompt,
    /// Echo on a fast network.
    Echo,
    /// All three on a slow link.
    Slow,
    /// Transfers on a line that loses.
    Lossy,
    /// The same without loss.
    Clean,
    /// Transfers from behind a satellite.
    Satellite,
    /// Echo beside a transfer that fills a thin uplink.
    Busy,
    /// Ctrl-C in a flood on thin uplinks.
    Stop,
    /// Sessions whose line goes away and comes back.
    Recover,
    /// What the resume layer costs.
    Resume,
    /// What recording costs.
    Record,
    /// Simulated devices.
    Herd,
    /// The cost of a line that nobody uses.
    Idle,
    /// Simulated devices that come back after the relay was restarted.
    Return,
    /// The agent's memory and size.
    Footprint,
}

impl Plan {
    /// What the figures are meant to be taken with.
    #[must_use]
    pub fn full() -> Self {
        Self {
            mebibytes: 512,
            transfers: 5,
            prompts: 21,
            echoes: 3000,
            slow: Slow { mebibytes: 32, transfers: 3, prompts: 7, echoes: 60 },
            bad_links: bad_links::Plan::full(),
            record: record::Plan { megabytes: 60, turns: 9, echoes: 3000 },
            herd: herd::Plan { sizes: vec![5_000, 20_000], settle: 1, hold: 4, returning: 10_000 },
            idle: idle::FULL.to_vec(),
            sessions: 8,
            only: Vec::new(),
            shipped_agent: None,
        }
    }

    /// Everything once, small: shows that every figure can be measured.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            mebibytes: 32,
            transfers: 1,
            prompts: 3,
            echoes: 200,
            slow: Slow { mebibytes: 2, transfers: 1, prompts: 1, echoes: 5 },
            bad_links: bad_links::Plan::quick(),
            record: record::Plan { megabytes: 4, turns: 1, echoes: 200 },
            herd: herd::Plan { sizes: vec![100, 400], settle: 0, hold: 0, returning: 200 },
            idle: idle::QUICK.to_vec(),
            sessions: 2,
            ..Self::full()
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Half the round trip of a leg.
const LEG_DELAY: Duration = Duration::from_millis(25);

/// The round trip over both legs, in milliseconds.
const ROUND_TRIP_MS: f64 = 100.0;

/// Bits a second of each leg.
const LEG_RATE: u64 = 100_000_000;

/// Runs the plan. `say` hears what is being done.
///
/// # Errors
/// When a figure could not be measured.
pub fn run(plan: &Plan, mut say: &mut dyn FnMut(&str)) -> Result<(Machine, Table)> {
    let mut machine = Machine::look()?;
    let mut table = Table::default();
    let fast =
        [Part::Transfer, Part::Prompt, Part::Echo, Part::Herd, Part::Return, Part::Footprint];
    if fast.into_iter().any(|part| plan.wants(part)) {
        say("bringing both up in a lab of kernel links");
        let lab = Lab::new(&Topology::default())?;
        on_fast_links(plan, &lab, &mut table, &mut say).context("on kernel links")?;
    }
    if plan.wants(Part::Idle) {
        say("idle lines behind NATs; about ten minutes");
        for counted in idle::measure(&plan.idle).context("idle lines")? {
            let Counted { forgets, bytes, packets, seconds } = counted;
            say(&format!("{forgets} s NAT: {bytes} bytes in {packets} packets in {seconds:.0} s"));
            table.push(Row {
                figure: format!("idle line a month, NAT of {forgets} s"),
                ours: counted.megabytes_a_month(),
                peer: None,
                unit: Unit::MegabytesAMonth,
                goal: Goal::AtMost(if forgets < 300 { 8.0 } else { 2.0 }),
            });
        }
    }
    if plan.wants(Part::Record) {
        say("what recording costs");
        record::measure(&plan.record, &mut table).context("recording")?;
    }
    if plan.wants(Part::Slow) {
        say("bringing both up in a lab of slow links");
        let leg = || {
            let direction =
                Direction { delay: LEG_DELAY, rate: Some(LEG_RATE), ..Direction::default() };
            Edge::Link(LinkConfig::both(direction))
        };
        let topology = Topology { site_edge: leg(), laptop_edge: leg(), ..Topology::default() };
        let lab = Lab::new(&topology)?;
        on_slow_links(&plan.slow, &lab, &mut table, &mut say).context("on slow links")?;
    }
    on_bad_links(plan, &mut table, &mut say).context("on bad links")?;
    machine.add("load after", load());
    Ok((machine, table))
}

fn on_bad_links(plan: &Plan, table: &mut Table, say: &mut impl FnMut(&str)) -> Result<()> {
    type Measure = fn(&bad_links::Plan, &mut Table) -> Result<()>;
    let parts: [(Part, &str, Measure); 7] = [
        (Part::Lossy, "transfers on a line that loses", bad_links::lossy),
        (Part::Clean, "transfers on the same line without loss", bad_links::clean),
        (Part::Satellite, "transfers from behind a satellite", bad_links::satellite),
        (Part::Busy, "echo beside a transfer", bad_links::busy),
        (Part::Stop, "Ctrl-C in a flood", bad_links::stop),
        (Part::Recover, "sessions whose line goes away and comes back", bad_links::recover),
        (Part::Resume, "what the resume layer costs", bad_links::resume),
    ];
    for (part, what, measure) in parts {
        if plan.wants(part) {
            say(what);
            measure(&plan.bad_links, table).context(what)?;
        }
    }
    Ok(())
}

fn on_fast_links(
    plan: &Plan,
    lab: &Lab,
    table: &mut Table,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    let pair = [Part::Transfer, Part::Prompt, Part::Echo, Part::Footprint];
    if pair.into_iter().any(|part| plan.wants(part)) {
        let both = Both::start(lab)?;
        // First, while the agent has served nothing yet.
        if plan.wants(Part::Footprint) {
            say("the agent's memory and size");
            the_agent(plan, lab, &both, table)?;
        }
        if plan.wants(Part::Transfer) {
            say("transfers");
            let payload = Payload::make(plan.mebibytes)?;
            let goals = [Goal::TimesAtLeast(4.0), Goal::TimesAtLeast(5.0)];
            both.transfers(lab, &payload, plan.transfers, goals, "", table)?;
        }
        if plan.wants(Part::Prompt) {
            say("time to a prompt");
            both.prompts(lab, plan.prompts, [0.5, 0.2], "", table)?;
        }
        if plan.wants(Part::Echo) {
            say("echo");
            both.echoes(lab, plan.echoes, "", table)?;
        }
    }
    if plan.wants(Part::Herd) {
        many_devices(plan, lab, table, say)?;
    }
    if plan.wants(Part::Return) {
        they_return(plan, lab, table, say)?;
    }
    Ok(())
}

fn on_slow_links(
    plan: &Slow,
    lab: &Lab,
    table: &mut Table,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    const WHERE: &str = ", 50 ms a leg";
    let both = Both::start(lab)?;
    say("time to a prompt on slow links");
    both.prompts(lab, plan.prompts, [0.5, 0.5], WHERE, table)?;
    say("echo on slow links");
    both.echoes(lab, plan.echoes, WHERE, table)?;
    say("transfers on slow links");
    let payload = Payload::make(plan.mebibytes)?;
    both.transfers(lab, &payload, plan.transfers, [Goal::Shown; 2], WHERE, table)
}

/// Ours and the peer, side by side in one lab.
pub(super) struct Both {
    ours: Ours,
    pub(super) ssh: Way,
    pub(super) exec: Way,
    pub(super) jump: Way,
    _peer: Peer,
}

impl Both {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let peer = Peer::start(lab).context("bringing the peer up")?;
        let ours = Ours::start(lab).context("bringing Belay up")?;
        let both =
            Self { ssh: ours.ssh(), exec: ours.exec()?, jump: peer.ssh(), ours, _peer: peer };
        for way in both.ways() {
            way.say(lab.ns("laptop"), "true")?;
        }
        Ok(both)
    }

    /// The peer comes last.
    pub(super) fn ways(&self) -> [&Way; 3] {
        [&self.ssh, &self.exec, &self.jump]
    }

    fn transfers(
        &self,
        lab: &Lab,
        payload: &Payload,
        turns: usize,
        goals: [Goal; 2],
        place: &str,
        table: &mut Table,
    ) -> Result<()> {
        for (towards, name) in [(Towards::Down, "down"), (Towards::Up, "up")] {
            payload.verify(lab.ns("laptop"), &self.ways(), towards)?;
            let all = payload.measure(lab.ns("laptop"), &self.ways(), towards, turns)?;
            compare(
                &all,
                |samples| payload.speed(samples.median()),
                |n, ours, peer| {
                    let ways = self.ways();
                    let way = ways.get(n).map_or("", |way| way.name);
                    let goal = goals.get(n).copied().unwrap_or(Goal::Shown);
                    let unit = Unit::MegabytesPerSecond;
                    let figure = format!("{name}, {way}{place}");
                    table.push(Row { figure, ours, peer: Some(peer), unit, goal });
                },
            );
        }
        Ok(())
    }

    fn prompts(
        &self,
        lab: &Lab,
        turns: usize,
        goals: [f64; 2],
        place: &str,
        table: &mut Table,
    ) -> Result<()> {
        let all = prompt::measure(lab.ns("laptop"), &self.ways(), turns)?;
        let mut push = |unit, by: f64, what: &str, goal: &dyn Fn(usize) -> Goal| {
            compare(
                &all,
                |samples| ms(samples.median()) / by,
                |n, ours, peer| {
                    let ways = self.ways();
                    let way = ways.get(n).map_or("", |way| way.name);
                    let figure = format!("{what}, {way}{place}");
                    table.push(Row { figure, ours, peer: Some(peer), unit, goal: goal(n) });
                },
            );
        };
        push(Unit::Milliseconds, 1.0, "running true", &|n| {
            goals.get(n).map_or(Goal::Shown, |times| Goal::TimesAtMost(*times))
        });
        if !place.is_empty() {
            push(Unit::RoundTrips, ROUND_TRIP_MS, "round trips of it", &|_| Goal::Shown);
        }
        Ok(())
    }

    fn echoes(&self, lab: &Lab, bytes: usize, place: &str, table: &mut Table) -> Result<()> {
        for (terminal, shown) in [(Terminal::None, "pipe"), (Terminal::There, "terminal")] {
            let all = echo::measure(lab.ns("laptop"), &self.ways(), terminal, bytes)?;
            for (share, name, most) in [(0.5, "p50", 0.7), (0.99, "p99", 1.0)] {
                // On a slow link the link is nearly all of it, for everybody.
                let goal = if place.is_empty() { Goal::TimesAtMost(most) } else { Goal::Shown };
                compare(
                    &all,
                    |samples| ms(samples.quantile(share)),
                    |n, ours, peer| {
                        let ways = self.ways();
                        let way = ways.get(n).map_or("", |way| way.name);
                        let figure = format!("echo {name}, {shown}, {way}{place}");
                        let unit = Unit::Milliseconds;
                        table.push(Row { figure, ours, peer: Some(peer), unit, goal });
                    },
                );
            }
        }
        Ok(())
    }
}

/// Calls `row` for each of ours with the last, the peer's.
fn compare(
    all: &[Samples],
    figure: impl Fn(&Samples) -> f64,
    mut row: impl FnMut(usize, f64, f64),
) {
    if let Some((peer, ours)) = all.split_last() {
        for (n, samples) in ours.iter().enumerate() {
            row(n, figure(samples), figure(peer));
        }
    }
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const KIB: f64 = 1024.0;

fn the_agent(plan: &Plan, lab: &Lab, both: &Both, table: &mut Table) -> Result<()> {
    let found = footprint::measure(lab.ns("laptop"), &both.ours, &both.ssh, plan.sessions)?;
    let mut push = |figure: &str, kib: f64, goal| {
        let (figure, unit) = (figure.to_owned(), Unit::Mebibytes);
        table.push(Row { figure, ours: kib / KIB, peer: None, unit, goal });
    };
    push("agent, idle, resident", found.idle.resident, Goal::AtMost(14.0));
    push("each further session, resident", found.session.resident, Goal::AtMost(8.0));
    push("each further session, proportional", found.session.proportional, Goal::Shown);
    let (program, figure) = match &plan.shipped_agent {
        Some(program) => (program.clone(), "belay-agent as shipped"),
        None => (program("belay-agent")?, "belay-agent, release build stripped"),
    };
    let kib = footprint::stripped_size(&program)? as f64 / KIB;
    push(figure, kib, Goal::AtMost(12.0));
    Ok(())
}

fn many_devices(
    plan: &Plan,
    lab: &Lab,
    table: &mut Table,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    let found = herd::measure(lab, &plan.herd, &mut *say)?;
    let mut push = |figure: String, ours: f64, unit, goal| {
        table.push(Row { figure, ours, peer: None, unit, goal });
    };
    for (devices, kib) in &found.each {
        let figure = format!("relay memory per idle device, {devices} devices");
        push(figure, *kib, Unit::Kibibytes, Goal::AtMost(32.0));
    }
    if let Some(kib) = found.held.last() {
        let figure = format!("the same, {} probe rounds later", found.held.len());
        push(figure, *kib, Unit::Kibibytes, Goal::AtMost(32.0));
    }
    push("devices connecting".into(), found.rate(), Unit::PerSecond, Goal::AtLeast(1000.0));
    let failed = found.failed() as f64;
    push("devices that failed".into(), failed, Unit::Count, Goal::AtMost(0.0));
    found.reasons().iter().for_each(|why| say(why));
    let mut latencies: Vec<f64> =
        found.ramps.iter().flat_map(|ramp| ramp.latencies_ms.iter().copied()).collect();
    latencies.sort_by(f64::total_cmp);
    for (share, name) in [(50, "p50"), (99, "p99")] {
        let at = (latencies.len() * share / 100).min(latencies.len().saturating_sub(1));
        let ours = latencies.get(at).copied().unwrap_or_default();
        push(format!("device up, {name}"), ours, Unit::Milliseconds, Goal::Shown);
    }
    Ok(())
}

fn they_return(
    plan: &Plan,
    lab: &Lab,
    table: &mut Table,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    let mut push = |figure: String, ours: f64, unit, goal| {
        table.push(Row { figure, ours, peer: None, unit, goal });
    };
    for back in herd::measure_return(lab, plan.herd.returning, herd::ROUND, &mut *say)? {
        let what = format!("{} devices back after {}", back.devices, back.signal);
        for (why, n) in &back.attempts {
            say(&format!("{n} attempts failed on the way: {why}"));
        }
        push(what, back.seconds, Unit::Seconds, Goal::AtMost(30.0));
        let missing = back.missing as f64;
        push(format!("not back after {}", back.signal), missing, Unit::Count, Goal::AtMost(0.0));
        let figure = format!("relay memory meanwhile, times idle, {}", back.signal);
        push(figure, back.memory, Unit::Times, Goal::AtMost(1.2));
    }
    Ok(())
}
