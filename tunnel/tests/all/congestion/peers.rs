//! Two quinn-proto endpoints with one connection: real packets, real TLS, no sockets and no clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use belay_tunnel::congestion::BelayConfig;
use bytes::BytesMut;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Who controls the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    Ours,
    Cubic,
    Bbr,
}

/// Segments quinn's driver asks for at once.
const SEGMENTS: usize = 10;

/// One end.
pub(crate) struct Peer {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    /// None until the first packet came.
    pub(crate) connection: Option<Connection>,
    /// The handshake is done.
    pub(crate) connected: bool,
    /// Why it ended.
    pub(crate) lost: Option<String>,
    other: SocketAddr,
    buffer: Vec<u8>,
}

/// The one certificate; Ed25519, because its signatures are all of one length and so is then
/// every handshake.
struct Identity {
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let names = vec!["peer".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Identity {
        server: Arc::new(QuicServerConfig::try_from(server).unwrap()),
        client: Arc::new(QuicClientConfig::try_from(client).unwrap()),
    }
});

/// As `carrier::quic` sets it, with windows that never limit a simulated link.
fn transport(law: Law) -> Arc<TransportConfig> {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match law {
        Law::Ours => Arc::new(BelayConfig),
        Law::Cubic => Arc::new(CubicConfig::default()),
        Law::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(1_472).minimum_change(64);
    config
        .stream_receive_window(VarInt::from_u32(4 * 1024 * 1024))
        .send_window(16 * 1024 * 1024)
        .congestion_controller_factory(factory)
        .max_idle_timeout(Some(VarInt::from_u32(60_000).into()))
        .mtu_discovery_config(Some(mtu));
    Arc::new(config)
}

fn endpoint(seed: u64, server: Option<ServerConfig>) -> Endpoint {
    let mut config = EndpointConfig::default();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    config.rng_seed(Some(bytes)).max_udp_payload_size(1_472).unwrap();
    Endpoint::new(Arc::new(config), server.map(Arc::new), true, None)
}

/// The sender, already dialling, and the receiver.
pub(crate) fn pair(law: Law, seed: u64, now: Instant) -> (Peer, Peer) {
    let there = SocketAddr::from((Ipv4Addr::LOCALHOST, 4433));
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 4434));
    let mut server = ServerConfig::with_crypto(IDENTITY.server.clone());
    server.transport_config(transport(law));
    let mut client = ClientConfig::new(IDENTITY.client.clone());
    client.transport_config(transport(law));
    let mut dialling = endpoint(seed, None);
    let (handle, connection) = dialling.connect(now, client, there, "peer").unwrap();
    let peer = |endpoint, handle, connection, other| Peer {
        endpoint,
        handle,
        connection,
        connected: false,
        lost: None,
        other,
        buffer: Vec::new(),
    };
    (
        peer(dialling, handle, Some(connection), there),
        peer(endpoint(seed ^ 0xffff, Some(server)), ConnectionHandle(0), None, here),
    )
}

impl Peer {
    /// Takes a datagram in.
    pub(crate) fn take(&mut self, now: Instant, data: BytesMut) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, self.other, None, None, data, &mut answer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut answer, None);
                let (handle, connection) = accepted.map_err(|error| error.cause).unwrap();
                self.handle = handle;
                self.connection = Some(connection);
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some(connection) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Timers, events and what the endpoint has to say to the connection.
    pub(crate) fn turn(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason.to_string()),
                Event::HandshakeDataReady
                | Event::Stream(_)
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
    }

    /// Every datagram that may leave now.
    pub(crate) fn give(&mut self, now: Instant, mut out: impl FnMut(BytesMut)) {
        let Some(connection) = &mut self.connection else { return };
        loop {
            self.buffer.clear();
            let Some(transmit) = connection.poll_transmit(now, SEGMENTS, &mut self.buffer) else {
                return;
            };
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in self.buffer[..transmit.size].chunks(segment) {
                out(BytesMut::from(datagram));
            }
        }
    }

    /// When a timer runs out.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        self.connection.as_mut().and_then(Connection::poll_timeout)
    }

    /// The sender's window, in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.congestion_state().window())
    }

    /// Smoothed round trip.
    pub(crate) fn rtt(&self) -> Duration {
        self.connection.as_ref().map_or(Duration::ZERO, Connection::rtt)
    }
}
