//! A link that changes under a flow: its rate, its length, and whether it is there at all.

use std::time::Duration;

use super::link::Shape;
use super::peers::Law;
use super::traffic::Load;
use super::world::{Change, Flow, Plan, World, ms};

fn run(shape: Shape, changes: Vec<Change>, lasts: u64) -> World {
    let flows = vec![Flow::bulk(Law::Ours)];
    let plan = Plan { shape, flows, changes, lasts: ms(lasts), seed: 5 };
    let world = World::run(&plan);
    assert_eq!(world.died(0), None, "seed 5: {}", world.story(0, plan.lasts));
    world
}

/// The flow holds `mbit` over a span that begins at most `within` after `from`.
#[track_caller]
fn reaches(world: &World, from: u64, mbit: f64, span: u64, within: u64) {
    let took = world.reaches(0, ms(from), mbit * 1e6, ms(span));
    let story = world.story(0, Duration::from_secs(20));
    assert!(took.is_some_and(|took| took <= ms(within)), "seed 5: {took:?} after {from}: {story}");
}

#[test]
fn a_line_that_becomes_slow_and_fast_again_is_followed() {
    let fast = Shape::line(100, 50, 0.0, 1.0);
    let slow = Shape { rate: 10_000_000, ..fast };
    let world = run(fast, vec![(ms(5_000), slow), (ms(10_000), fast)], 15_000);
    reaches(&world, 5_000, 8.0, 500, 1_500);
    // The queue of before is gone, and none has taken its place.
    let (_, worst) = world.waits(ms(7_000), ms(10_000));
    assert!(worst <= ms(75), "seed 5: {worst:?}");
    reaches(&world, 10_000, 80.0, 500, 1_000);
}

#[test]
fn a_longer_and_a_shorter_way_are_taken_for_what_they_are() {
    let short = Shape::line(100, 50, 0.0, 1.0);
    let long = Shape { delay: ms(75), ..short };
    let world = run(short, vec![(ms(5_000), long), (ms(10_000), short)], 15_000);
    reaches(&world, 5_000, 80.0, 500, 1_500);
    reaches(&world, 10_000, 80.0, 500, 500);
    let (_, worst) = world.waits(ms(12_000), ms(15_000));
    assert!(worst <= ms(50), "seed 5: {worst:?}");
}

#[test]
fn a_flow_is_back_soon_after_the_link_is() {
    for (loss, away) in [(0.0, 5_000), (0.01, 5_000), (0.05, 5_000), (0.01, 20_000)] {
        let there = Shape::line(100, 50, loss, 1.0);
        let gone = Shape { cut: true, ..there };
        let back = 5_000 + away;
        let changes = vec![(ms(5_000), gone), (ms(back), there)];
        let world = run(there, changes, back + 25_000);
        // When the sender next asks is its own timer's business, which doubles as it waits.
        let first = world.next_after(0, ms(back)).expect("something arrives again");
        let first = first.as_millis() as u64;
        assert!(first - back <= away, "seed 5: {first}");
        reaches(&world, first, 70.0, 500, 1_000);
    }
}

#[test]
fn a_link_that_stutters_kills_nothing() {
    let there = Shape::line(20, 80, 0.02, 0.5);
    let gone = Shape { cut: true, ..there };
    let changes = (0..10)
        .flat_map(|n| [(ms(1_000 + n * 1_000), gone), (ms(1_000 + n * 1_000 + 400), there)])
        .collect();
    let world = run(there, changes, 15_000);
    let share = world.goodput(0, ms(1_000), ms(11_000)) / there.rate as f64;
    // 60 % of the time is there; the sender's doubling timer sleeps through most of it.
    assert!(share >= 0.15, "seed 5: {share}");
    reaches(&world, 11_000, 14.0, 500, 2_500);
}

/// A device's line carries little for hours, its way back may be full meanwhile, and then somebody sends a file.
#[test]
fn what_little_traffic_showed_holds_no_bulk_flow_back() {
    for (mbit, rtt, longer) in [(15, 600, 250), (40, 600, 250), (100, 50, 100), (10, 50, 300)] {
        let usual = Shape::line(mbit, rtt, 0.0, 1.0);
        let late = Shape { delay: usual.delay + ms(longer), ..usual };
        let load = Load::Chatter { size: 200, every: ms(20), lasts: ms(90_000) };
        let flows = vec![Flow { load, ..Flow::bulk(Law::Ours) }];
        let changes = vec![(ms(8_000), late), (ms(80_000), usual)];
        let plan = Plan { shape: usual, flows, changes, lasts: ms(120_000), seed: 5 };
        let world = World::run(&plan);
        assert_eq!(world.died(0), None, "seed 5: {}", world.story(0, plan.lasts));
        let took = world.reaches(0, ms(90_000), 0.8 * mbit as f64 * 1e6, ms(500));
        println!("{mbit} Mbit/s, {rtt} ms: {took:?}; {}", world.story(0, plan.lasts));
        // From ten datagrams it doubles up to ten times.
        let within = 500 + 14 * rtt;
        assert!(
            took.is_some_and(|took| took <= ms(within)),
            "seed 5: {mbit} Mbit/s, {rtt} ms: {took:?}"
        );
    }
}
