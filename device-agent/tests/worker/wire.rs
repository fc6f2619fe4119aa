//! Peers that do not speak SSH, or speak it wrongly.

use std::process::Command;
use std::time::Instant;

use crate::rig::{AGENT, Rig, have_ssh, pattern, run};

fn worker(rig: &Rig, input: Vec<u8>) -> crate::rig::Output {
    run(Command::new(AGENT).args(["worker", "--stdio", "--host-key"]).arg(rig.path("host")), input)
}

#[test]
fn a_peer_that_speaks_no_ssh_is_told_and_dropped() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    for input in [b"GET / HTTP/1.0\r\n\r\n".to_vec(), b"SSH-1.5-old\r\n".to_vec()] {
        let out = worker(&rig, input);
        assert_eq!(out.code(), Some(255));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.starts_with("SSH-2.0-Belay_"), "{text}");
        assert!(text.contains("Invalid SSH identification string."), "{text}");
    }
}

#[test]
fn random_bytes_after_a_greeting_end_the_worker_at_once() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let started = Instant::now();
    for length in [0, 1, 100, 100_000] {
        let mut input = b"SSH-2.0-x\r\n".to_vec();
        input.extend(pattern(length));
        worker(&rig, input);
    }
    assert!(started.elapsed().as_secs() < 20);
}
