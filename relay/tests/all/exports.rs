//! The audit log on its way to others: nothing is lost over restarts and outages of either side, and
//! what arrives is what their formats say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belay_proto::audit::{Entry, MAX_PAGE};
use belay_relay::export::config::{Export, From, To, Transport};
use belay_relay::export::prepare;
use belay_relay::outbound::Url;
use belay_relay::store::{Event, EventKind, Store};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lines::soon;

const SECRET: &[u8] = b"a secret of more than sixteen bytes";

fn export(to: To) -> Export {
    let behind_after = Duration::from_secs(900);
    Export { name: "siem".to_owned(), from: From::Start, batch: 7, behind_after, to }
}

/// An export at work.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(store: &Store, export: &Export) -> Self {
        belay_tunnel::tls::install_provider();
        let stop = CancellationToken::new();
        let follower = prepare(std::slice::from_ref(export), "relay.test").unwrap().pop().unwrap();
        let task = tokio::spawn(follower.run(store.clone(), stop.clone()));
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn grow(store: &Store, count: u64) {
    let event = |n| Event::new(EventKind::LineUp).detail(&format!("number {n} \"]\\ é"));
    store.record_batch((0..count).map(event).collect()).await.unwrap();
}

async fn all_lines(store: &Store) -> Vec<String> {
    store.log_page(0, MAX_PAGE.into()).await.unwrap().entries
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    soon(what, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn arrived(store: &Store) {
    until("everything arrives", async || {
        let size = store.checkpoint().await.unwrap().unwrap().0;
        store.cursor("siem").await.unwrap().is_some_and(|cursor| cursor.seq == size)
    })
    .await;
}

fn lines_of(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_every_entry_over_restarts_and_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (file, old) = (dir.path().join("audit.ndjson"), dir.path().join("audit.1"));
    let to_file = export(To::File(file.clone()));
    grow(&store, 20).await;
    let running = Running::start(&store, &to_file);
    arrived(&store).await;
    assert_eq!(lines_of(&file), all_lines(&store).await);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::rename(&file, &old).unwrap();
    grow(&store, 5).await;
    arrived(&store).await;
    running.stop().await;
    // While no relay runs nothing is lost; what a killed one had half written harms nothing.
    grow(&store, 9).await;
    let mut half = fs::read(&file).unwrap();
    half.extend_from_slice(b"{\"seq\":26,\"at\"");
    fs::write(&file, half).unwrap();
    let running = Running::start(&store, &to_file);
    arrived(&store).await;
    running.stop().await;
    let mut lines = [lines_of(&old), lines_of(&file)].concat();
    lines.retain(|line| serde_json::from_str::<Entry>(line).is_ok());
    assert_eq!(lines, all_lines(&store).await);

    let from_now = Export { name: "late".to_owned(), from: From::Now, ..to_file };
    let late = dir.path().join("late.ndjson");
    let from_now = Export { to: To::File(late.clone()), ..from_now };
    let running = Running::start(&store, &from_now);
    until("it has begun", async || store.cursor("late").await.unwrap().is_some()).await;
    grow(&store, 1).await;
    until("the newest arrives", async || !lines_of(&late).is_empty()).await;
    running.stop().await;
    assert_eq!(lines_of(&late), all_lines(&store).await[34..]);
    assert!(prepare(&[export(To::File(dir.path().join("none/x")))], "x").is_err());
}

/// Frames of RFC 6587 §3.4.1.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
        let frame = &bytes[space + 1..space + 1 + length];
        frames.push(String::from_utf8(frame.to_vec()).unwrap());
        bytes = &bytes[space + 1 + length..];
    }
    frames
}

