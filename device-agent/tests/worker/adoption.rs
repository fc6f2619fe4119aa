//! A session goes on without its supervisor, and with the next one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use belay_agent::worker::door;
use belay_agent::worker::{Word, WorkerEvent};
use russh::ChannelMsg;

use crate::far_end::{
    Device, Laptop, Ward, echo, exec, next, order, output, past, runs, start_at, until,
};
use crate::rig::{AGENT, PATIENCE, run};

#[tokio::test]
async fn a_worker_survives_its_supervisor_and_tells_the_next_one_what_was_not_heard() {
    let mut device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "cat").await;
    echo(&mut channel, "one").await;
    let opened = past(&mut device.worker.control, |event| {
        matches!(event, WorkerEvent::ChannelOpened { .. })
    })
    .await;
    // It was given out, but nobody said that it was dealt with: it dies with its supervisor.
    let door = device.door.clone();
    let pid = device.worker.pid().unwrap();
    let (control, _child) = device.worker.into_parts();
    drop(control);

    echo(&mut channel, "two").await;
    let mut second = exec(&handle, "exit 5").await;
    assert_eq!(output(&mut second).await.1, Some(5));

    let (mut control, standing) = door::adopt(&door).await.unwrap();
    assert_eq!(standing.attached, Some(true));
    past(&mut control, |event| *event == opened).await;
    let next_one = |event: &WorkerEvent| matches!(event, WorkerEvent::ChannelOpened { detail, .. } if detail == "exit 5");
    assert!(next_one(&next(&mut control).await.unwrap()));
    // A third one takes over while the second is alive: it hears what the second did not deal with.
    let (mut newer, _) = door::adopt(&door).await.unwrap();
    past(&mut newer, next_one).await;
    let closed = next(&mut newer).await;
    assert!(matches!(closed, Some(WorkerEvent::ChannelClosed { exit: Some(5), .. })), "{closed:?}");
    newer.end("enough");
    past(&mut newer, |event| matches!(event, WorkerEvent::Ended { .. })).await;
    assert!(next(&mut newer).await.is_none());
    until("the worker is gone", || !runs(pid)).await;
}

#[tokio::test]
async fn without_a_supervisor_a_full_queue_of_events_holds_the_session_and_loses_none() {
    let device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let door = device.door.clone();
    let (control, _child) = device.worker.into_parts();
    drop(control);
    // More than all queues hold together, quickly: what is refused is told of too.
    const REQUESTS: usize = 1_000;
    let asked = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&asked);
    let requests = tokio::spawn(async move {
        for number in 0..REQUESTS {
            let mut channel = handle.channel_open_session().await.unwrap();
            channel.request_subsystem(true, format!("no-{number}")).await.unwrap();
            while !matches!(channel.wait().await.unwrap(), ChannelMsg::Failure) {}
            channel.close().await.unwrap();
            progress.store(number + 1, Ordering::Relaxed);
        }
    });
    let held = async {
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, asked.load(Ordering::Relaxed)) != before {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        before
    };
    let before = held.await;
    assert!((1..REQUESTS).contains(&before), "nothing held it: {before}");
    let (mut control, _) = door::adopt(&door).await.unwrap();
    let mut refused = Vec::new();
    while refused.len() < REQUESTS {
        let event = next(&mut control).await.unwrap();
        if let WorkerEvent::ChannelRefused { detail, .. } = event {
            refused.push(detail);
        }
    }
    assert_eq!(refused, (0..REQUESTS).map(|number| format!("no-{number}")).collect::<Vec<_>>());
    requests.await.unwrap();
}

/// A real `belay-agent run`, with its log.
struct Agent {
    child: Child,
    log: Receiver<String>,
}

impl Agent {
    fn run(state: &Path) -> Self {
        let mut child = Command::new(AGENT)
            .args(["run", "--state"])
            .arg(state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, log }
    }

