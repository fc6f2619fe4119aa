//! A client, a relay and a device over bad links, in virtual time: the session between them must
//! not notice.
//!
//! What is real: `belay_tunnel::stream`, and `insist` and `Silence` of `belay_tunnel::reach`. What
//! is simulated, after the rooms whose names the modules bear: paths and carriers, the relay's
//! registry and splice, the device's supervisor, the client's keeper. Everything is decided by a
//! seed. `BELAY_SEED=n` runs that world alone, `BELAY_SEEDS=n` the first so many.
#![allow(clippy::print_stderr, reason = "a failure names its seed")]

mod application;
mod attachment;
mod beat;
mod carrier;
mod client;
mod device;
mod faults;
mod hearing;
mod mischief;
mod path;
mod pipe;
mod relay;
mod session;
mod suspension;
mod tally;
mod waiting;
mod watcher;
mod worker;
mod world;

use self::mischief::Mischief;
use self::tally::{Counts, KINDS, Kind};
use self::world::{Report, run};

const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The world of that seed, which must end well.
fn good(seed: u64) -> Report {
    let outcome = std::panic::catch_unwind(|| run(seed, Mischief::None));
    match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(wrong)) => panic!("BELAY_SEED={seed} replays this: {wrong}"),
        Err(panic) => {
            eprintln!("BELAY_SEED={seed} replays this");
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn whatever_breaks_the_bytes_out_are_the_bytes_in_and_the_calm_ends_it() {
    if let Some(seed) = number("BELAY_SEED") {
        println!("{:#?}", good(seed));
        return;
    }
    let seeds = number("BELAY_SEEDS").unwrap_or(SEEDS);
    let (mut all, mut longest) = (Counts::default(), 0.0_f64);
    for seed in 0..seeds {
        let report = good(seed);
        all.add(&report.counts);
        longest = longest.max(report.calm.as_secs_f64() / report.bound.as_secs_f64());
    }
    for kind in KINDS {
        println!("{kind:?}: {:?}", all.faults[kind as usize]);
    }
    println!("{}", all.summary());
    println!("the longest calm took {longest:.2} of its bound");
    if seeds >= SEEDS {
        much_happened(&all);
    }
}

/// A world in which nothing breaks would prove nothing.
fn much_happened(all: &Counts) {
    for kind in KINDS {
        let count = all.faults[kind as usize];
        let (broke, survived) = match kind {
            Kind::ClientBlackout | Kind::DeviceBlackout | Kind::Suspension | Kind::WorkerStall => {
                (2, 10)
            }
            Kind::ClientReset
            | Kind::DeviceReset
            | Kind::ClientVanish
            | Kind::DeviceVanish
            | Kind::RelayRestart
            | Kind::RelayKill
            | Kind::SupervisorRestart
            | Kind::SupervisorKill
            | Kind::ClientBetter
            | Kind::DeviceBetter => (20, 0),
        };
        let much = count.happened >= 60 && count.struck >= 25;
        assert!(much, "{kind:?} is too rare: {count:?}");
        let both = count.broke >= broke && count.survived >= survived;
        assert!(both, "{kind:?} breaks too little, or all: {count:?}");
    }
    let Counts { attachments, replaced, silences, heard_again, moved, device_moved, held, .. } =
        *all;
    assert!(attachments >= 500 && replaced >= 20 && held >= 100, "{}", all.summary());
    assert!(silences >= 80 && heard_again >= 3, "{}", all.summary());
    assert!(moved >= 30 && device_moved >= 15, "{}", all.summary());
}

#[test]
fn a_seed_is_the_same_world_every_time() {
    for seed in 1_000..1_010 {
        assert_eq!(good(seed), good(seed), "seed {seed}");
    }
}

#[test]
fn a_relay_that_does_what_it_must_not_is_caught() {
    for mischief in [
        Mischief::DropsAByte,
        Mischief::RepeatsAByte,
        Mischief::ChangesAByte,
        Mischief::DeliversAfterTheEnd,
        Mischief::SwallowsForEver,
    ] {
        let caught = (0..20).filter(|seed| run(*seed, mischief).is_err()).count();
        println!("{mischief:?}: {caught}");
        assert!(caught >= 10, "{mischief:?} is caught in {caught} worlds of 20");
    }
}
