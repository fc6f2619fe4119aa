//! A relay's side of both carriers, without a relay: certificates, a QUIC endpoint, an HTTPS port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::ids::UserId;
use belay_proto::time::UnixTime;
use belay_proto::version::ALPN;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::picker::{Choice, Kind, LOOK_EVERY, Wanted};
use belay_tunnel::carrier::quic::{self, Role};
use belay_tunnel::carrier::{Carrier, websocket};
use belay_tunnel::pki::{CertificateAuthority, ClientVerifier, Identity, RelayVerifier, TlsKey};
use belay_tunnel::proxy::Proxies;
use belay_tunnel::{clock, tls};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The certificates of one deployment.
pub(crate) struct Trust {
    ca: CertificateAuthority,
}

impl Trust {
    pub(crate) fn new() -> Self {
        tls::install_provider();
        Self { ca: CertificateAuthority::generate("relay.test", clock::now()).unwrap().0 }
    }

    fn ca_certificate(&self) -> CertificateDer<'static> {
        self.ca.certificate().clone()
    }

    fn issue(&self, identity: &Identity) -> (CertificateDer<'static>, TlsKey) {
        let key = TlsKey::generate().unwrap();
        let request = key.request_der().unwrap();
        let life = Duration::from_secs(3600);
        (self.ca.issue_for_request(&request, identity, clock::now(), life).unwrap(), key)
    }

    pub(crate) fn server(&self, alpn: &[u8]) -> ServerConfig {
        let (leaf, key) = self.issue(&Identity::Relay { name: "127.0.0.1".into() });
        let certified = tls::relay_key(leaf, self.ca_certificate(), &key).unwrap();
        let verifier = ClientVerifier::required(self.ca_certificate());
        tls::server(verifier, Arc::new(Always(Arc::new(certified))), &[alpn]).unwrap()
    }

    pub(crate) fn client(&self) -> rustls::ClientConfig {
        self.client_that_trusts(self)
    }

    pub(crate) fn client_that_trusts(&self, other: &Self) -> rustls::ClientConfig {
        let id = UserId::from_uuid(uuid::Uuid::now_v7());
        let user = Identity::User { id, name: "anna".parse().unwrap() };
        let (leaf, key) = self.issue(&user);
        let verifier = RelayVerifier::pinned(other.ca_certificate(), UnixTime(0));
        tls::client(verifier, Some((vec![leaf], key.to_der())), &[]).unwrap()
    }
}

/// What becomes of QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Udp {
    /// Handshakes are taken.
    Taken,
    /// The relay has no place left, and says so.
    Full,
    /// Nothing is heard.
    Swallowed,
}

/// What listens.
pub(crate) struct Rig {
    pub(crate) trust: Trust,
    pub(crate) address: SocketAddr,
    accepted: mpsc::Receiver<Carrier>,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// Both ports.
    pub(crate) async fn new() -> Self {
        Self::with(Trust::new(), Udp::Taken).await
    }

    /// TCP alone; UDP to the same port is swallowed.
    pub(crate) async fn without_udp() -> Self {
        Self::with(Trust::new(), Udp::Swallowed).await
    }

    pub(crate) async fn with(trust: Trust, udp: Udp) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (found, accepted) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        if udp != Udp::Swallowed {
            let (endpoint, _) = quic::listen(address, trust.server(ALPN), 64, &[7; 64]).unwrap();
            let found = found.clone();
            tasks.spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    if udp == Udp::Full {
                        incoming.refuse();
                    } else if let Ok(connection) = incoming.await {
                        found.send(quic::accepted(connection)).await.ok();
                    }
                }
            });
        } else {
            let hole = tokio::net::UdpSocket::bind(address).await.unwrap();
            tasks.spawn(async move {
                let mut buffer = [0; 2048];
                while hole.recv(&mut buffer).await.is_ok() {}
            });
        }
        let acceptor = TlsAcceptor::from(Arc::new(trust.server(b"http/1.1")));
        tasks.spawn(async move {
            let mut each = JoinSet::new();
            while let Ok((tcp, peer)) = tcp.accept().await {
                let (acceptor, found) = (acceptor.clone(), found.clone());
                each.spawn(async move { upgraded(acceptor, tcp, peer, found).await });
            }
        });
        Self { trust, address, accepted, _tasks: tasks }
    }

    pub(crate) fn relay(&self) -> RelayAddress {
        self.address.to_string().parse().unwrap()
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            relay: self.relay(),
            tls: self.trust.client(),
            role: Role::Device,
            choice: Choice::Any,
            proxies: Proxies::none(),
            history: Arc::default(),
            look_every: LOOK_EVERY,
        }
    }

    pub(crate) async fn accepted(&mut self) -> Carrier {
        within(self.accepted.recv()).await.unwrap()
    }

    /// Dialler's and relay's end over this carrier.
    pub(crate) async fn pair(kind: Kind) -> (Carrier, Carrier, Self) {
        let mut rig = Self::new().await;
        let wanted = Wanted { choice: Choice::Only(kind), ..rig.wanted() };
        let dialled = belay_tunnel::carrier::picker::dial(&wanted).await.unwrap();
        assert_eq!(dialled.kind, kind);
        let accepted = rig.accepted().await;
        accepted.admit(64, u32::MAX);
        (dialled.carrier, accepted, rig)
    }
}

async fn upgraded(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    found: mpsc::Sender<Carrier>,
) {
    websocket::prepare(&tcp);
    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
    let Some(headers) = read_request(&mut stream).await else { return };
    let answer = websocket::answer_upgrade(&headers).unwrap();
    let mut text = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    for (name, value) in &answer {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let (carrier, driver) = websocket::accepted(stream, Vec::new(), peer, Some(leaf)).await;
    assert!(carrier.peer_certificate().is_some());
    found.send(carrier).await.ok();
    driver.await;
}

pub(crate) async fn read_request<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
) -> Option<HeaderMap> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ") {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    Some(headers)
}

/// Nothing here takes this long.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
}
