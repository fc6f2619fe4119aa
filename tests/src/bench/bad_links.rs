//! The part of the table that is about bad links: lines that lose, long lines, a full uplink, a
//! line that goes away and comes back, each in a lab of its own; and what it costs to survive them.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::plan::{Both, ms};
use super::recover::{self, Typist};
use super::stats::Samples;
use super::table::{Goal, Row, Table, Unit};
use super::transfer::Towards;
use super::{Way, bulk, busy, overhead, stop};
use crate::lab::{Direction, Edge, Lab, LinkConfig, Topology};

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long each transfer is counted.
    pub span: Duration,
    /// The same on the line over a satellite, which takes seconds to fill.
    pub long_span: Duration,
    /// Milliseconds of that line's round trip.
    pub satellite: u64,
    /// Turns of each transfer.
    pub turns: usize,
    /// Bytes echoed on the idle line, and as many beside a transfer.
    pub echoes: usize,
    /// From the transfer's first byte to the first echo.
    pub settle: Duration,
    /// Seconds a line is away, and how many times on each leg.
    pub holes: &'static [(u64, usize)],
    /// MiB of a transfer with and without the resume layer, and turns of both.
    pub layer: (usize, usize),
}

impl Plan {
    /// What the figures are meant to be taken with.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            span: Duration::from_secs(12),
            long_span: Duration::from_secs(40),
            satellite: 600,
            turns: 3,
            echoes: 200,
            settle: Duration::from_secs(3),
            holes: &[(10, 3), (60, 1)],
            layer: (512, 9),
        }
    }

    /// That it can be measured.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            span: Duration::from_millis(500),
            long_span: Duration::from_millis(500),
            satellite: 100,
            turns: 1,
            echoes: 5,
            settle: Duration::from_millis(100),
            holes: &[(2, 1)],
            layer: (32, 1),
        }
    }
}

/// Half the round trip of a leg.
const LEG_DELAY: Duration = Duration::from_millis(25);

/// Bits a second of a leg.
const LEG_RATE: u64 = 100_000_000;

/// What a beam of a satellite leaves one site.
const SATELLITE_RATE: u64 = 15_000_000;

/// Bits a second of a thin uplink.
const UPLINK_RATE: u64 = 10_000_000;

/// And of a thinner one.
const THIN_RATE: u64 = 2_000_000;

const LOSS: f64 = 0.01;

fn leg(seed: u64) -> Direction {
    Direction { delay: LEG_DELAY, rate: Some(LEG_RATE), seed, ..Direction::default() }
}

fn bring_up(laptop: LinkConfig, site: LinkConfig) -> Result<(Both, Lab)> {
    let (laptop_edge, site_edge) = (Edge::Link(laptop), Edge::Link(site));
    let lab = Lab::new(&Topology { laptop_edge, site_edge, ..Topology::default() })?;
    Ok((Both::start(&lab)?, lab))
}

/// A line that loses one packet in a hundred on each leg, each way.
///
/// # Errors
/// When a figure could not be measured.
pub fn lossy(plan: &Plan, table: &mut Table) -> Result<()> {
    let leg = |seed| LinkConfig::both(Direction { loss: LOSS, ..leg(seed) });
    let (both, lab) = bring_up(leg(1), leg(11))?;
    let line = Line { rate: LEG_RATE, place: "1 % loss, 50 ms a leg", span: plan.span };
    line.transfers(&lab, &both, plan.turns, Goal::TimesAtLeast(1.5), 75.0, table)
}

/// The same line without loss.
///
/// # Errors
/// When a figure could not be measured.
pub fn clean(plan: &Plan, table: &mut Table) -> Result<()> {
    let (both, lab) = bring_up(LinkConfig::both(leg(1)), LinkConfig::both(leg(11)))?;
    let line = Line { rate: LEG_RATE, place: "no loss, 50 ms a leg", span: plan.span };
    line.transfers(&lab, &both, plan.turns, Goal::Shown, 85.0, table)
}

