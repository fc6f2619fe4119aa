//! The supervisor's side: order in, events out, a door for everything else.

use belay_agent::worker::{ChannelKind, WorkerEvent, WorkerOrder};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::far_end::{Device, Laptop, certificate, exec, next, order, output, past, until};
use crate::rig::{PATIENCE, pattern};

#[tokio::test]
async fn a_session_is_served_and_told_of() {
    let mut device = Device::start(&order()).await;
    let pid = device.worker.pid().unwrap();
    assert!(matches!(device.next().await, WorkerEvent::Started { pid: told, .. } if told == pid));

    let (laptop, handle, attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "echo $SITE $BELAY_SESSION $BELAY_USER; exit 3").await;
    let (out, status) = output(&mut channel).await;
    assert_eq!(status, Some(3));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.trim(), "oslo 00000000-0000-0000-0000-000000000007 ada");

    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    assert!(matches!(device.next().await,
        WorkerEvent::Authenticated { user, fingerprint, .. } if user == "ada" && fingerprint.starts_with("SHA256:")));
    assert!(matches!(device.next().await,
        WorkerEvent::ChannelOpened { kind: Some(ChannelKind::Exec), detail, .. } if detail.starts_with("echo $SITE")));
    assert!(matches!(device.next().await, WorkerEvent::ChannelClosed { exit: Some(3), .. }));
    assert!(matches!(device.next().await, WorkerEvent::Ended { .. }));
    assert!(next(&mut device.worker.control).await.is_none());
    assert!(timeout(PATIENCE, device.worker.wait()).await.unwrap().unwrap().success());
    timeout(PATIENCE, attachment).await.unwrap().unwrap();
    drop(laptop);
}

#[tokio::test]
async fn an_order_that_cannot_be_obeyed_is_refused_with_its_reason() {
    let good = order();
    for (bad, reason) in [
        (WorkerOrder { obligations: vec!["sing".into()], ..good.clone() }, "`sing`"),
        (WorkerOrder { login: "no-such-login".into(), ..good.clone() }, "does not exist"),
        (WorkerOrder { host_key: b"nonsense".to_vec().into(), ..good.clone() }, "host key"),
    ] {
        let mut device = Device::start(&bad).await;
        let WorkerEvent::Refused { reason: told } = device.next().await else {
            panic!("not refused")
        };
        assert!(told.contains(reason), "{told}");
        assert!(matches!(device.next().await, WorkerEvent::Ended { .. }));
        assert!(!timeout(PATIENCE, device.worker.wait()).await.unwrap().unwrap().success());
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_is_seen_to_be_gone() {
    let mut device = Device::started(&order()).await;
    device.worker.kill().unwrap();
    assert!(next(&mut device.worker.control).await.is_none());
    assert!(!timeout(PATIENCE, device.worker.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_session_nobody_authenticates_in_ends_with_the_reason() {
    let mut device = Device::started(&order()).await;
    let mut laptop = Laptop::new();
    let _attachment = laptop.attach(&device.door).await;
    let (handle, taken) = laptop.log_in(certificate(-7200, -3600)).await;
    assert!(!taken);
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    let WorkerEvent::Refused { reason } = device.next().await else { panic!("not refused") };
    assert!(reason.contains("expired") && reason.contains("belay login"), "{reason}");
    assert!(matches!(device.next().await, WorkerEvent::Ended { .. }));
}

#[tokio::test]
async fn a_session_is_ended_by_a_word_and_the_engineer_hears_why() {
    let mut device = Device::started(&order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "exec sleep 600").await;
    device.worker.control.end("the account was disabled");
    let ended = crate::far_end::past(&mut device.worker.control, |event| {
        matches!(event, WorkerEvent::Ended { .. })
    });
    let WorkerEvent::Ended { reason } = ended.await else { panic!("not ended") };
    assert_eq!(reason, "the account was disabled");
    assert_eq!(output(&mut channel).await.1, None, "the channel closes without a status");
    // Asking for the next says that the end was heard.
    assert!(next(&mut device.worker.control).await.is_none());
    until("the worker is gone", || !device.runs()).await;
    drop(laptop);
}

#[tokio::test]
async fn a_worker_holds_nothing_open_of_whoever_started_its_supervisor() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // As a shell's redirection or a caller's lock: inherited by whatever is started.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let device = Device::started(&order()).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", device.worker.pid().unwrap())).unwrap();
    let open: Vec<_> = open
        .map_while(Result::ok)
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    assert!(!open.is_empty() && !open.iter().any(|path| path == file.path()), "{open:?}");
}

/// Its length is more than a pipe and a queue's memory hold, and less than a window.
const FED: usize = 4_000_000;

#[tokio::test]
async fn a_closed_channel_does_not_stay_for_a_program_that_neither_reads_nor_ends() {
    let mut device = Device::started(&order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let channel = exec(&handle, "exec sleep 100").await;
    channel.data(&pattern(FED)[..]).await.unwrap();
    channel.close().await.unwrap();
    let closed = |event: &WorkerEvent| matches!(event, WorkerEvent::ChannelClosed { .. });
    let event = timeout(PATIENCE / 2, past(&mut device.worker.control, closed)).await.unwrap();
    let WorkerEvent::ChannelClosed { bytes_in, exit: None, .. } = event else {
        panic!("{event:?}")
    };
    assert!(bytes_in < FED as u64, "{bytes_in}");
    drop((channel, handle, laptop));
}

#[tokio::test]
async fn a_program_still_gets_what_was_sent_before_its_channel_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    let mut device = Device::started(&order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    // It says more than anybody reads, and hears of that only when it comes to it.
    let command = format!("sleep 3; cat >{}; yes", file.display());
    let channel = exec(&handle, &command).await;
    let sent = pattern(FED);
    channel.data(&sent[..]).await.unwrap();
    channel.close().await.unwrap();
    let closed = |event: &WorkerEvent| matches!(event, WorkerEvent::ChannelClosed { .. });
    past(&mut device.worker.control, closed).await;
    until("the file is whole", || std::fs::read(&file).is_ok_and(|got| got == sent)).await;
    drop((channel, handle, laptop));
}

#[tokio::test]
async fn a_closed_forward_does_not_stay_for_a_target_that_does_not_read() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forwards = WorkerOrder { actions: vec!["forward".into()], ..order() };
    let mut device = Device::started(&forwards).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let opened = handle.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 1);
    let channel = timeout(PATIENCE, opened).await.unwrap().unwrap();
    let (target, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // More than both sockets hold.
    let sent = pattern(FED);
    for _ in 0..10 {
        timeout(PATIENCE, channel.data(&sent[..])).await.unwrap().unwrap();
    }
    channel.close().await.unwrap();
    let closed = |event: &WorkerEvent| matches!(event, WorkerEvent::ChannelClosed { .. });
    let event = timeout(PATIENCE / 2, past(&mut device.worker.control, closed)).await.unwrap();
    let WorkerEvent::ChannelClosed { bytes_in, .. } = event else { panic!("{event:?}") };
    assert!(bytes_in < 10 * FED as u64, "{bytes_in}");
    drop((target, channel, handle, laptop));
}
