//! Two flows through one queue: ours beside Cubic, and two of ours.

use std::thread;
use std::time::Duration;

use super::link::Shape;
use super::peers::Law;
use super::world::{Flow, Plan, World, ms};

/// Shares of the line over 30 s from the moment both are there.
fn shares(shape: Shape, laws: [Law; 2], later: Duration) -> [f64; 2] {
    let lasts = later + Duration::from_secs(30);
    let [first, second] = laws.map(Flow::bulk);
    let flows = vec![first, Flow { starts: later, ..second }];
    let world = World::run(&Plan { shape, flows, changes: Vec::new(), lasts, seed: 3 });
    [0, 1].map(|flow| {
        assert_eq!(world.died(flow), None, "seed 3: {}", world.story(flow, lasts));
        world.goodput(flow, later, lasts) / shape.rate as f64
    })
}

const LINKS: [(u64, u64, f64); 7] = [
    (50, 50, 1.0),
    (50, 50, 4.0),
    (10, 50, 1.0),
    (10, 50, 4.0),
    (20, 20, 1.0),
    (20, 20, 4.0),
    (30, 100, 1.0),
];

const LATER: [u64; 3] = [0, 3_000, 4_170];

#[test]
fn neither_cubic_nor_ours_starves_beside_the_other() {
    let runs = LINKS.map(|(mbit, rtt, queue)| {
        thread::spawn(move || {
            let shape = Shape::line(mbit, rtt, 0.0, queue);
            for later in LATER {
                let [ours, cubic] = shares(shape, [Law::Ours, Law::Cubic], ms(later));
                let [first, last] = shares(shape, [Law::Cubic, Law::Ours], ms(later));
                println!(
                    "{mbit}M {rtt}ms queue {queue}, the second {later} ms later: \
                     ours {ours:.2} Cubic {cubic:.2}; Cubic {first:.2} ours {last:.2}"
                );
                let least = ours.min(cubic).min(first).min(last);
                assert!(least >= 0.25, "seed 3: {mbit}M {rtt}ms queue {queue} {later}: {least}");
            }
        })
    });
    for run in runs {
        run.join().expect("no flow starves");
    }
}

#[test]
fn two_of_ours_share_evenly() {
    for (mbit, rtt, queue) in LINKS {
        let shape = Shape::line(mbit, rtt, 0.0, queue);
        let mut sum = 0.0;
        for later in LATER {
            let [one, two] = shares(shape, [Law::Ours, Law::Ours], ms(later));
            let jain = (one + two).powi(2) / (2.0 * (one * one + two * two));
            println!(
                "{mbit}M {rtt}ms queue {queue}, the second {later} ms later: \
                 {one:.2} and {two:.2}, Jain {jain:.2}"
            );
            assert!(one + two >= 0.85, "seed 3: {mbit}M {rtt}ms queue {queue} {later}");
            assert!(jain >= 0.85, "seed 3: {mbit}M {rtt}ms queue {queue} {later}: {jain}");
            sum += jain;
        }
        let mean = sum / LATER.len() as f64;
        assert!(mean >= 0.9, "seed 3: {mbit}M {rtt}ms queue {queue}: {mean}");
    }
}
