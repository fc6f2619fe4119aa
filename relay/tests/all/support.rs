//! A relay's HTTPS side on a port of its own, and people and devices to ask it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::api::ApiError;
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::policy::Role;
use belay_proto::time::UnixTime;
use belay_proto::token::{Invitation, Purpose};
use belay_relay::api::Api;
use belay_relay::audit::Strangers;
use belay_relay::ca::{Authority, RelayCertificate};
use belay_relay::config::{self, Config};
use belay_relay::line::{Door, Flapping, Limits, Shared};
use belay_relay::listen::https;
use belay_relay::presence::NobodyPresent;
use belay_relay::recordings::Recordings;
use belay_relay::store::{Actor, Decision, LoginCode, Store};
use belay_tunnel::pki::{RelayVerifier, TlsKey};
use belay_tunnel::{clock, tls};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) const LOCAL: &str = "127.0.0.1";

pub(crate) struct Relay {
    pub(crate) store: Store,
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    pub(crate) admin: UserId,
    pub(crate) strangers: Arc<Strangers>,
    _dir: Option<tempfile::TempDir>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The code of a refusal, which must be one clear line.
    pub(crate) fn code(&self) -> String {
        let error: ApiError = self.json();
        assert!(!error.cause.is_empty() && error.cause.lines().count() == 1, "{error:?}");
        error.code
    }
}

pub(crate) struct SshKey(pub(crate) String);

pub(crate) fn ssh_key() -> SshKey {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let key = ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = ssh_key::PrivateKey::from(key);
    SshKey(key.public_key().to_openssh().unwrap())
}

/// Somebody's TLS side.
pub(crate) type Dialler = Arc<ClientConfig>;

