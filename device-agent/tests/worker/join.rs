//! Two people at one terminal: a host's worker, a guest's worker, and an SSH client at each.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use belay_agent::worker::door::{self, Joined};
use belay_agent::worker::{
    ChannelKind, Knock, Word, Worker, WorkerEvent, WorkerOrder, spawn_joining,
};
use belay_proto::ids::SessionId;
use belay_proto::wire::open::Join;
use belay_tunnel::stream::Carried;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::far_end::{Device, Laptop, Trusting, Ward, certificate, next, order, output, past};
use crate::rig::{AGENT, PATIENCE};

/// The guest's side: a worker of its own, and who is in it.
struct Guest {
    _dir: TempDir,
    door: PathBuf,
    worker: Worker,
    _ward: Ward,
    handle: Handle<Trusting>,
    _laptop: Laptop,
    attachment: JoinHandle<Carried>,
}

fn join(terminal: Option<u32>, read_only: bool) -> Join {
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(7));
    Join { session, terminal, read_only: read_only.then_some(true) }
}

async fn knock(host: &Device, name: &str, join: Join) -> Joined {
    let knock = Knock { name: name.to_owned(), session: format!("session of {name}"), join };
    door::join(&host.door, &knock).await.unwrap()
}

fn guests_order(join: Join) -> WorkerOrder {
    let session = uuid::Uuid::from_u128(8);
    WorkerOrder { session, actions: vec!["join".into()], joins: Some(join), ..order() }
}

/// A guest who is let in and has an SSH connection, but no terminal yet.
async fn arrives(host: &Device, name: &str, read_only: bool) -> Guest {
    arrives_at(host, name, join(None, read_only)).await
}

async fn arrives_at(host: &Device, name: &str, wanted: Join) -> Guest {
    let Joined::Seated(socket, number) = knock(host, name, wanted.clone()).await else {
        panic!("there is no seat")
    };
    let dir = tempfile::tempdir().unwrap();
    let door = dir.path().join("door");
    let listener = UnixListener::bind(&door).unwrap();
    let order = guests_order(Join { terminal: Some(number), ..wanted });
    let way = OwnedFd::from(socket.into_std().unwrap());
    let mut worker = spawn_joining(&order, Path::new(AGENT), listener, Some(way)).await.unwrap();
    let ward = Ward::of(&worker);
    let started = next(&mut worker.control).await.unwrap();
    assert!(matches!(started, WorkerEvent::Started { .. }), "{started:?}");
    let mut laptop = Laptop::new();
    let attachment = laptop.attach(&door).await;
    let (handle, taken) = laptop.log_in(certificate(-60, 600)).await;
    assert!(taken, "the certificate was not taken");
    Guest { _dir: dir, door, worker, _ward: ward, handle, _laptop: laptop, attachment }
}

async fn channel(handle: &Handle<Trusting>, (columns, rows): (u32, u32)) -> Channel<Msg> {
    let channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.request_pty(false, "xterm", columns, rows, 0, 0, &[]).await.unwrap();
    channel
}

/// The host's terminal, which runs this.
async fn hosts(handle: &Handle<Trusting>, command: &str) -> Channel<Msg> {
    let channel = channel(handle, (80, 24)).await;
    channel.exec(false, command).await.unwrap();
    channel
}

async fn joined(guest: &Guest, size: (u32, u32)) -> Channel<Msg> {
    let channel = channel(&guest.handle, size).await;
    channel.request_shell(false).await.unwrap();
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
                None => panic!("it ended without {wanted:?}: {seen:?}"),
            }
        }
    };
    // What it has seen is lost with it.
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
    seen
}

/// A shell's loop that answers each line, without echo; `size` says how large its terminal is, `flood`
/// is answered with 8 MB.
const ANSWERS: &str = "stty -echo; echo ready; while read -r line; do \
    if [ \"$line\" = size ]; then stty size; \
    elif [ \"$line\" = flood ]; then seq -f '%019.0f' 400000; echo over; \
    else echo \"<$line>\"; fi; done; exit 5";

