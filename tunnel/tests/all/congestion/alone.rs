//! One bulk flow on a link of its own: how much of the line it gets, and how long the queue is.

use std::time::Duration;

use super::link::Shape;
use super::peers::Law;
use super::world::{Flow, Plan, World, ms};

/// A row of the table: a link, how long it runs, and what is to be reached.
struct Row {
    name: &'static str,
    shape: Shape,
    lasts: Duration,
    /// Least share of the line, from the first packet of the handshake on.
    least: f64,
    /// Longest 99th percentile of the wait in the queue, in the second half of the run.
    longest_wait: Option<Duration>,
}

/// Share of the line; median and 99th percentile of the wait.
type Figures = Option<(f64, Duration, Duration)>;

impl Row {
    fn missed(&self, world: &World, figures: Figures, seed: u64) -> Option<String> {
        let reached = figures.is_some_and(|(share, _, worst)| {
            share >= self.least && self.longest_wait.is_none_or(|longest| worst <= longest)
        });
        let story = || world.story(0, self.lasts);
        (!reached).then(|| format!("{} (seed {seed}): {figures:?}; {}", self.name, story()))
    }
}

fn rows() -> Vec<Row> {
    let row = |name, shape, lasts, least| Row {
        name,
        shape,
        lasts: Duration::from_secs(lasts),
        least,
        longest_wait: None,
    };
    let short = |row: Row| Row { longest_wait: Some(2 * row.shape.delay), ..row };
    vec![
        short(row("100M 50ms, queue 0.25", Shape::line(100, 50, 0.0, 0.25), 8, 0.85)),
        short(row("100M 50ms, queue 1", Shape::line(100, 50, 0.0, 1.0), 8, 0.85)),
        short(row("100M 50ms, queue 4", Shape::line(100, 50, 0.0, 4.0), 8, 0.85)),
        row("100M 50ms, loss 1%", Shape::line(100, 50, 0.01, 1.0), 8, 0.75),
        row("100M 50ms, loss 5%", Shape::line(100, 50, 0.05, 1.0), 8, 0.60),
        row("100M 50ms, loss 20%", Shape::line(100, 50, 0.20, 1.0), 8, 0.25),
        row("10M 100ms, loss 20%", Shape::line(10, 100, 0.20, 1.0), 20, 0.25),
        row("2M 100ms, loss 1%", Shape::line(2, 100, 0.01, 1.0), 20, 0.75),
        row(
            "100M 50ms, jitter 10ms, loss 1%",
            Shape::line(100, 50, 0.01, 1.0).jittery(10),
            8,
            0.75,
        ),
        row(
            "100M 50ms, jitter 30ms, loss 5%",
            Shape::line(100, 50, 0.05, 1.0).jittery(30),
            8,
            0.35,
        ),
        row(
            "100M 50ms, jitter 10ms, loss 20%",
            Shape::line(100, 50, 0.20, 1.0).jittery(10),
            8,
            0.25,
        ),
        row("15M 600ms, queue 0.25", Shape::line(15, 600, 0.0, 0.25), 40, 0.70),
        row("15M 600ms, queue 1", Shape::line(15, 600, 0.0, 1.0), 40, 0.70),
        short(row("15M 600ms, queue 4", Shape::line(15, 600, 0.0, 4.0), 40, 0.70)),
        row("15M 600ms, loss 1%", Shape::line(15, 600, 0.01, 1.0), 40, 0.70),
        row("300M 50ms, queue 1", Shape::line(300, 50, 0.0, 1.0), 5, 0.75),
    ]
}

/// Share of the line, and the queue in the second half; none if the connection died.
fn measure(row: &Row, law: Law, seed: u64) -> (World, Figures) {
    let plan = Plan {
        shape: row.shape,
        flows: vec![Flow::bulk(law)],
        changes: Vec::new(),
        lasts: row.lasts,
        seed,
    };
    let world = World::run(&plan);
    if world.died(0).is_some() {
        return (world, None);
    }
    let share = world.goodput(0, Duration::ZERO, row.lasts) / row.shape.rate as f64;
    let (median, worst) = world.waits(row.lasts / 2, row.lasts);
    (world, Some((share, median, worst)))
}

#[test]
fn a_bulk_flow_fills_every_line_and_no_queue() {
    println!("share of the line, median and 99th percentile of the wait in the queue, turned away");
    println!("{:34} {:>27} {:>27} {:>27}", "link", "ours", "Cubic", "quinn's BBR");
    let mut missed = Vec::new();
    for row in rows() {
        let mut cells = Vec::new();
        for law in [Law::Ours, Law::Cubic, Law::Bbr] {
            let (world, figures) = measure(&row, law, 1);
            if law == Law::Ours {
                missed.extend(row.missed(&world, figures, 1));
            }
            cells.push(figures.map_or("died".to_owned(), |(share, median, worst)| {
                format!(
                    "{:4.1}% {:4}/{:4}ms {:4.1}%",
                    share * 100.0,
                    median.as_millis(),
                    worst.as_millis(),
                    world.overflow() * 100.0
                )
            }));
        }
        println!("{:34} {:>27} {:>27} {:>27}", row.name, cells[0], cells[1], cells[2]);
        for seed in [2, 3] {
            let (world, figures) = measure(&row, Law::Ours, seed);
            missed.extend(row.missed(&world, figures, seed));
        }
    }
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

#[test]
fn a_fast_local_path_is_no_slower_than_with_cubic() {
    let shape = Shape {
        delay: Duration::from_micros(50),
        queue: 4_000_000,
        ..Shape::line(1_000, 1, 0.0, 1.0)
    };
    let share = |law| {
        let lasts = ms(1_000);
        let flows = vec![Flow::bulk(law)];
        let world = World::run(&Plan { shape, flows, changes: Vec::new(), lasts, seed: 1 });
        let (_, worst) = world.waits(lasts / 4, lasts);
        (world.goodput(0, Duration::ZERO, lasts) / shape.rate as f64, worst)
    };
    let ((ours, wait), (cubic, _)) = (share(Law::Ours), share(Law::Cubic));
    assert!(ours >= 0.98 * cubic, "seed 1: ours {ours}, Cubic {cubic}");
    assert!(wait <= ms(5), "seed 1: {wait:?}");
}

/// A gap in a stream for every second packet, more than a thousand of them, and quinn's receiver
/// gives the connection up.
#[test]
fn the_start_never_loses_so_much_that_the_receiver_gives_up() {
    for (mbit, rtt) in [(1_000, 50), (300, 50), (50, 600), (20, 600), (200, 150)] {
        for queue in [0.05, 0.25, 1.0, 4.0] {
            let shape = Shape::line(mbit, rtt, 0.0, queue);
            let lasts = ms(40 * rtt);
            let flows = vec![Flow::bulk(Law::Ours)];
            let world = World::run(&Plan { shape, flows, changes: Vec::new(), lasts, seed: 1 });
            let died = world.died(0);
            assert_eq!(died, None, "{mbit} Mbit/s, {rtt} ms, queue {queue}, seed 1");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = Plan {
        shape: Shape::line(50, 40, 0.02, 0.5).jittery(5),
        flows: vec![Flow::bulk(Law::Ours)],
        changes: Vec::new(),
        lasts: ms(3_000),
        seed: 9,
    };
    let (one, two) = (World::run(&plan), World::run(&plan));
    assert_eq!(one.slots(0), two.slots(0));
    let other = World::run(&Plan { seed: 10, ..plan });
    assert_ne!(one.slots(0), other.slots(0));
}