/// Takes a message of RFC 5424 apart: the line in it, and what its structured data say.
fn parsed(message: &str) -> (String, Vec<(String, String)>) {
    let (head, rest) = message.split_once(" [belay@32473").unwrap();
    let head: Vec<&str> = head.split(' ').collect();
    assert_eq!((head.len(), head[0], head[2], head[3]), (6, "<110>1", "relay.test", "belay-relay"));
    assert!(head[1].ends_with('Z') && head[5] == "line-up", "{head:?}");
    let (mut data, mut chars) = (Vec::new(), rest.chars());
    loop {
        match chars.next().unwrap() {
            ']' => break,
            ' ' => {}
            c => panic!("{c} in {rest}"),
        }
        let name: String = chars.by_ref().take_while(|c| *c != '=').collect();
        assert_eq!(chars.next(), Some('"'));
        let mut value = String::new();
        loop {
            match chars.next().unwrap() {
                '\\' => value.push(chars.next().unwrap()),
                '"' => break,
                c => value.push(c),
            }
        }
        data.push((name, value));
    }
    assert_eq!(chars.next(), Some(' '));
    (chars.collect(), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_over_tcp_is_framed_and_goes_on_over_a_receiver_that_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Transport::Tcp(receiver.local_addr().unwrap().to_string());
    grow(&store, 20).await;
    let running = Running::start(&store, &export(To::Syslog { transport: to, facility: 13 }));
    let mut got = Vec::new();
    for more in [0, 10] {
        grow(&store, more).await;
        let (mut stream, _) = soon("a connection", receiver.accept()).await.unwrap();
        let wanted = store.checkpoint().await.unwrap().unwrap().0;
        let mut bytes = Vec::new();
        until_last(&mut stream, &mut bytes, wanted).await;
        arrived(&store).await;
        got.extend(frames(&bytes));
        // And the receiver is gone; what comes now goes to the next connection.
    }
    running.stop().await;
    let lines: Vec<String> = got.iter().map(|message| parsed(message).0).collect();
    assert_eq!(lines, all_lines(&store).await);
    let (line, data) = parsed(&got[3]);
    let entry: Entry = serde_json::from_str(&line).unwrap();
    assert_eq!(data[..2], [("seq".into(), "4".into()), ("kind".into(), "line-up".into())]);
    assert_eq!(entry.seq, 4);
}

async fn until_last(stream: &mut tokio::net::TcpStream, bytes: &mut Vec<u8>, seq: u64) {
    let last = format!("{{\"seq\":{seq},");
    while !String::from_utf8_lossy(bytes).contains(&last) || !bytes.ends_with(b"}") {
        assert!(soon("more", stream.read_buf(bytes)).await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_as_datagrams_has_one_message_in_each() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    grow(&store, 9).await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let local = dir.path().join("log");
    let unix = UnixDatagram::bind(&local).unwrap();
    for (name, transport) in [
        ("udp", Transport::Udp(udp.local_addr().unwrap().to_string())),
        ("unix", Transport::Unix(local)),
    ] {
        let to = To::Syslog { transport, facility: 13 };
        let running = Running::start(&store, &Export { name: name.to_owned(), ..export(to) });
        let mut lines = Vec::new();
        for _ in 0..9 {
            let mut buffer = vec![0; 65_536];
            let length = match name {
                "udp" => soon("a datagram", udp.recv(&mut buffer)).await,
                _ => soon("a datagram", unix.recv(&mut buffer)).await,
            };
            let text = String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap();
            lines.push(parsed(&text).0);
        }
        running.stop().await;
        assert_eq!(lines, all_lines(&store).await, "{name}");
    }
}

/// A receiver of HTTP that answers as it is told and keeps what it got.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(HeaderMap, String, u16)>>>,
    /// Statuses of the next answers; then 200.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        format!("http://{address}/in")
    }

    fn got(&self) -> Vec<(HeaderMap, String, u16)> {
        self.got.lock().unwrap().clone()
    }

    /// The lines of what was answered with 200.
    fn lines(&self) -> Vec<String> {
        let taken = self.got().into_iter().filter(|(_, _, status)| *status == 200);
        taken.flat_map(|(_, body, _)| body.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

async fn take(State(receiver): State<Receiver>, request: Request) -> StatusCode {
    let headers = request.headers().clone();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let status = receiver.answers.lock().unwrap().pop().unwrap_or(200);
    receiver.got.lock().unwrap().push((headers, body, status));
    StatusCode::from_u16(status).unwrap()
}

fn secret(dir: &Path) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_and_sends_the_same_batch_again_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let receiver = Receiver::default();
    receiver.answers.lock().unwrap().extend([503, 500]);
    let url = Url::parse(&receiver.start().await).unwrap();
    let secret_file = secret(dir.path());
    let to = To::Webhook { url, secret_file: secret_file.clone(), ca_file: None };
    let hook = export(to);
    grow(&store, 4).await;
    let running = Running::start(&store, &hook);
    until("one attempt", async || receiver.got().len() == 1).await;
    // The relay ends and starts again, and the log has grown meanwhile: it is the same batch.
    running.stop().await;
    grow(&store, 8).await;
    let running = Running::start(&store, &hook);
    arrived(&store).await;
    running.stop().await;
    assert_eq!(receiver.lines(), all_lines(&store).await);

    let got = receiver.got();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let id = |n: usize| got[n].0["webhook-id"].to_str().unwrap().to_owned();
    assert_eq!((id(0), &got[0].1), (id(1), &got[1].1));
    assert_eq!(id(1), id(2));
    assert!(id(0).ends_with("-1-4") && id(3).ends_with("-5-11"), "{} {}", id(0), id(3));
    for (headers, body, _) in &got {
        assert_eq!(headers["idempotency-key"], headers["webhook-id"]);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        let part = |name: &str| headers[name].to_str().unwrap();
        let signed = format!("{}.{}.{body}", part("webhook-id"), part("webhook-timestamp"));
        let signature = STANDARD.decode(part("webhook-signature").strip_prefix("v1,").unwrap());
        hmac::verify(&key, signed.as_bytes(), &signature.unwrap()).unwrap();
    }

    fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o604)).unwrap();
    let error = prepare(std::slice::from_ref(&hook), "x").err().unwrap().to_string();
    assert!(error.contains("everybody can read"), "{error}");
    fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&secret_file, "short\n").unwrap();
    let error = prepare(&[hook], "x").err().unwrap().to_string();
    assert!(error.contains("16 bytes or more"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_records_of_opentelemetry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let receiver = Receiver::default();
    let url = Url::parse(&receiver.start().await).unwrap().below("v1/logs");
    grow(&store, 3).await;
    let refused =
        belay_proto::refusal::Refused::new(belay_proto::refusal::Code::WrongSecret, "wrong", "");
    store.record(Event::new(EventKind::LoginRefused).refused(&refused)).await.unwrap();
    let to = To::Otlp { url, token_file: Some(secret(dir.path())), ca_file: None };
    let running = Running::start(&store, &export(to));
    arrived(&store).await;
    running.stop().await;
    let (headers, body, _) = receiver.got().remove(0);
    let token = format!("Bearer {}", std::str::from_utf8(SECRET).unwrap());
    assert_eq!(headers["authorization"].to_str().unwrap(), token);
    let body: Value = serde_json::from_str(&body).unwrap();
    let resource = &body["resourceLogs"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "belay-relay");
    let records = resource["scopeLogs"][0]["logRecords"].as_array().unwrap();
    let lines = all_lines(&store).await;
    assert_eq!(records.len(), 4);
    for (record, line) in records.iter().zip(&lines) {
        assert_eq!(record["body"]["stringValue"].as_str().unwrap(), line);
        let entry: Entry = serde_json::from_str(line).unwrap();
        assert_eq!(record["timeUnixNano"], format!("{}000000000", entry.at.0));
        assert_eq!(record["attributes"][0]["value"]["intValue"], entry.seq.to_string());
        assert_eq!(record["eventName"], format!("belay.{}", entry.kind));
    }
    assert_eq!(
        (&records[0]["severityNumber"], &records[3]["severityNumber"]),
        (&9.into(), &13.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_stays_behind_is_on_record_once_and_so_is_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let receiver = Receiver::default();
    receiver.answers.lock().unwrap().extend([500, 500, 500]);
    let url = Url::parse(&receiver.start().await).unwrap();
    let to = To::Webhook { url, secret_file: secret(dir.path()), ca_file: None };
    // Attempts begin after 0, 1 and 3 s.
    let hook = Export { behind_after: Duration::from_secs(2), ..export(to) };
    grow(&store, 3).await;
    let count = async |kind: &str| {
        let all = store.decisions(0).await.unwrap();
        all.iter().filter(|decision| decision.kind == kind).count()
    };
    let running = Running::start(&store, &hook);
    until("it is behind", async || count("export-behind").await == 1).await;
    running.stop().await;
    let running = Running::start(&store, &hook);
    until("it has caught up", async || count("export-caught-up").await == 1).await;
    arrived(&store).await;
    running.stop().await;
    assert_eq!((count("export-behind").await, count("export-caught-up").await), (1, 1));
    assert_eq!(receiver.lines(), all_lines(&store).await);
}