/// A host at a terminal that answers.
async fn at_work() -> (Device, Laptop, Handle<Trusting>, Channel<Msg>, JoinHandle<Carried>) {
    let device = Device::started(&order()).await;
    let (laptop, handle, attachment) = Laptop::arrive(&device).await;
    let mut channel = hosts(&handle, ANSWERS).await;
    shows(&mut channel, "ready").await;
    (device, laptop, handle, channel, attachment)
}

/// A host at work, and a guest who has joined; both were told.
struct Both {
    device: Device,
    laptop: Laptop,
    handle: Handle<Trusting>,
    attachment: JoinHandle<Carried>,
    /// The host's terminal.
    host: Channel<Msg>,
    olga: Guest,
    /// The guest's.
    guest: Channel<Msg>,
}

/// The host's window is 80 × 24, olga's is of this size.
async fn together(size: (u32, u32), looks_on: bool) -> Both {
    let (device, laptop, handle, mut host, attachment) = at_work().await;
    let olga = arrives(&device, "olga", looks_on).await;
    let mut guest = joined(&olga, size).await;
    let how = if looks_on { "olga joined (looks on)" } else { "olga joined (may type)" };
    shows(&mut guest, how).await;
    shows(&mut host, how).await;
    Both { device, laptop, handle, attachment, host, olga, guest }
}

