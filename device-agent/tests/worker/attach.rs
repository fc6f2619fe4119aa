//! Terminals that outlive the client they were opened by.

use std::sync::Arc;
use std::time::Duration;

use belay_agent::worker::door::{self, Anew};
use belay_agent::worker::{ChannelKind, Word, WorkerEvent, WorkerOrder};
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::stream::{Carried, Reader, Writer};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::far_end::{Device, Laptop, Trusting, certificate, order, output, past, until};
use crate::rig::PATIENCE;

/// Another client, with a stream of its own.
async fn another(device: &Device) -> (Laptop, Handle<Trusting>, JoinHandle<Carried>) {
    let mut laptop = Laptop::new();
    let Anew::Given(socket) = door::anew(&device.door).await.unwrap() else {
        panic!("it is not given to another client")
    };
    let (read, write) = socket.into_split();
    let attacher = laptop.attacher.clone();
    let attachment =
        tokio::spawn(async move { attacher.carry(Reader::new(read), Writer::new(write)).await });
    let (handle, taken) = laptop.log_in(certificate(-60, 600)).await;
    assert!(taken, "the certificate was not taken");
    (laptop, handle, attachment)
}

async fn channel(handle: &Handle<Trusting>) -> Channel<Msg> {
    let channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel
}

/// A command on a terminal.
async fn on_terminal(handle: &Handle<Trusting>, command: &str) -> Channel<Msg> {
    let channel = channel(handle).await;
    channel.exec(false, command).await.unwrap();
    channel
}

async fn attached(handle: &Handle<Trusting>, subsystem: &str) -> Channel<Msg> {
    let channel = channel(handle).await;
    channel.request_subsystem(true, subsystem).await.unwrap();
    channel
}

/// Reads until this text has come.
async fn shows(channel: &mut Channel<Msg>, wanted: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(wanted) {
            #[allow(clippy::wildcard_enum_match_arm, reason = "tests")]
            match channel.wait().await {
                Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                    seen.push_str(&String::from_utf8_lossy(&data));
                }
                Some(_) => {}
                None => panic!("it ended without {wanted:?}"),
            }
        }
    };
    let found = timeout(PATIENCE, read).await;
    found.unwrap_or_else(|_| panic!("never {wanted:?} in {seen:?}"));
    seen
}

/// A shell's loop that answers each line, without echo.
const ANSWERS: &str =
    "stty -echo; echo ready; while read -r line; do echo \"<$line>\"; done; exit 5";

async fn ended(device: &mut Device) -> String {
    let ended = past(&mut device.worker.control, |e| matches!(e, WorkerEvent::Ended { .. })).await;
    let WorkerEvent::Ended { reason } = ended else { unreachable!() };
    // Asking for the next says that the end was heard.
    assert!(device.worker.control.next().await.unwrap().is_none());
    until("the worker is gone", || !device.runs()).await;
    reason
}

#[tokio::test]
async fn a_terminal_whose_client_vanished_is_drawn_for_another_and_goes_on() {
    let mut device = Device::started(&order()).await;
    let (_first, handle, attachment) = Laptop::arrive(&device).await;
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    channel.data(&b"one\n"[..]).await.unwrap();
    shows(&mut channel, "<one>").await;
    attachment.abort();
    let (_second, handle, _attachment) = another(&device).await;
    let mut again = attached(&handle, "attach@belay").await;
    let drawn = shows(&mut again, "<one>").await;
    assert!(drawn.contains("ready"), "{drawn:?}");
    again.data(&b"two\n"[..]).await.unwrap();
    shows(&mut again, "<two>").await;
    // Control-D at the start of a line.
    again.data(&[4][..]).await.unwrap();
    assert_eq!(output(&mut again).await.1, Some(5));
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((again, handle));
    let opened = past(&mut device.worker.control, |e| {
        matches!(e, WorkerEvent::ChannelOpened { kind: Some(ChannelKind::Attach), .. })
    });
    let WorkerEvent::ChannelOpened { detail, .. } = opened.await else { unreachable!() };
    assert_eq!(detail, ANSWERS);
    past(&mut device.worker.control, |e| {
        matches!(
            e,
            WorkerEvent::ChannelClosed { kind: Some(ChannelKind::Attach), exit: Some(5), .. }
        )
    })
    .await;
    ended(&mut device).await;
}