    #[track_caller]
    fn says(&self, what: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("never said {what:?}: {seen:#?}"),
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A device that was enrolled with a relay nobody runs.
fn enrolled(state: &Path) {
    let key = Ed25519KeyPair::generate().unwrap();
    let hex: String = key.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let enrolment = serde_json::json!({
        "device": "00000000-0000-7000-8000-000000000001", "name": "pump-17",
        "relay": "127.0.0.1:9", "ssh_user_cas": [], "grant_keys": [hex],
    });
    std::fs::write(state.join("enrolment.json"), enrolment.to_string()).unwrap();
}

const SESSION: &str = "00000000-0000-7000-8000-00000000000a";

/// What an agent leaves beside a door, in the form every later one must understand.
fn record(session: &str, pid: u32, start: u64) -> String {
    serde_json::json!({
        "session": session, "user": "00000000-0000-7000-8000-00000000000b", "user_name": "ada",
        "login": order().login, "kind": "ssh", "started": 1, "ends": 4_000_000_000_u64,
        "process": { "pid": pid, "start": start }, "terminals": [],
    })
    .to_string()
}

fn start_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}

fn agent(state: &Path, args: &[&str]) -> crate::rig::Output {
    run(Command::new(AGENT).args(args).arg("--state").arg(state), Vec::new())
}

/// The test's own process is the first supervisor; two real ones follow, the first of them killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_are_killed_and_restarted_keep_their_sessions() {
    let temp = tempfile::tempdir().unwrap();
    // Longer than a socket's address may be: the agent must not mind.
    let state = temp.path().join("d".repeat(100));
    let sessions = state.join("sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    enrolled(&state);
    // Bound in a short place and moved, as the test itself has no way around that limit.
    let short = temp.path().join("door");
    let mut worker = start_at(&order(), &short).await;
    let _ward = Ward::of(&worker);
    assert!(matches!(next(&mut worker.control).await, Some(WorkerEvent::Started { .. })));
    let pid = worker.pid().unwrap();
    std::os::unix::fs::symlink(sessions.join(format!("{SESSION}.sock")), temp.path().join("link"))
        .unwrap();
    std::fs::rename(&short, sessions.join(format!("{SESSION}.sock"))).unwrap();
    std::fs::write(sessions.join(format!("{SESSION}.json")), record(SESSION, pid, start_of(pid)))
        .unwrap();
    let stale = "00000000-0000-7000-8000-00000000000c";
    std::fs::write(sessions.join(format!("{stale}.json")), record(stale, 1, 1)).unwrap();

    let mut laptop = Laptop::new();
    let _attachment = laptop.attach(&temp.path().join("link")).await;
    let (handle, taken) = laptop.log_in(crate::far_end::certificate(-60, 600)).await;
    assert!(taken);
    let mut channel = exec(&handle, "cat").await;
    echo(&mut channel, "one").await;
    let (control, _child) = worker.into_parts();
    drop(control);

    let mut first = Agent::run(&state);
    let line = first.says("session goes on");
    assert!(line.contains(SESSION), "{line}");
    first.says("channel open");
    assert!(!sessions.join(format!("{stale}.json")).exists(), "what was stale is still there");
    echo(&mut channel, "two").await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    echo(&mut channel, "three").await;

    let second = Agent::run(&state);
    second.says("session goes on");
    // It dials in vain, and says so.
    second.says("no line");
    let status = agent(&state, &["status", "--json"]);
    assert_eq!(status.code(), Some(1), "no line: {}", status.stderr);
    let status: serde_json::Value = serde_json::from_str(&status.text()).unwrap();
    assert_eq!(status["sessions"][0]["session"], SESSION);
    assert_eq!(status["sessions"][0]["user"], "ada");
    assert_eq!(status["sessions"][0]["attached"], true);
    assert_eq!(status["sessions"].as_array().unwrap().len(), 1);
    echo(&mut channel, "four").await;

    // Told to stop, it leaves the session as it is.
    let us = nix::unistd::Pid::from_raw(i32::try_from(second.child.id()).unwrap());
    nix::sys::signal::kill(us, nix::sys::signal::Signal::SIGTERM).unwrap();
    second.says("agent stopped");
    drop(second);
    echo(&mut channel, "five").await;

    let third = Agent::run(&state);
    third.says("session goes on");
    assert_eq!(agent(&state, &["end", stale]).code(), Some(1), "there is no such session");
    let ended = agent(&state, &["end", "--all"]).ok().text();
    assert!(ended.starts_with(SESSION) && ended.ends_with(": ended"), "{ended}");
    let line = third.says("session closed");
    assert!(line.contains("owner ended the session"), "{line}");
    assert!(!runs(pid));
    until("its files are gone", || std::fs::read_dir(&sessions).unwrap().count() == 0).await;
    assert!(door::visit(&temp.path().join("link"), &Word::default()).await.is_err());
}
