//! One channel whose reader has stopped harms no neighbour.

use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Rig, eventually, have_ssh, run};

/// Far more than a window, a pipe and the queue's memory together.
const FLOOD: usize = 200_000_000;

/// Resident memory a worker may have while it holds the flood.
const MEMORY_MAX_KIB: u64 = 32 * 1024;

#[test]
fn a_channel_that_is_not_read_holds_up_no_other() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let gate = rig.path("gate");
    let (_master, shared) = rig.master();
    let through = |command: &str| shared.ssh(command);

    // Reads nothing until the gate opens, then counts what came.
    let stopped = format!("while [ ! -e {} ]; do sleep 0.1; done; wc -c", gate.display());
    let mut flooded =
        through(&stopped).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut into = flooded.stdin.take().unwrap();
    let flood = thread::spawn(move || {
        let chunk = vec![7; 1_000_000];
        for _ in 0..FLOOD / chunk.len() {
            into.write_all(&chunk).unwrap();
        }
    });
    eventually("the whole flood is taken in", || flood.is_finished());
    flood.join().unwrap();

    let started = Instant::now();
    for n in 0..10 {
        assert_eq!(run(&mut through(&format!("echo {n}")), vec![]).ok().text(), n.to_string());
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "the neighbours wait: {:?}",
        started.elapsed()
    );
    let resident = resident(&run(&mut through("echo $PPID"), vec![]).ok().text());
    assert!(resident.is_none_or(|kib| kib < MEMORY_MAX_KIB), "{resident:?} KiB");

    std::fs::write(&gate, "").unwrap();
    let mut count = String::new();
    flooded.stdout.take().unwrap().read_to_string(&mut count).unwrap();
    assert_eq!(count.trim(), FLOOD.to_string(), "nothing is lost");
    assert!(flooded.wait().unwrap().success());
}

fn resident(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse()
        .ok()
}