#[tokio::test]
async fn a_client_that_ends_its_stream_without_a_goodbye_leaves_its_terminal_behind() {
    let device = Device::started(&order()).await;
    let mut first = Laptop::new();
    let attachment = first.attach(&device.door).await;
    // ssh, and the process it reaches the line through.
    let (ssh, proxy) = tokio::io::duplex(64 * 1024);
    let (mut from_ssh, mut to_ssh) = tokio::io::split(proxy);
    let (mut send, mut recv) = first.bytes().split();
    let killed = Arc::new(Notify::new());
    let proxy = tokio::spawn({
        let killed = Arc::clone(&killed);
        async move {
            tokio::select! {
                _ = tokio::io::copy(&mut from_ssh, &mut send) => {}
                _ = tokio::io::copy(&mut recv, &mut to_ssh) => {}
                () = killed.notified() => {}
            }
            send.finish();
            // Until the device's side is over, as well.
            tokio::io::copy(&mut recv, &mut tokio::io::sink()).await
        }
    });
    let (handle, taken) = Laptop::log_in_over(ssh, certificate(-60, 600)).await;
    assert!(taken);
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    killed.notify_one();
    assert!(timeout(PATIENCE, proxy).await.unwrap().unwrap().is_err(), "it is given up");
    let carried = timeout(PATIENCE, attachment).await.unwrap().unwrap();
    assert!(matches!(carried, Carried::Closed), "{carried:?}");
    let mut standing = door::visit(&device.door, &Word::default()).await.unwrap();
    let waiting = async {
        while standing.waits != Some(true) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            standing = door::visit(&device.door, &Word::default()).await.unwrap();
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!((standing.terminals, standing.goes_on), (Some(1), Some(true)));
    let (_second, handle, _attachment) = another(&device).await;
    let mut again = attached(&handle, "attach@belay").await;
    shows(&mut again, "ready").await;
    again.data(&b"still\n"[..]).await.unwrap();
    shows(&mut again, "<still>").await;
    let standing = door::visit(&device.door, &Word::default()).await.unwrap();
    assert_eq!((standing.attached, standing.waits), (Some(true), Some(false)));
}

#[tokio::test]
async fn a_client_that_says_goodbye_takes_its_terminal_with_it() {
    let mut device = Device::started(&order()).await;
    let (_first, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
    ended(&mut device).await;
}

#[tokio::test]
async fn a_live_client_whose_session_is_taken_is_told() {
    let device = Device::started(&order()).await;
    let (_first, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    let (_second, taker, _its) = another(&device).await;
    let mut again = attached(&taker, "attach@belay").await;
    shows(&mut again, "ready").await;
    assert_eq!(output(&mut channel).await.1, None, "it has no status: the program runs");
    drop(handle);
    again.data(&b"mine\n"[..]).await.unwrap();
    shows(&mut again, "<mine>").await;
}

#[tokio::test]
async fn what_is_written_while_nobody_looks_is_read_and_the_status_is_kept() {
    let mut device = Device::started(&order()).await;
    let (_first, handle, attachment) = Laptop::arrive(&device).await;
    let flood =
        "stty -echo; echo ready; read -r go; echo going; seq 1 300000; echo written; exit 6";
    let mut channel = on_terminal(&handle, flood).await;
    shows(&mut channel, "ready").await;
    channel.data(&b"go\n"[..]).await.unwrap();
    shows(&mut channel, "going").await;
    // Two clients, and neither is there for the end.
    let (second, handle2, its) = another(&device).await;
    drop((handle, attachment));
    second.attacher.end("killed as well");
    drop((handle2, its));
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
    let standing = door::visit(&device.door, &Word::default()).await.unwrap();
    assert_eq!(standing.terminals, Some(1), "nobody was told yet");
    let (_third, handle, _attachment) = another(&device).await;
    let mut again = attached(&handle, "attach@belay 1").await;
    let (drawn, status) = output(&mut again).await;
    assert_eq!(status, Some(6));
    let drawn = String::from_utf8_lossy(&drawn).into_owned();
    for part in ["299500\r\n", "300000", "written"] {
        assert!(drawn.contains(part), "{part}");
    }
    assert!(!drawn.contains("290000\r\n"), "the scrollback is bounded");
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((again, handle));
    ended(&mut device).await;
}

#[tokio::test]
async fn one_of_several_terminals_is_named_and_the_others_wait_on() {
    let mut device = Device::started(&order()).await;
    let (first, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channels = Vec::new();
    for name in ["left", "right"] {
        let mut channel = on_terminal(&handle, &format!("echo {name}; exec cat")).await;
        shows(&mut channel, name).await;
        channels.push(channel);
    }
    first.attacher.end("killed");
    drop((channels, handle));
    let (_second, handle, _its) = another(&device).await;
    let mut unnamed = attached(&handle, "attach@belay").await;
    let said = shows(&mut unnamed, "--terminal").await;
    assert!(said.contains("1 (echo left") && said.contains("2 (echo right"), "{said}");
    let mut none = attached(&handle, "attach@belay 3").await;
    shows(&mut none, "no terminal 3").await;
    let mut right = attached(&handle, "attach@belay 2").await;
    shows(&mut right, "right").await;
    // The only one that waits now needs no number.
    let mut left = attached(&handle, "attach@belay").await;
    shows(&mut left, "left").await;
    // The same connection may take a terminal from itself.
    let mut again = attached(&handle, "attach@belay 2").await;
    shows(&mut again, "right").await;
    shows(&mut right, "taken over").await;
    left.close().await.unwrap();
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((unnamed, none, right, left, again, handle));
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
    ended(&mut device).await;
}

#[tokio::test]
async fn a_terminal_nobody_comes_back_to_ends_with_its_window() {
    let windows = ResumeWindows { interactive: 1, other: 600 };
    let mut device = Device::started(&WorkerOrder { windows, ..order() }).await;
    let (first, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    first.attacher.end("killed");
    past(&mut device.worker.control, |e| matches!(e, WorkerEvent::PtyClosed { .. })).await;
    assert_eq!(ended(&mut device).await, "nobody came back within 1 s");
}

#[tokio::test]
async fn a_session_without_a_terminal_is_given_to_nobody_else() {
    let device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = crate::far_end::exec(&handle, "cat").await;
    crate::far_end::echo(&mut channel, "one").await;
    assert!(matches!(door::anew(&device.door).await.unwrap(), Anew::NoTerminal));
    crate::far_end::echo(&mut channel, "two").await;
}

#[tokio::test]
async fn a_terminal_is_no_way_around_the_grant() {
    let only_exec = WorkerOrder { actions: vec!["exec".into()], ..order() };
    let device = Device::started(&only_exec).await;
    let (_first, handle, attachment) = Laptop::arrive(&device).await;
    let mut channel = on_terminal(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    attachment.abort();
    let (_second, handle, _its) = another(&device).await;
    // Without a terminal of its own there is nothing to draw on.
    let mut bare = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    bare.request_subsystem(true, "attach@belay").await.unwrap();
    shows(&mut bare, "needs a terminal").await;
    let mut again = attached(&handle, "attach@belay").await;
    shows(&mut again, "ready").await;
}
