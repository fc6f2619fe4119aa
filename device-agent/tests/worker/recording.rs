//! What a worker tells of a session that is to be recorded.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use belay_agent::worker::{ChannelKind, Recorded, WorkerEvent, WorkerOrder};
use belay_tunnel::recording::unpack_payload;
use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

use crate::far_end::{Device, Laptop, Trusting, exec, order, output};
use crate::rig::{AGENT, PATIENCE, have};

fn recorded_order() -> WorkerOrder {
    WorkerOrder { obligations: vec!["record".into()], ..order() }
}

/// All segments up to the session's end, which must come after the recording's.
async fn segments(device: &mut Device) -> Vec<Recorded> {
    segments_after(Vec::new(), device).await
}

/// The same, of which some are here.
async fn segments_after(mut all: Vec<Recorded>, device: &mut Device) -> Vec<Recorded> {
    loop {
        #[allow(clippy::wildcard_enum_match_arm, reason = "tests")]
        match device.next().await {
            WorkerEvent::Recorded(recorded) => all.push(recorded),
            WorkerEvent::Ended { .. } => break,
            _ => {}
        }
    }
    let numbers: Vec<u64> = all.iter().map(|recorded| recorded.number).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    let ends: Vec<bool> = all.iter().map(|recorded| recorded.end == Some(true)).collect();
    assert_eq!(ends.iter().position(|end| *end), Some(all.len() - 1), "{ends:?}");
    all
}