async fn types(channel: &Channel<Msg>, line: &str) {
    channel.data(format!("{line}\n").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn both_type_and_both_see_and_all_of_it_is_told() {
    let (mut device, _laptop, _handle, mut host, _attachment) = at_work().await;
    types(&host, "before").await;
    shows(&mut host, "<before>").await;
    let mut olga = arrives(&device, "olga", false).await;
    let mut guest = joined(&olga, (80, 24)).await;
    let drawn = shows(&mut guest, "olga joined (may type), with ada").await;
    assert!(drawn.contains("<before>"), "they see what was there: {drawn:?}");
    shows(&mut host, "[belay] olga joined (may type), with ada").await;
    types(&guest, "theirs").await;
    shows(&mut host, "<theirs>").await;
    shows(&mut guest, "<theirs>").await;
    types(&host, "mine").await;
    shows(&mut guest, "<mine>").await;
    shows(&mut host, "<mine>").await;
    past(&mut device.worker.control, |event| {
        *event
            == WorkerEvent::GuestJoined {
                terminal: 1,
                user: "olga".into(),
                session: "session of olga".into(),
                may_type: true,
            }
    })
    .await;
    let opened = past(&mut olga.worker.control, |event| {
        matches!(event, WorkerEvent::ChannelOpened { kind: Some(ChannelKind::Join), .. })
    });
    let WorkerEvent::ChannelOpened { detail, .. } = opened.await else { unreachable!() };
    assert!(detail.ends_with("terminal 1, may type"), "{detail}");
    // The guest closes the terminal: the host goes on.
    guest.close().await.unwrap();
    shows(&mut host, "[belay] olga left").await;
    past(&mut device.worker.control, |event| matches!(event, WorkerEvent::GuestLeft { .. })).await;
    types(&host, "still").await;
    shows(&mut host, "<still>").await;
}

#[tokio::test]
async fn the_end_of_the_terminal_is_the_end_of_joining_it() {
    let mut both = together((80, 24), false).await;
    // Control-D at the start of a line.
    both.guest.data(&[4][..]).await.unwrap();
    let (out, status) = output(&mut both.guest).await;
    assert!(String::from_utf8_lossy(&out).contains("[belay] the session's terminal has ended"));
    assert_eq!(status, Some(0));
    assert_eq!(output(&mut both.host).await.1, Some(5));
}

/// What the guest reads at the end, after the host's side has ended so.
async fn told_at_the_end(ends: impl AsyncFnOnce(&mut Both)) -> String {
    let mut both = together((80, 24), false).await;
    ends(&mut both).await;
    let Both { device, guest, .. } = &mut both;
    let reading = async {
        // What the host's worker is told is sent, and what it tells taken, as by its supervisor.
        while let Ok(Some(_)) = device.worker.control.next().await {}
        std::future::pending().await
    };
    let (out, status) = tokio::select! {
        read = output(guest) => read,
        () = reading => unreachable!("it waits for ever"),
    };
    assert_eq!(status, Some(0));
    String::from_utf8_lossy(&out).into_owned()
}

#[tokio::test]
async fn who_ended_it_and_why_is_told_to_guests_as_well() {
    let killed = told_at_the_end(async |both| {
        both.device.worker.control.end("ian ended this session: enough\x1b]0;x\x07");
    });
    let killed = killed.await;
    let line = "[belay] ada's session is over: \"ian ended this session: enough";
    assert!(killed.contains(line) && !killed.contains("\x1b]0"), "{killed:?}");
    let closed = told_at_the_end(async |both| both.host.close().await.unwrap()).await;
    assert!(closed.contains("[belay] ada closed the terminal"), "{closed:?}");
    let left = told_at_the_end(async |both| {
        both.handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    });
    let left = left.await;
    assert!(left.contains("[belay] ada closed the terminal"), "{left:?}");
    // Of one whose client is not there.
    let waiting = told_at_the_end(async |both| {
        both.attachment.abort();
        let word = Word { end: Some("the device's owner ended the session".into()), heard: None };
        door::visit(&both.device.door, &word).await.unwrap();
    });
    let waiting = waiting.await;
    let line = "ada's session is over: \"the device's owner ended the session\"";
    assert!(waiting.contains(line), "{waiting:?}");
}

#[tokio::test]
async fn who_is_on_the_way_in_when_it_ends_is_told_why_too() {
    use tokio::io::AsyncReadExt as _;
    let (mut device, _laptop, _handle, _host, _attachment) = at_work().await;
    let Joined::Seated(mut socket, 1) = knock(&device, "olga", join(None, false)).await else {
        panic!("there is no seat")
    };
    device.worker.control.end("enough");
    let mut read = Vec::new();
    let last_word = async {
        while let Some(event) = next(&mut device.worker.control).await {
            if matches!(event, WorkerEvent::Ended { .. }) {
                return;
            }
        }
    };
    let (_, got) = tokio::join!(last_word, timeout(PATIENCE, socket.read_to_end(&mut read)));
    got.unwrap().unwrap();
    let why = "ada's session is over: \"enough\"";
    assert_eq!(
        read,
        [&b"E\0"[..], &[u8::try_from(why.len()).unwrap()][..], why.as_bytes()].concat()
    );
}

#[tokio::test]
async fn who_looks_on_sees_everything_and_types_nothing() {
    let mut both = together((80, 24), true).await;
    types(&both.guest, "evil").await;
    shows(&mut both.guest, "you look on").await;
    types(&both.host, "good").await;
    let seen = shows(&mut both.host, "<good>").await;
    assert!(!seen.contains("evil"), "{seen:?}");
    shows(&mut both.guest, "<good>").await;
}

#[tokio::test]
async fn the_host_keeps_a_hostile_guest_from_typing() {
    use tokio::io::AsyncWriteExt as _;
    let (device, _laptop, _handle, mut host, _attachment) = at_work().await;
    let Joined::Seated(mut socket, 1) = knock(&device, "eve", join(None, true)).await else {
        panic!("there is no seat")
    };
    // A size, and then what no helper of ours sends for one who looks on.
    socket.write_all(b"S\0\x04\0\x50\0\x18I\0\x05evil\n").await.unwrap();
    shows(&mut host, "eve joined (looks on)").await;
    types(&host, "good").await;
    let seen = shows(&mut host, "<good>").await;
    assert!(!seen.contains("evil"), "{seen:?}");
    // Nonsense ends it, and nobody else.
    socket.write_all(b"?\0\0").await.unwrap();
    shows(&mut host, "eve left").await;
}

#[tokio::test]
async fn the_terminal_is_as_large_as_the_smallest_window() {
    let Both { host, guest, .. } = &mut together((60, 40), false).await;
    types(host, "size").await;
    shows(host, "24 60").await;
    guest.window_change(100, 20, 0, 0).await.unwrap();
    shows_size(host, "20 80").await;
    host.window_change(70, 50, 0, 0).await.unwrap();
    shows_size(host, "20 70").await;
    guest.close().await.unwrap();
    shows(host, "olga left").await;
    types(host, "size").await;
    shows(host, "50 70").await;
}

/// Another client of the person's at the terminal of the session behind this door.
async fn taken_over(door: &Path) -> (Laptop, Handle<Trusting>, Channel<Msg>) {
    let mut laptop = Laptop::new();
    let door::Anew::Given(socket) = door::anew(door).await.unwrap() else {
        panic!("it is not given to another client")
    };
    let (read, write) = socket.into_split();
    let attacher = laptop.attacher.clone();
    tokio::spawn(async move {
        use belay_tunnel::stream::{Reader, Writer};
        attacher.carry(Reader::new(read), Writer::new(write)).await
    });
    let (handle, taken) = laptop.log_in(certificate(-60, 600)).await;
    assert!(taken);
    let channel = channel(&handle, (80, 24)).await;
    channel.request_subsystem(true, "attach@belay").await.unwrap();
    (laptop, handle, channel)
}

/// A window's change takes a moment to be the terminal's.
async fn shows_size(channel: &mut Channel<Msg>, wanted: &str) {
    for _ in 0..500 {
        types(channel, "size").await;
        types(channel, "next").await;
        if shows(channel, "<next>").await.contains(wanted) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never {wanted}");
}

/// Reads until a flood is over, and says how much it was.
async fn flooded(channel: &mut Channel<Msg>) -> usize {
    let mut got = 0;
    let read = async {
        // What is looked for may be in two pieces.
        let mut tail = Vec::new();
        while !tail.windows(4).any(|text| text == b"over") {
            let message = channel.wait().await.expect("the channel is open");
            if let ChannelMsg::Data { data } = message {
                got += data.len();
                tail.drain(..tail.len().saturating_sub(3));
                tail.extend_from_slice(&data);
            }
        }
    };
    timeout(PATIENCE, read).await.expect("it is held up");
    got
}

#[tokio::test]
async fn a_guest_who_takes_nothing_slows_nobody_and_is_drawn_anew() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    // 20 MB of lines.
    let flood = "stty -echo -onlcr; echo ready; read -r go; \
        seq -f '%019.0f' 1000000; echo over; read -r end";
    let mut host = hosts(&handle, flood).await;
    shows(&mut host, "ready").await;
    let Joined::Seated(mut socket, 1) = knock(&device, "slow", join(None, false)).await else {
        panic!("there is no seat")
    };
    socket.write_all(b"S\0\x04\0\x50\0\x18").await.unwrap();
    shows(&mut host, "slow joined").await;
    types(&host, "go").await;
    let got = flooded(&mut host).await;
    assert!(got > 20_000_000, "the host misses nothing: {got}");
    // Only now they take what was sent.
    let mut seen = Vec::new();
    let read = async {
        let mut buffer = [0; 65_536];
        loop {
            let length = socket.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "it ended");
            seen.extend_from_slice(&buffer[..length]);
            let tail = &seen[seen.len().saturating_sub(4096)..];
            if tail.windows(4).any(|text| text == b"over") {
                return;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("they are drawn anew");
    assert!(seen.len() < 4 << 20, "{} bytes were kept for them", seen.len());
    types(&host, "end").await;
    drop(output(&mut host).await);
}

#[tokio::test]
async fn the_hosts_client_may_go_and_come_while_a_guest_works_on() {
    let Both { device, handle, attachment, host, mut guest, olga: _olga, laptop: _laptop } =
        together((80, 24), false).await;
    attachment.abort();
    drop((host, handle));
    types(&guest, "alone").await;
    shows(&mut guest, "<alone>").await;
    let (_laptop, _handle, mut host) = taken_over(&device.door).await;
    shows(&mut host, "<alone>").await;
    types(&host, "back").await;
    shows(&mut guest, "<back>").await;
    types(&guest, "welcome").await;
    shows(&mut host, "<welcome>").await;
}

#[tokio::test]
async fn a_host_out_of_reach_holds_its_guests_up_for_a_while_only_and_is_drawn_anew() {
    let Both { device, laptop, attachment, host, guest, .. } = &mut together((80, 24), false).await;
    attachment.abort();
    // More than waits for the host.
    types(guest, "flood").await;
    flooded(guest).await;
    types(guest, "alone").await;
    shows(guest, "<alone>").await;
    let _attachment = laptop.attach(&device.door).await;
    let got = flooded(host).await;
    assert!(got < 7_000_000, "it was waited for: {got}");
    types(host, "back").await;
    shows(host, "<back>").await;
    shows(guest, "<back>").await;
}

#[tokio::test]
async fn a_guests_client_that_vanished_finds_the_terminal_joined_as_it_was() {
    let Both { mut host, olga, guest, device: _device, laptop: _laptop, handle: _handle, .. } =
        together((80, 24), false).await;
    olga.attachment.abort();
    drop(guest);
    types(&host, "meanwhile").await;
    shows(&mut host, "<meanwhile>").await;
    let (_laptop, _handle, mut again) = taken_over(&olga.door).await;
    shows(&mut again, "<meanwhile>").await;
    types(&again, "again").await;
    shows(&mut host, "<again>").await;
}

#[tokio::test]
async fn who_joins_gets_nothing_else_and_no_second_terminal() {
    let (device, _laptop, _handle, mut host, _attachment) = at_work().await;
    let olga = arrives(&device, "olga", false).await;
    let mut command = channel(&olga.handle, (80, 24)).await;
    command.exec(true, "id").await.unwrap();
    shows(&mut command, "does not allow `exec`").await;
    let mut bare = timeout(PATIENCE, olga.handle.channel_open_session()).await.unwrap().unwrap();
    bare.request_shell(true).await.unwrap();
    shows(&mut bare, "needs a terminal on your side").await;
    let mut guest = joined(&olga, (80, 24)).await;
    shows(&mut guest, "olga joined").await;
    shows(&mut host, "olga joined").await;
    let mut second = joined(&olga, (80, 24)).await;
    shows(&mut second, "has joined already").await;
}

#[tokio::test]
async fn the_door_says_why_there_is_no_seat() {
    let device = Device::started(&order()).await;
    let (_laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let refused = async |join| match knock(&device, "olga", join).await {
        Joined::Refused(why) => why,
        seated @ (Joined::Seated(..) | Joined::Unable) => panic!("{seated:?}"),
    };
    assert_eq!(refused(join(None, false)).await, "this session has no terminal");
    let mut first = hosts(&handle, ANSWERS).await;
    shows(&mut first, "ready").await;
    let mut second = hosts(&handle, "echo there; exec cat").await;
    shows(&mut second, "there").await;
    let several = refused(join(None, false)).await;
    assert!(several.contains("name one with --terminal: 1 (") && several.contains("2 (echo"));
    assert!(refused(join(Some(3), false)).await.contains("no terminal 3; it has 1 ("));
    let mut seats = Vec::new();
    for _ in 0..8 {
        let Joined::Seated(socket, 2) = knock(&device, "olga", join(Some(2), false)).await else {
            panic!("there is no seat")
        };
        seats.push(socket);
    }
    assert!(refused(join(Some(2), false)).await.contains("8 people have joined"));
    drop(seats);
    // A guest's session is not joined itself.
    while matches!(knock(&device, "olga", join(Some(1), false)).await, Joined::Refused(_)) {}
    let olga = arrives_at(&device, "olga", join(Some(1), false)).await;
    let asked = Knock { name: "ian".into(), session: "x".into(), join: join(None, false) };
    let Joined::Refused(why) = door::join(&olga.door, &asked).await.unwrap() else {
        panic!("a guest's terminal was joined")
    };
    assert!(why.contains("itself joins another"), "{why}");
}
