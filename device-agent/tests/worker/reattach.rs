//! A session goes on without its client, and with it again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use belay_agent::worker::door::{self, Errand};
use belay_agent::worker::{Word, WorkerEvent, WorkerOrder};
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::stream::Carried;
use russh::ChannelMsg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::far_end::{Device, Laptop, echo, exec, order, past, until};
use crate::rig::{PATIENCE, pattern};

const BULK: usize = 64 << 20;

/// Both ways at once, through an attachment that is cut again and again at any byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_survives_attachments_that_are_cut_in_the_middle() {
    let device = Device::started(&order()).await;
    let (laptop, handle, mut attachment) = Laptop::arrive(&device).await;
    let channel = exec(&handle, "cat").await;
    let sent = pattern(BULK);
    let expected = digest(&SHA256, &sent);
    let (mut reader, writer) = channel.split();
    let feeder = tokio::spawn(async move {
        let mut from = sent.as_slice();
        writer.data(&mut from).await.unwrap();
        writer.eof().await.unwrap();
    });
    let mut received = Vec::with_capacity(BULK);
    let mut cuts = 0;
    let mut next_cut = Instant::now() + Duration::from_millis(10);
    let end = Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            message = reader.wait() => {
                #[allow(clippy::wildcard_enum_match_arm, reason = "tests")]
                match message {
                    Some(ChannelMsg::Data { data }) => received.extend_from_slice(&data),
                    Some(_) => {}
                    None => break,
                }
            }
            () = tokio::time::sleep_until(next_cut) => {
                attachment.abort();
                attachment = laptop.attach(&device.door).await;
                cuts += 1;
                next_cut = Instant::now() + Duration::from_millis(5 + cuts % 37);
            }
            () = tokio::time::sleep_until(end) => panic!("{} of {BULK} bytes", received.len()),
        }
    }
    feeder.await.unwrap();
    assert_eq!(received.len(), BULK);
    assert_eq!(digest(&SHA256, &received).as_ref(), expected.as_ref());
    assert!(cuts >= 5, "only {cuts} cuts: the test shows nothing");
}

#[tokio::test]
async fn a_second_attachment_replaces_the_first() {
    let device = Device::started(&order()).await;
    let (laptop, handle, first) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "cat").await;
    echo(&mut channel, "one").await;
    let _second = laptop.attach(&device.door).await;
    assert!(matches!(timeout(PATIENCE, first).await.unwrap().unwrap(), Carried::Replaced));
    echo(&mut channel, "two").await;
}

#[tokio::test]
async fn a_worker_without_a_client_ends_when_its_window_is_over_and_says_so() {
    let windows = ResumeWindows { interactive: 600, other: 1 };
    let mut device = Device::started(&WorkerOrder { windows, ..order() }).await;
    let (laptop, handle, attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "cat").await;
    echo(&mut channel, "one").await;
    attachment.abort();
    sleep(Duration::from_millis(300)).await;
    // Back within the window: the clock starts anew.
    let attachment = laptop.attach(&device.door).await;
    echo(&mut channel, "two").await;
    sleep(Duration::from_millis(1200)).await;
    echo(&mut channel, "three").await;
    attachment.abort();
    let since = Instant::now();
    let ended = past(&mut device.worker.control, |e| matches!(e, WorkerEvent::Ended { .. })).await;
    let WorkerEvent::Ended { reason } = ended else { unreachable!() };
    assert_eq!(reason, "nobody came back within 1 s");
    assert!(since.elapsed() >= Duration::from_millis(950), "{:?}", since.elapsed());
    assert!(device.worker.control.next().await.unwrap().is_none());
    until("the worker is gone", || !device.runs()).await;
}

#[tokio::test]
async fn a_terminal_holds_the_session_for_the_longer_window() {
    let windows = ResumeWindows { interactive: 600, other: 0 };
    let mut device = Device::started(&WorkerOrder { windows, ..order() }).await;
    let (laptop, handle, attachment) = Laptop::arrive(&device).await;
    let channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, "stty -echo; printf ready; cat").await.unwrap();
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyOpened { .. })).await;
    attachment.abort();
    sleep(Duration::from_millis(500)).await;
    let standing = door::visit(&device.door, &Word::default()).await.unwrap();
    assert_eq!((standing.attached, standing.terminals), (Some(false), Some(1)));
    let _attachment = laptop.attach(&device.door).await;
    channel.eof().await.unwrap();
    channel.close().await.unwrap();
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
}

#[tokio::test]
async fn a_worker_that_nobody_may_come_back_to_ends_with_its_first_attachment() {
    let windows = ResumeWindows { interactive: 0, other: 0 };
    let mut device = Device::started(&WorkerOrder { windows, ..order() }).await;
    let (_laptop, _handle, attachment) = Laptop::arrive(&device).await;
    attachment.abort();
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::Ended { .. })).await;
    assert!(device.worker.control.next().await.unwrap().is_none());
    until("the worker is gone", || !device.runs()).await;
}

#[tokio::test]
async fn whoever_knocks_and_says_nothing_or_nonsense_holds_up_nobody() {
    let device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "cat").await;
    let silent = tokio::net::UnixStream::connect(&device.door).await.unwrap();
    let mut nonsense = tokio::net::UnixStream::connect(&device.door).await.unwrap();
    nonsense.write_all(b"?").await.unwrap();
    echo(&mut channel, "still here").await;
    assert_eq!(nonsense.read(&mut [0; 8]).await.unwrap_or(0), 0, "it is closed");
    door::visit(&device.door, &Word::default()).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn another_user_does_not_come_in() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let device = Device::started(&order()).await;
    // Everything that would keep another user away from the socket itself is taken down.
    for path in [device.door.as_path(), device.door.parent().unwrap()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let door = device.door.clone();
    let read = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            // Of this thread alone, and it ends here.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let mut socket = std::os::unix::net::UnixStream::connect(&door).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // It may be closed before or after it is asked.
            drop(socket.write_all(b"V\0\0\0\x01\xa0"));
            socket.read(&mut [0; 64]).unwrap_or(0)
        })
        .join()
        .unwrap()
    });
    assert_eq!(read.await.unwrap(), 0, "another user was answered");
    // The same from root is answered.
    let mut ours = door::connect(&device.door, Errand::Visit).await.unwrap();
    ours.write_all(b"\0\0\0\x01\xa0").await.unwrap();
    assert!(ours.read(&mut [0; 64]).await.unwrap() > 4);
}