/// A track's events with this code, one after another.
fn shown(all: &[Recorded], track: u32, code: &str) -> String {
    let mut text = String::new();
    for recorded in all.iter().filter(|recorded| recorded.track == track) {
        let compressed = recorded.compressed == Some(true);
        text.push_str(&unpack_payload(&recorded.payload, compressed).unwrap());
    }
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let events = lines.skip(1).filter(|event| event[1] == code);
    events.map(|event| event[2].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_command_leaves_its_output_its_status_and_what_passed_the_gate() {
    let mut device = Device::started(&recorded_order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "echo out; echo err >&2; exit 3").await;
    assert_eq!(output(&mut channel).await.1, Some(3));
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    let all = segments(&mut device).await;
    assert_eq!(shown(&all, 1, "o"), "out\n");
    assert_eq!(shown(&all, 1, "e"), "err\n");
    assert_eq!(shown(&all, 1, "x"), "3");
    let facts = shown(&all, 0, "b");
    for part in [
        r#""what":"authenticated","user":"ada""#,
        r#""what":"opened","channel":2,"kind":"exec","detail":"echo out"#,
        r#""what":"track","track":1,"kind":"command","channel":2"#,
        r#""what":"closed","channel":2,"kind":"exec""#,
        r#""exit":3"#,
        r#""what":"ended","reason":"the client closed the connection""#,
    ] {
        assert!(facts.contains(part), "{part} is not in {facts}");
    }
    drop(laptop);
}

#[tokio::test]
async fn a_terminal_leaves_what_it_showed_and_not_what_was_typed_unseen() {
    let mut device = Device::started(&recorded_order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel
        .exec(false, "stty -echo; echo ready; read pw; stty echo; echo got-${#pw}; read x; exit 4")
        .await
        .unwrap();
    let mut seen = Vec::new();
    let mut say = vec![("ready", "hunter2-unseen\n"), ("got-14", "seen\n")].into_iter();
    let mut next = say.next();
    let read = async {
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                seen.extend_from_slice(&data);
            }
            if let Some((wanted, typed)) = next
                && String::from_utf8_lossy(&seen).contains(wanted)
            {
                channel.window_change(100, 30, 0, 0).await.unwrap();
                channel.data(typed.as_bytes()).await.unwrap();
                next = say.next();
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    let all = segments(&mut device).await;
    let shown_there = shown(&all, 1, "o");
    assert_eq!(shown_there.as_bytes(), seen, "it has what the client saw");
    assert!(shown_there.contains("seen") && !shown_there.contains("hunter2"));
    assert!(!shown(&all, 0, "b").contains("hunter2"));
    assert_eq!(shown(&all, 1, "r"), "100x30");
    assert_eq!(shown(&all, 1, "x"), "4");
    drop(laptop);
}

/// A device that records what is typed, and what its client sees of one command on a terminal to
/// which it types: each text once what is named before it was shown.
async fn typed_at(command: &str, say: &[(&str, &str)]) -> (Vec<Recorded>, String) {
    let input = vec!["record".into(), "record-input".into()];
    let mut device = Device::started(&WorkerOrder { obligations: input, ..order() }).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(false, command).await.unwrap();
    let (mut seen, mut from) = (String::new(), 0);
    let mut say = say.iter().peekable();
    let read = async {
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            while let Some((wanted, typed)) = say.peek()
                && let Some(at) = seen[from..].find(wanted)
            {
                from += at + wanted.len();
                say.next();
                channel.data(typed.as_bytes()).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    let all = segments(&mut device).await;
    drop(laptop);
    assert_eq!(shown(&all, 1, "o"), seen, "it has what the client saw");
    (all, seen)
}

#[tokio::test]
async fn what_is_typed_is_there_where_the_terminal_echoes_and_nowhere_else() {
    let command = "echo one; read a; echo got; read g; stty -echo; echo two; read pw; stty echo; \
                   echo three-${#pw}; read b; echo \"$a$b\" | tr a-z A-Z";
    let say = [
        ("one", "plain \u{e9}\r"),
        ("got", "go\r"),
        ("two", "hunter2-unseen\r"),
        ("three-14", "more\r"),
    ];
    let (all, seen) = typed_at(command, &say).await;
    assert!(seen.contains("plain \u{e9}") && seen.contains("MORE"), "{seen}");
    // What was typed just before echo goes off may be forgotten: the safe side.
    let typed = shown(&all, 1, "i").replacen("go\r", "", 1);
    assert_eq!(typed, "plain \u{e9}\rmore\r");
    assert!(shown(&all, 0, "b").contains(r#""input":"what is echoed""#));
}

/// A program that turns echo off reads what was typed before it did. Whatever of that the terminal
/// echoed stands in the output; of the rest nothing is kept.
#[tokio::test]
async fn a_password_typed_while_echo_goes_off_and_on_is_kept_only_if_it_was_shown() {
    if !have("bash") {
        return eprintln!("SKIPPED: this test needs bash");
    }
    const ROUNDS: usize = 150;
    let command = format!(
        "bash -c 'echo ready; until read -t 0; do sleep 0.01; done; sleep 0.5; \
         for n in $(seq {ROUNDS}); do read -s pw; echo; \
         sleep 0.00$((n % 5)); done; echo fin; read x'"
    );
    let words: String = (0..ROUNDS).map(|n| format!("s3cr{n:03}t\r")).collect();
    let (ahead, behind) = words.split_at(words.len() / 2);
    let mut say = vec![("ready", ahead)];
    // One after another, each as early as can be.
    let behind: Vec<&str> = behind.split_inclusive('\r').collect();
    say.extend(behind.iter().map(|word| ("\n", *word)));
    say.push(("fin", "seen\r"));
    let (all, seen) = typed_at(&command, &say).await;
    let typed = shown(&all, 1, "i");
    for word in typed.split('\r').filter(|word| !word.is_empty()) {
        assert!(seen.contains(word), "{word:?} was recorded, and not shown: {seen}");
    }
    assert!(typed.ends_with("seen\r"), "{typed:?}");
    // What was typed before echo went off for the first time.
    assert!(typed.starts_with("s3cr000t\r"), "{typed:?}");
}

/// getpass(3) throws away what was typed before it asks, which the terminal has shown by then.
#[tokio::test]
async fn getpass_leaves_nothing_of_what_it_reads() {
    if !have("python3") {
        return eprintln!("SKIPPED: this test needs python3");
    }
    // Time to be shown: what is typed is not kept once echo is off.
    let command = "python3 -c 'import getpass, time; print(input(\"name: \").upper()); time.sleep(1); \
                   [print(len(getpass.getpass(\"pw%d: \" % n))) for n in range(3)]'";
    let say = [
        ("name: ", "anna\r"),
        ("pw0: ", "hunter2-a\r"),
        ("pw1: ", "hunter2-bb\r"),
        ("pw2: ", "hunter2-ccc\r"),
    ];
    let (all, seen) = typed_at(command, &say).await;
    assert!(seen.contains("ANNA") && seen.contains("11"), "{seen}");
    assert_eq!(shown(&all, 1, "i"), "anna\r");
}

fn sftp_packet(out: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    let body = body.concat();
    out.extend_from_slice(&u32::try_from(1 + 4 + body.len()).unwrap().to_be_bytes());
    out.push(kind);
    // The request's id.
    out.extend_from_slice(&[0, 0, 0, 9]);
    out.extend_from_slice(&body);
}

/// Opens a file to be read, and reads its first bytes `times` over.
fn sftp_reads(path: &Path, times: usize) -> Vec<u8> {
    let path = path.to_str().unwrap().as_bytes();
    let length = u32::try_from(path.len()).unwrap().to_be_bytes();
    let mut out = Vec::new();
    // For reading, without attributes.
    sftp_packet(&mut out, 3, &[&length, path, &1u32.to_be_bytes(), &0u32.to_be_bytes()]);
    for _ in 0..times {
        // The first handle, from its beginning.
        sftp_packet(&mut out, 5, &[&[0, 0, 0, 4], &[0; 4], &[0; 8], &65_536u32.to_be_bytes()]);
    }
    out
}

fn sftp_order() -> WorkerOrder {
    WorkerOrder { actions: vec!["sftp".into(), "shell".into()], ..recorded_order() }
}

/// A channel on which a file of three bytes was read; nothing is closed. `terminal`: on one, if the
/// server lets it.
async fn read_by_sftp(
    handle: &russh::client::Handle<Trusting>,
    file: &Path,
    terminal: bool,
) -> Channel<Msg> {
    std::fs::write(file, "abc").unwrap();
    let mut channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    if terminal {
        channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    }
    channel.request_subsystem(true, "sftp").await.unwrap();
    channel.data(&sftp_reads(file, 1)[..]).await.unwrap();
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(b"abc") {
            if let ChannelMsg::Data { data } = channel.wait().await.expect("the channel is open") {
                seen.extend_from_slice(&data);
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    channel
}

fn is_told_unfinished(all: &[Recorded], file: &Path) {
    let facts = shown(all, 1, "b");
    for part in [
        format!(r#""what":"file","path":"{}""#, file.display()),
        r#""direction":"from-device","bytes":3"#.into(),
        r#""result":"unfinished""#.into(),
    ] {
        assert!(facts.contains(&part), "{part} is not in {facts:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_read_is_told_though_its_channel_is_closed_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    for terminal in [false, true] {
        let mut device = Device::started(&sftp_order()).await;
        let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
        let channel = read_by_sftp(&handle, &file, terminal).await;
        channel.close().await.unwrap();
        let mut told = Vec::new();
        loop {
            #[allow(clippy::wildcard_enum_match_arm, reason = "tests")]
            match device.next().await {
                WorkerEvent::Recorded(recorded) => told.push(recorded),
                WorkerEvent::ChannelClosed { kind: Some(ChannelKind::Sftp), .. } => break,
                _ => {}
            }
        }
        handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
        drop((channel, handle));
        is_told_unfinished(&segments_after(told, &mut device).await, &file);
        drop(laptop);
    }
}

#[tokio::test]
async fn a_file_that_was_read_is_told_though_the_connection_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let mut device = Device::started(&sftp_order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let channel = read_by_sftp(&handle, &file, false).await;
    // No subsystem is sent a signal: it would end without a word.
    channel.signal(russh::Sig::KILL).await.unwrap();
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    is_told_unfinished(&segments(&mut device).await, &file);
    drop(laptop);
}

/// Whose answers nobody takes.
#[test]
fn a_file_server_that_is_not_heard_still_tells_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "abc").unwrap();
    let mut server = Command::new(AGENT)
        .args(["exec-helper", "--cwd", "/", "--sftp", "--ledger"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(server.stdout.take());
    let mut stdin = server.stdin.take().unwrap();
    stdin.write_all(&sftp_reads(&file, 1)).unwrap();
    // It ends by itself, its input still open.
    let told = server.wait_with_output().unwrap();
    drop(stdin);
    let line = String::from_utf8(told.stderr).unwrap();
    assert!(line.contains(r#""bytes":3"#) && line.contains(r#""result":"unfinished""#), "{line}");
}

#[tokio::test]
async fn a_session_nobody_asked_to_record_tells_nothing() {
    let mut device = Device::started(&order()).await;
    let (laptop, handle, _attachment) = Laptop::arrive(&device).await;
    let mut channel = exec(&handle, "echo out").await;
    output(&mut channel).await;
    handle.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop((channel, handle));
    loop {
        let event = device.next().await;
        assert!(!matches!(event, WorkerEvent::Recorded(_)));
        if matches!(event, WorkerEvent::Ended { .. }) {
            break;
        }
    }
    drop(laptop);
}
