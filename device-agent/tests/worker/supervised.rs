//! The supervisor's side: order in, events out, bytes through.

use std::path::Path;
use std::time::Duration;

use belay_agent::worker::{ChannelKind, Worker, WorkerEvent, WorkerOrder, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::rig::{AGENT, PATIENCE, Rig, have_ssh};

fn order(rig: &Rig) -> WorkerOrder {
    let line = |name: &str| std::fs::read_to_string(rig.path(name)).unwrap().trim().to_owned();
    WorkerOrder {
        session: uuid::Uuid::from_u128(7),
        user: "ada".into(),
        login: rig.login().into(),
        actions: vec!["exec".into(), "shell".into()],
        host_key: line("host").into_bytes().into(),
        host_certificate: None,
        user_cas: vec![line("ca.pub")],
        clock_correction: 0,
        expires_at: u64::MAX,
        obligations: vec![],
        env: vec![("SITE".into(), "oslo".into())],
    }
}

/// The private key file has to end with its newline.
fn with_newline(mut order: WorkerOrder) -> WorkerOrder {
    order.host_key.push(b'\n');
    order
}

async fn start(order: &WorkerOrder) -> Worker {
    spawn(order, Path::new(AGENT)).await.unwrap()
}

async fn next(worker: &mut Worker) -> WorkerEvent {
    timeout(PATIENCE, worker.events.recv()).await.unwrap().expect("an event")
}

#[tokio::test]
async fn a_session_is_served_and_told_of() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let mut worker = start(&with_newline(order(&rig))).await;
    let pid = worker.pid().unwrap();
    assert!(
        matches!(next(&mut worker).await, WorkerEvent::Started { pid: told, .. } if told == pid)
    );

    // ssh reaches the worker's socket through a listener of ours.
    let socket = rig.path("line");
    let listener = UnixListener::bind(&socket).unwrap();
    let config = rig.config("key", &[]);
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.arg("-F").arg(config).arg(format!("-oProxyCommand=nc -U {}", socket.display()));
    ssh.args(["x", "echo $SITE $BELAY_SESSION; exit 3"]).stdin(std::process::Stdio::null());
    if !crate::rig::have("nc") {
        eprintln!("SKIPPED: this test needs nc");
        return;
    }
    let (out, ()) =
        tokio::join!(async { timeout(PATIENCE, ssh.output()).await.unwrap().unwrap() }, async {
            let (mut client, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
            drop(copy_bidirectional(&mut client, &mut worker.data).await);
        });
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(text.trim(), "oslo 00000000-0000-0000-0000-000000000007");

    worker.data.shutdown().await.unwrap();
    assert!(matches!(next(&mut worker).await,
        WorkerEvent::Authenticated { user, fingerprint, .. } if user == "ada" && fingerprint.starts_with("SHA256:")));
    assert!(matches!(next(&mut worker).await,
        WorkerEvent::ChannelOpened { kind: Some(ChannelKind::Exec), detail, .. } if detail.starts_with("echo $SITE")));
    assert!(matches!(next(&mut worker).await, WorkerEvent::ChannelClosed { exit: Some(3), .. }));
    assert!(matches!(next(&mut worker).await, WorkerEvent::Ended { .. }));
    assert!(timeout(PATIENCE, worker.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn an_order_that_cannot_be_obeyed_is_refused_with_its_reason() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let good = with_newline(order(&rig));
    for (bad, reason) in [
        (WorkerOrder { obligations: vec!["record".into()], ..good.clone() }, "`record`"),
        (WorkerOrder { login: "no-such-login".into(), ..good.clone() }, "does not exist"),
        (WorkerOrder { host_key: b"nonsense".to_vec().into(), ..good.clone() }, "host key"),
    ] {
        let mut worker = start(&bad).await;
        let WorkerEvent::Refused { reason: told } = next(&mut worker).await else {
            panic!("not refused")
        };
        assert!(told.contains(reason), "{told}");
        let mut bytes = Vec::new();
        timeout(PATIENCE, worker.data.read_to_end(&mut bytes)).await.unwrap().unwrap();
        assert!(bytes.is_empty(), "no word of SSH");
        assert!(!timeout(PATIENCE, worker.wait()).await.unwrap().unwrap().success());
    }
}

#[tokio::test]
async fn a_worker_whose_supervisor_lets_go_ends_by_itself() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let mut worker = start(&with_newline(order(&rig))).await;
    next(&mut worker).await;
    let pid = worker.pid().unwrap();
    drop(worker);
    let process = format!("/proc/{pid}/exe");
    timeout(PATIENCE, async {
        // A zombie has no program any more; the runtime reaps it when it may.
        while std::fs::read_link(&process).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_worker_that_is_killed_is_seen_to_be_gone() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let mut worker = start(&with_newline(order(&rig))).await;
    next(&mut worker).await;
    worker.kill().unwrap();
    assert!(timeout(PATIENCE, worker.events.recv()).await.unwrap().is_none());
    assert!(!timeout(PATIENCE, worker.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_session_nobody_authenticates_in_ends_with_the_reason() {
    if !have_ssh() || !crate::rig::have("nc") {
        return;
    }
    let rig = Rig::new();
    rig.certify("ca", &["-n", "ada", "-V", "-2h:-1h"]);
    let mut worker = start(&with_newline(order(&rig))).await;
    next(&mut worker).await;
    let socket = rig.path("line");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.arg("-F")
        .arg(rig.config("key", &[]))
        .arg(format!("-oProxyCommand=nc -U {}", socket.display()));
    ssh.args(["-oBatchMode=yes", "x", "true"]).stdin(std::process::Stdio::null());
    let (out, ()) =
        tokio::join!(async { timeout(PATIENCE, ssh.output()).await.unwrap().unwrap() }, async {
            let (mut client, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
            drop(copy_bidirectional(&mut client, &mut worker.data).await);
        });
    assert_eq!(out.status.code(), Some(255));
    let WorkerEvent::Refused { reason } = next(&mut worker).await else { panic!("not refused") };
    assert!(reason.contains("expired") && reason.contains("belay login"), "{reason}");
    assert!(matches!(next(&mut worker).await, WorkerEvent::Ended { .. }));
}