impl Relay {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of configuration.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut relay = Self::start_in(dir.path(), settings).await;
        relay._dir = Some(dir);
        relay
    }

    pub(crate) async fn start_in(data: &Path, settings: &str) -> Self {
        tls::install_provider();
        let listener = tokio::net::TcpListener::bind((LOCAL, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("address = \"{address}\"\nlisten = \"{address}\"\n{settings}");
        std::fs::write(data.join(config::FILE), text).unwrap();
        let config = Config::load(data).unwrap();
        let authority = Arc::new(Authority::make(data, LOCAL, clock::now()).unwrap());
        let store = Store::open(data).await.unwrap();
        let code = LoginCode { digest: [0; 32], expires: clock::now() };
        let roles = vec![Role::Administrator];
        let admin =
            store.add_user("root".parse().unwrap(), roles, code, Actor::Machine).await.unwrap();
        let certificate = RelayCertificate::new(Arc::clone(&authority), clock::now()).unwrap();
        let strangers = Arc::new(Strangers::new(store.clone()));
        let presence = Arc::new(NobodyPresent);
        let recordings = Recordings::open(data).unwrap();
        let api = Api::new(
            &config,
            store.clone(),
            Arc::clone(&authority),
            presence,
            (Arc::clone(&strangers), Arc::clone(&recordings)),
        )
        .unwrap();
        let stop = CancellationToken::new();
        let tls = https::tls_config(&authority, certificate).unwrap();
        let door = Door::new(Arc::new(Shared {
            store: store.clone(),
            authority: Arc::clone(&authority),
            recordings: Arc::clone(&recordings),
            registry: Arc::default(),
            strangers: Arc::clone(&strangers),
            flapping: Flapping::default(),
            limits: Limits::of(&config),
            draining: stop.clone(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        }));
        let serve =
            https::serve((api, door), tls, config.https, listener, stop.clone(), config.drain);
        let served = tokio::spawn(serve);
        Self { store, authority, address, stop, served, admin, strangers, _dir: None }
    }

    pub(crate) fn nobody(&self) -> Dialler {
        self.dialler(None)
    }

    pub(crate) fn admin(&self) -> Dialler {
        self.person_at(self.admin, "root", clock::now())
    }

    /// A certificate for this person as issued at `at`.
    pub(crate) fn person_at(&self, id: UserId, name: &str, at: UnixTime) -> Dialler {
        person_of(&self.authority, &self.authority, id, name, at)
    }

    pub(crate) async fn add_person(&self, name: &str, roles: Vec<Role>) -> UserId {
        let code = LoginCode { digest: Uuid::now_v7().into_digest(), expires: clock::now() };
        self.store.add_user(name.parse().unwrap(), roles, code, Actor::Machine).await.unwrap()
    }

    pub(crate) fn device(&self, id: DeviceId) -> Dialler {
        let key = TlsKey::generate().unwrap();
        let csr = key.request_der().unwrap();
        let name = "pump".parse().unwrap();
        let issued =
            self.authority.issue_device(id, &name, &csr, &ssh_key().0, clock::now()).unwrap();
        self.dialler(Some((issued.certificate, key)))
    }

    fn dialler(&self, own: Option<(CertificateDer<'static>, TlsKey)>) -> Dialler {
        dialler_for(&self.authority, own)
    }

    pub(crate) async fn connect(&self, who: &Dialler) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_from(who, "127.0.0.1".parse().unwrap()).await
    }

    pub(crate) async fn tcp_from(&self, from: IpAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(self.address).await
    }

    pub(crate) async fn connect_from(
        &self,
        who: &Dialler,
        from: IpAddr,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = self.tcp_from(from).await?;
        let name = ServerName::try_from(LOCAL).unwrap();
        TlsConnector::from(Arc::clone(who)).connect(name, tcp).await
    }

    pub(crate) async fn get(&self, who: &Dialler, path: &str) -> Answer {
        self.ask(who, "GET", path, None, "").await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        who: &Dialler,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Answer {
        let body = serde_json::to_string(body).unwrap();
        self.ask(who, method, path, Some(&body), "").await.unwrap()
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(
        &self,
        who: &Dialler,
        method: &str,
        path: &str,
        body: Option<&str>,
        more_headers: &str,
    ) -> std::io::Result<Answer> {
        let stream = self.connect(who).await?;
        exchange(stream, method, path, body, more_headers).await
    }

    pub(crate) async fn decisions(&self) -> Vec<Decision> {
        self.store.decisions(0).await.unwrap()
    }

    /// The newest decision of this kind.
    pub(crate) async fn last(&self, kind: &str) -> Decision {
        let newest_first = self.decisions().await.into_iter().rev();
        let found = newest_first.into_iter().find(|d| d.kind == kind);
        found.unwrap_or_else(|| panic!("no {kind} was recorded"))
    }

    /// The newest decision of this kind, as soon as there is one: for what is recorded after the
    /// peer has gone.
    pub(crate) async fn eventually(&self, kind: &str) -> Decision {
        for _ in 0..100 {
            if self.decisions().await.iter().any(|d| d.kind == kind) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.last(kind).await
    }

    /// An enrolment token, by the administrator.
    pub(crate) async fn token(&self, request: Value) -> Invitation {
        let answer = self.send(&self.admin(), "POST", "/v1/tokens", &request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer: belay_proto::api::TokenAnswer = answer.json();
        Invitation::from_text(&answer.token, Purpose::Enrol).unwrap()
    }
}

pub(crate) fn person_of(
    believed: &Authority,
    issuer: &Authority,
    id: UserId,
    name: &str,
    at: UnixTime,
) -> Dialler {
    let key = TlsKey::generate().unwrap();
    let csr = key.request_der().unwrap();
    let name = name.parse().unwrap();
    let issued = issuer.issue_user(id, &name, &csr, &ssh_key().0, at).unwrap();
    dialler_for(believed, Some((issued.certificate, key)))
}

fn dialler_for(believed: &Authority, own: Option<(CertificateDer<'static>, TlsKey)>) -> Dialler {
    let relay = RelayVerifier::pinned(believed.ca().clone(), UnixTime(0));
    let own = own.map(|(certificate, key)| (vec![certificate], key.to_der()));
    Arc::new(tls::client(relay, own, &[b"http/1.1"]).unwrap())
}

pub(crate) async fn exchange(
    mut stream: TlsStream<TcpStream>,
    method: &str,
    path: &str,
    body: Option<&str>,
    more_headers: &str,
) -> std::io::Result<Answer> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n");
    text.push_str(more_headers);
    if let Some(body) = body {
        let length = body.len();
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    stream.write_all(text.as_bytes()).await?;
    read_answer(&mut stream).await
}

pub(crate) async fn read_answer(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(Duration::from_secs(40), reading).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        let end = read.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
        return Err(end);
    };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

pub(crate) trait IntoDigest {
    fn into_digest(self) -> [u8; 32];
}

impl IntoDigest for Uuid {
    fn into_digest(self) -> [u8; 32] {
        let mut digest = [0; 32];
        for (slot, byte) in digest.iter_mut().zip(self.as_bytes().iter().cycle()) {
            *slot = *byte;
        }
        digest
    }
}
