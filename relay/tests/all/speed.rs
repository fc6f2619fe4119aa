//! Figures, not tests: `cargo test --release -p belay-relay speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::policy::Role;
use belay_relay::export::config::{Export, From, To, Transport};
use belay_relay::export::prepare;
use belay_relay::login::Passwords;
use belay_relay::outbound::Url;
use belay_relay::store::{
    Actor, Enrolment, Event, EventKind, LineUp, LoginCode, NameWish, NewToken, Store,
};
use belay_tunnel::clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn rate<F: Future<Output = ()> + Send + 'static>(
    callers: usize,
    each: usize,
    what: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let what = what.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                what().await;
            }
        });
    }
    tasks.join_all().await;
    (callers * each) as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn acknowledged_records_a_second() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let code = LoginCode { digest: [0; 32], expires: clock::now() };
    let roles = vec![Role::Administrator];
    let user = store.add_user("root".parse().unwrap(), roles, code, Actor::Machine).await.unwrap();
    let device = a_device(&store, user).await;
    for callers in [1, 16, 256, 1024] {
        let each = if callers == 1 { 200 } else { 40_000 / callers };
        let records = {
            let store = store.clone();
            rate(callers, each, move || {
                let store = store.clone();
                async move { store.record(Event::new(EventKind::LineUp)).await.unwrap() }
            })
            .await
        };
        let lines = {
            let store = store.clone();
            rate(callers, each, move || {
                let store = store.clone();
                let up = LineUp {
                    device: DeviceId::from_uuid(Uuid::now_v7()),
                    key_digest: [0; 32],
                    at: clock::now(),
                    hostname: "pump".into(),
                    platform: "linux/aarch64".into(),
                    software: "belay-agent/0.1.0".into(),
                    source: ([192, 0, 2, 1], 9).into(),
                    id: None,
                    detail: "quic".into(),
                };
                async move { store.note_line_up(up).await.unwrap() }
            })
            .await
        };
        let sessions = {
            let store = store.clone();
            rate(callers, each, move || {
                let store = store.clone();
                let event = Event::new(EventKind::SessionOpened)
                    .user(user)
                    .device(device)
                    .session(SessionId::from_uuid(Uuid::now_v7()))
                    .login("root".parse().unwrap())
                    .detail("kind ssh, actions shell exec sftp forward, until 1795716000")
                    .source(([192, 0, 2, 1], 9).into());
                async move { store.record(event).await.unwrap() }
            })
            .await
        };
        println!(
            "{callers} callers: {records:.0} records/s, {sessions:.0} full records/s, \
             {lines:.0} lines up/s"
        );
    }
}

async fn a_device(store: &Store, user: UserId) -> DeviceId {
    let peer = ([192, 0, 2, 1], 9).into();
    let expires = clock::now().plus(Duration::from_secs(3600));
    let (token, uses) = ([1; 32], 1);
    let new = NewToken { digest: token, expires, uses, pattern: None, labels: BTreeMap::new() };
    store.create_token(new, user, peer).await.unwrap();
    let enrolment = Enrolment {
        token,
        key_digest: [2; 32],
        wish: NameWish::Like("pump".parse().unwrap()),
        ssh_host_key: "ssh-ed25519 AAAA".into(),
        hostname: "pump".into(),
        platform: "linux/aarch64".into(),
        software: "belay-agent/0.1.0".into(),
        now: clock::now(),
        certificate_ends: expires,
        source: peer,
        note: String::new(),
    };
    store.enrol(enrolment).await.unwrap().id
}

/// A log that is there already goes to each kind of receiver, which takes everything at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn exported_records_a_second() {
    const ENTRIES: u64 = 100_000;
    belay_tunnel::tls::install_provider();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let code = LoginCode { digest: [0; 32], expires: clock::now() };
    let roles = vec![Role::Administrator];
    let user = store.add_user("root".parse().unwrap(), roles, code, Actor::Machine).await.unwrap();
    let device = a_device(&store, user).await;
    let event = |_| {
        Event::new(EventKind::SessionOpened)
            .user(user)
            .device(device)
            .session(SessionId::from_uuid(Uuid::now_v7()))
            .login("root".parse().unwrap())
            .detail("kind ssh, actions shell exec sftp forward, until 1795716000")
            .source(([192, 0, 2, 1], 9).into())
    };
    for _ in 0..ENTRIES / 1000 {
        store.record_batch((0..1000).map(event).collect()).await.unwrap();
    }
    let size = store.checkpoint().await.unwrap().unwrap().0;
    let secret_file = dir.path().join("secret");
    fs::write(&secret_file, "a secret of more than sixteen bytes").unwrap();
    fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = dir.path().join("audit.ndjson");
    let (stream, http) = (drained().await, answered().await);
    let url = || Url::parse(&http).unwrap();
    for (name, to) in [
        ("file", To::File(file.clone())),
        ("syslog over TCP", To::Syslog { transport: Transport::Tcp(stream), facility: 13 }),
        ("webhook", To::Webhook { url: url(), secret_file, ca_file: None }),
        ("OTLP", To::Otlp { url: url().below("v1/logs"), token_file: None, ca_file: None }),
    ] {
        let behind_after = Duration::from_secs(900);
        let export = Export { name: name.into(), from: From::Start, batch: 256, behind_after, to };
        let follower = prepare(&[export], "relay.test").unwrap().pop().unwrap();
        let (stop, begun) = (CancellationToken::new(), Instant::now());
        let running = tokio::spawn(follower.run(store.clone(), stop.clone()));
        while store.cursor(name).await.unwrap().is_none_or(|cursor| cursor.seq < size) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{name}: {:.0} records/s", size as f64 / begun.elapsed().as_secs_f64());
        stop.cancel();
        running.await.unwrap();
    }
    let bytes = fs::metadata(&file).unwrap().len();
    println!("{} bytes a record", bytes / size);
}

/// Whoever takes whatever comes over TCP.
async fn drained() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            });
        }
    });
    address
}

/// The same over HTTP, which says so.
async fn answered() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(|body: axum::body::Bytes| async move {
        drop(body);
        axum::http::StatusCode::OK
    });
    // A batch is larger than the usual bound.
    let router = router.layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/in")
}

#[test]
#[ignore = "a measurement"]
fn time_of_one_password_hash() {
    const TIMES: u32 = 20;
    let begun = Instant::now();
    for _ in 0..TIMES {
        Passwords::new().unwrap();
    }
    println!("one password hash: {:?}", begun.elapsed() / TIMES);
}