/// A site behind a satellite.
///
/// # Errors
/// When a figure could not be measured.
pub fn satellite(plan: &Plan, table: &mut Table) -> Result<()> {
    for rate in [SATELLITE_RATE, LEG_RATE] {
        let place = format!("{} Mbit/s, {} ms satellite", rate / 1_000_000, plan.satellite);
        let delay = Duration::from_millis(plan.satellite) / 2;
        // What a modem keeps there: a tenth of a second of the fast line, half of one of the slow.
        let queue = 1 << 20;
        let far = Direction { delay, rate: Some(rate), queue, ..leg(11) };
        let (both, lab) = bring_up(LinkConfig::both(leg(1)), LinkConfig::both(far))?;
        let line = Line { rate, place: &place, span: plan.long_span };
        // One turn: it is long, and there is no luck in it.
        line.transfers(&lab, &both, 1, Goal::Shown, 70.0, table)?;
    }
    Ok(())
}

/// A line that transfers are measured on.
struct Line<'a> {
    rate: u64,
    place: &'a str,
    span: Duration,
}

impl Line<'_> {
    fn transfers(
        &self,
        lab: &Lab,
        both: &Both,
        turns: usize,
        goal: Goal,
        share: f64,
        table: &mut Table,
    ) -> Result<()> {
        let ways = both.ways();
        for (towards, name) in [(Towards::Down, "down"), (Towards::Up, "up")] {
            let speeds = bulk::measure(lab.ns("laptop"), &ways, towards, self.span, turns)
                .with_context(|| format!("{name}, {}", self.place))?;
            let Some((peer, ours)) = speeds.split_last() else { continue };
            for (way, ours) in ways.iter().zip(ours) {
                let figure = format!("{name}, {}, {}", way.name, self.place);
                let unit = Unit::MegabytesPerSecond;
                table.push(Row { figure, ours: *ours, peer: Some(*peer), unit, goal });
            }
            let of_line = |speed: f64| speed * 8e8 / self.rate as f64;
            for (way, ours) in ways.iter().zip(ours) {
                table.push(Row {
                    figure: format!("share of that line, {name}, {}", way.name),
                    ours: of_line(*ours),
                    peer: Some(of_line(*peer)),
                    unit: Unit::Percent,
                    goal: Goal::AtLeast(share),
                });
            }
        }
        Ok(())
    }
}

/// Typing while a transfer fills a thin uplink: the laptop's, then the device's.
///
/// # Errors
/// When a figure could not be measured.
pub fn busy(plan: &Plan, table: &mut Table) -> Result<()> {
    let (both, lab) = bring_up(thin(UPLINK_RATE, 1), thin(UPLINK_RATE, 11))?;
    for (towards, name) in [(Towards::Up, "upload"), (Towards::Down, "download")] {
        let measure =
            |way: &Way, echoes| busy::measure(lab.ns("laptop"), way, towards, plan.settle, echoes);
        let peer = measure(&both.jump, plan.echoes)?;
        for way in [&both.ssh, &both.exec] {
            let ours = measure(way, plan.echoes)?;
            rows(
                &format!("{}, beside an {name}", way.name),
                &ours,
                &peer,
                Goal::AtMost(3.0),
                table,
            );
        }
        let shared = |way: &Way, socket: &str| {
            let shared = way.shared(&lab.dir().join(format!("{socket}-{name}")));
            // Each takes seconds where a connection is full of the transfer.
            measure(&shared, plan.echoes.div_ceil(8))
        };
        let (ours, peer) = (shared(&both.ssh, "ours")?, shared(&both.jump, "peer")?);
        let place = format!("{}, {name} in the same connection", both.ssh.name);
        rows(&place, &ours, &peer, Goal::Shown, table);
    }
    Ok(())
}

/// A leg whose uplink is thin.
fn thin(rate: u64, seed: u64) -> LinkConfig {
    LinkConfig { up: Direction { rate: Some(rate), ..leg(seed) }, down: leg(seed + 1) }
}

/// Ctrl-C in a flood of output that fills the site's uplink.
///
/// # Errors
/// When a figure could not be measured.
pub fn stop(plan: &Plan, table: &mut Table) -> Result<()> {
    for rate in [UPLINK_RATE, THIN_RATE] {
        let (both, lab) = bring_up(thin(rate, 1), thin(rate, 11))?;
        let ways = [&both.jump, &both.ssh, &both.exec];
        let mut all: [Samples; 3] = std::array::from_fn(|_| Samples::default());
        for _ in 0..plan.turns {
            for (way, samples) in ways.into_iter().zip(&mut all) {
                let took = stop::measure(lab.ns("laptop"), way, plan.settle);
                samples.push(took.with_context(|| way.name)?);
            }
        }
        let [jump, ssh, exec] = all.map(|samples| ms(samples.median()));
        for (way, ours) in [(&both.ssh, ssh), (&both.exec, exec)] {
            let rate = rate / 1_000_000;
            table.push(Row {
                figure: format!("Ctrl-C in a flood to its end, {rate} Mbit/s, {}", way.name),
                ours,
                peer: Some(jump),
                unit: Unit::Milliseconds,
                goal: Goal::AtMost(1_000.0),
            });
        }
    }
    Ok(())
}

