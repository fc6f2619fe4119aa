//! What recording costs: the same session on a device that records and on one that does not.
//!
//! Two labs, the same in all but `recording = "off"` in one relay's configuration, take turns. What an
//! hour of typing takes is not measured here but counted, by `typing_tests` of `worker/record`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::echo::Session;
use super::footprint::{own, peak};
use super::ours::Ours;
use super::plan::ms;
use super::stats::Samples;
use super::table::{Goal, Row, Table, Unit};
use super::way::Terminal;
use crate::lab::{Direction, Edge, Lab, LinkConfig, Topology};

/// Turns of each.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Megabytes of text.
    pub megabytes: usize,
    /// Times it is shown, each.
    pub turns: usize,
    /// Bytes echoed.
    pub echoes: usize,
}

/// Between two looks at a worker's memory.
const LOOK: Duration = Duration::from_millis(10);

/// Keys of one side before the other has its turn.
const BLOCK: usize = 100;

/// Bits a second of a good line in the field, and half its round trip.
const LINE: (u64, Duration) = (100_000_000, Duration::from_millis(5));

/// A deployment in a lab of its own.
struct Side {
    lab: Lab,
    ours: Ours,
    way: Way,
    text: PathBuf,
}

/// The most memory a worker had, in KiB.
#[derive(Default)]
struct Most {
    own: f64,
    resident: f64,
}

/// One of them.
type Of = fn(&Most) -> f64;

impl Side {
    fn start(topology: &Topology, settings: &str, text: &str) -> Result<Self> {
        let lab = Lab::new(topology)?;
        let ours = Ours::start_configured(&lab, settings)?;
        let way = ours.exec()?;
        let file = lab.dir().join("text");
        std::fs::write(&file, text).context("writing the text")?;
        let side = Self { way, text: file, ours, lab };
        side.way.say(side.lab.ns("laptop"), "true")?;
        Ok(side)
    }

    /// Shows the text; how long that took, and the most memory a worker had meanwhile.
    fn show(&self, terminal: Terminal) -> Result<(Duration, Most)> {
        let before = self.ours.agent_processes()?;
        let mut command = self.way.command(terminal, &format!("cat {}", quoted(&self.text)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let mut child = self.lab.ns("laptop").run(|| command.spawn())?.context("starting cat")?;
        let mut most = Most::default();
        let status = loop {
            if let Some(status) = child.try_wait().context("waiting for cat")? {
                break status;
            }
            for pid in self.ours.agent_processes()? {
                if !before.contains(&pid) {
                    // One that has just ended has none.
                    most.own = most.own.max(own(pid).unwrap_or_default());
                    most.resident = most.resident.max(peak(pid).unwrap_or_default());
                }
            }
            std::thread::sleep(LOOK);
        };
        ensure!(status.success(), "cat: {status}");
        Ok((began.elapsed(), most))
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// Lines as a log has them: much the same each time, and numbers that are not.
fn text(bytes: usize) -> Result<String> {
    let mut text = String::with_capacity(bytes + 128);
    let mut number = 0x2545_f491_4f6c_dd1d_u64;
    while text.len() < bytes {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        let (at, unit, value) = (number % 86_400, number >> 20 & 0x1f, number >> 30);
        writeln!(text, "{at:>8}.{unit:03} pump-control[{unit}]: valve {unit} reads {value:x}, ok")?;
    }
    Ok(text)
}

/// Measures both sides in turns.
///
/// # Errors
/// When one could not be measured.
pub fn measure(plan: &Plan, table: &mut Table) -> Result<()> {
    let bytes = plan.megabytes * 1_000_000;
    let text = text(bytes)?;
    let both = |topology: &Topology| -> Result<[Side; 2]> {
        let off = "recording = \"off\"\n";
        Ok([Side::start(topology, "", &text)?, Side::start(topology, off, &text)?])
    };
    let (rate, delay) = LINE;
    let line = Direction { rate: Some(rate), delay, ..Direction::default() };
    let site_edge = Edge::Link(LinkConfig::both(line));
    let on_a_line = both(&Topology { site_edge, ..Topology::default() })?;
    shown(plan, &on_a_line, " on a line of 100 Mbit/s", table)?;
    drop(on_a_line);
    let sides = both(&Topology::default())?;
    drop(text);
    shown(plan, &sides, "", table)?;
    echoed(plan, &sides, table)
}

/// Shows the text on both sides in turns.
fn shown(plan: &Plan, sides: &[Side; 2], place: &str, table: &mut Table) -> Result<()> {
    let bytes = plan.megabytes * 1_000_000;
    for (terminal, name) in [(Terminal::There, "a terminal"), (Terminal::None, "a pipe")] {
        let mut times = [Samples::default(), Samples::default()];
        let mut memory = [Vec::new(), Vec::new()];
        for side in sides {
            side.show(terminal)?;
        }
        for _ in 0..plan.turns {
            for ((side, times), memory) in sides.iter().zip(&mut times).zip(&mut memory) {
                let (time, most) = side.show(terminal)?;
                times.push(time);
                memory.push(most);
            }
        }
        let [recorded, unrecorded] =
            times.map(|times| bytes as f64 / 1e6 / times.median().as_secs_f64());
        table.push(Row {
            figure: format!("text through {name}{place}, recorded, and not"),
            ours: recorded,
            peer: Some(unrecorded),
            unit: Unit::MegabytesPerSecond,
            goal: Goal::TimesAtLeast(0.97),
        });
        let kinds: [(&str, Of, Goal); 2] = [
            ("memory of its own", |most| most.own, Goal::AtMost(1.0)),
            (
                "resident memory, the program's shared pages included",
                |most| most.resident,
                Goal::Shown,
            ),
        ];
        for (kind, of, goal) in kinds {
            let [with, without] = memory.each_ref().map(|all| middle(all.iter().map(of)));
            table.push(Row {
                figure: format!("the worker's {kind}, {name}{place}, more by"),
                ours: (with - without).max(0.0) / 1024.0,
                peer: None,
                unit: Unit::Mebibytes,
                goal,
            });
        }
    }
    Ok(())
}

/// The middle one: single runs of the same worker differ by two mebibytes, by what its allocator keeps.
fn middle(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Types on both sides in turns.
fn echoed(plan: &Plan, sides: &[Side; 2], table: &mut Table) -> Result<()> {
    let mut sessions = Vec::new();
    for side in sides {
        sessions.push(Session::open(side.lab.ns("laptop"), &side.way, Terminal::There)?);
    }
    let mut samples = [Samples::default(), Samples::default()];
    for turn in 0..=plan.echoes / BLOCK {
        for (session, samples) in sessions.iter_mut().zip(&mut samples) {
            let block = session.samples(BLOCK)?;
            // The first is for warming up.
            if turn > 0 {
                samples.append(block);
            }
        }
    }
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let [recorded, unrecorded] = samples.each_ref().map(|one| ms(one.quantile(share)));
        table.push(Row {
            figure: format!("echo {name} in a terminal, recorded, and not"),
            ours: recorded,
            peer: Some(unrecorded),
            unit: Unit::Milliseconds,
            goal: Goal::Shown,
        });
        table.push(Row {
            figure: format!("echo {name}, more by"),
            ours: (recorded - unrecorded).max(0.0),
            peer: None,
            unit: Unit::Milliseconds,
            goal: if share > 0.9 { Goal::AtMost(1.0) } else { Goal::Shown },
        });
    }
    Ok(())
}
