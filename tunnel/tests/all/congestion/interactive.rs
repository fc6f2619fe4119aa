//! Traffic with pauses: echoes beside a bulk stream, bursts that wait for an answer, long silence.

use std::time::Duration;

use super::link::Shape;
use super::peers::Law;
use super::traffic::Load;
use super::world::{Flow, Plan, World, ms};

fn run(shape: Shape, flow: Flow, lasts: u64) -> World {
    let plan = Plan { shape, flows: vec![flow], changes: Vec::new(), lasts: ms(lasts), seed: 3 };
    let world = World::run(&plan);
    assert_eq!(world.died(0), None, "seed 3: {}", world.story(0, plan.lasts));
    world
}

#[test]
fn an_echo_beside_a_bulk_stream_stays_quick_however_deep_the_queue() {
    for rtt in [10, 50, 100] {
        // A queue of one second.
        let shape = Shape { queue: 1_250_000, ..Shape::line(10, rtt, 0.0, 1.0) };
        let echo = |load| Flow { load, echo: Some(ms(37)), ..Flow::bulk(Law::Ours) };
        let quiet = Load::Bursts { size: 1, pause: Duration::from_secs(3_600) };
        let (idle, _) = run(shape, echo(quiet), 5_000).echoes(0, ms(1_000), ms(5_000));
        let busy = run(shape, echo(Load::Bulk), 20_000);
        let (median, worst) = busy.echoes(0, ms(3_000), ms(20_000));
        println!("10 Mbit/s {rtt} ms: idle {idle:?}, beside bulk {median:?} and {worst:?}");
        assert!(worst <= 3 * idle, "seed 3: {rtt} ms: {worst:?} against {idle:?}");
        let share = busy.goodput(0, ms(3_000), ms(20_000)) / shape.rate as f64;
        assert!(share >= 0.85, "seed 3: {rtt} ms: {share}");
    }
}

#[test]
fn bursts_that_wait_for_an_answer_go_as_fast_as_the_line_lets_them() {
    let shape = Shape::line(100, 50, 0.01, 1.0);
    for size in [32 << 10, 256 << 10, 2 << 20] {
        let pause = ms(50);
        let world = run(
            shape,
            Flow { load: Load::Bursts { size, pause }, ..Flow::bulk(Law::Ours) },
            12_000,
        );
        let burst = shape.lasts(size) + 2 * shape.delay + pause;
        let ideal = size as f64 * 8.0 / burst.as_secs_f64();
        let got = world.goodput(0, ms(3_000), ms(12_000));
        println!(
            "bursts of {size}: {:.0}% of what an endless window would get",
            got / ideal * 100.0
        );
        assert!(got >= 0.6 * ideal, "seed 3: {size}: {got} of {ideal}");
    }
}

#[test]
fn silence_makes_nothing_forgotten() {
    let shape = Shape::line(100, 50, 0.01, 1.0);
    let size = 8 << 20;
    let pause = Duration::from_secs(20);
    let world =
        run(shape, Flow { load: Load::Bursts { size, pause }, ..Flow::bulk(Law::Ours) }, 30_000);
    let first = world.when(0, size).expect("the first burst arrives");
    let second = world.when(0, 2 * size).expect("the second burst arrives");
    let took = second - first - pause - 2 * shape.delay;
    // The line's own time is 0.7 s with headers; a start from nothing would add as much again.
    assert!(took <= ms(950), "seed 3: {took:?}");
    let (_, worst) = world.waits(first + pause, second);
    assert!(worst < ms(50), "seed 3: a wait of {worst:?}: it was not paced");
}