fn rows(place: &str, ours: &busy::Found, peer: &busy::Found, goal: Goal, table: &mut Table) {
    let times = |found: &busy::Found| ms(found.busy.quantile(0.99)) / ms(found.idle.median());
    table.push(Row {
        figure: format!("echo p99 by idle p50, {place}"),
        ours: times(ours),
        peer: Some(times(peer)),
        unit: Unit::Times,
        goal,
    });
    let mut shown = |figure: &str, unit, figure_of: &dyn Fn(&busy::Found) -> f64| {
        table.push(Row {
            figure: format!("{figure}, {place}"),
            ours: figure_of(ours),
            peer: Some(figure_of(peer)),
            unit,
            goal: Goal::Shown,
        });
    };
    shown("echo p50", Unit::Milliseconds, &|found| ms(found.busy.median()));
    shown("echo p99", Unit::Milliseconds, &|found| ms(found.busy.quantile(0.99)));
    shown("the transfer's share of the line", Unit::Percent, &|found| {
        found.speed * 8e8 / UPLINK_RATE as f64
    });
}

/// Somebody types while a leg of the line swallows everything, and goes on when it is back.
///
/// # Errors
/// When a figure could not be measured.
pub fn recover(plan: &Plan, table: &mut Table) -> Result<()> {
    let (both, lab) = bring_up(LinkConfig::both(leg(1)), LinkConfig::both(leg(11)))?;
    for (edge, mosh_from, name) in
        [("laptop", "laptop", "the laptop's leg"), ("site", "device", "the site's leg")]
    {
        let ways = both.ways();
        let mut typists = ways
            .iter()
            .map(|way| Typist::in_session(lab.ns("laptop"), way))
            .collect::<Result<Vec<_>>>()?;
        typists.push(Typist::in_mosh(&lab, mosh_from)?);
        for (seconds, turns) in plan.holes {
            let hole = Duration::from_secs(*seconds);
            let mut all = vec![Samples::default(); typists.len()];
            for _ in 0..*turns {
                let took = recover::measure(&lab, edge, &mut typists, hole)?;
                all.iter_mut().zip(took).for_each(|(samples, took)| samples.push(took));
            }
            let median = |at: usize| all.get(at).map_or(0.0, |samples| ms(samples.median()));
            let place = format!("{seconds} s without {name}");
            let (jump, mosh) = (median(2), median(3));
            for (at, way) in [&both.ssh, &both.exec].into_iter().enumerate() {
                for (peer, peer_name, goal) in [
                    // One round trip over both legs, and a second.
                    (mosh, "mosh", Goal::AtMost(1_100.0)),
                    (jump, both.jump.name, Goal::Shown),
                ] {
                    table.push(Row {
                        figure: format!("back after {place}, {} and {peer_name}", way.name),
                        ours: median(at),
                        peer: Some(peer),
                        unit: Unit::Milliseconds,
                        goal,
                    });
                }
            }
        }
    }
    Ok(())
}

/// The same transfer with the resume layer and without it.
///
/// # Errors
/// When a figure could not be measured.
pub fn resume(plan: &Plan, table: &mut Table) -> Result<()> {
    let (mebibytes, turns) = plan.layer;
    let [without, with] = overhead::measure(mebibytes, turns)?;
    let speed = |samples: &Samples| (mebibytes << 20) as f64 / 1e6 / samples.median().as_secs_f64();
    table.push(Row {
        figure: "a stream with the resume layer, and without it".into(),
        ours: speed(&with),
        peer: Some(speed(&without)),
        unit: Unit::MegabytesPerSecond,
        goal: Goal::TimesAtLeast(0.95),
    });
    Ok(())
}
