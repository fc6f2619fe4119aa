//! QUIC (RFC 9000) endpoints: configuration, the relay's listener, the dialler.
//!
//! Before a peer is admitted it may open [`STRANGER_STREAMS`] streams and have
//! [`STRANGER_WINDOW`] bytes in flight; [`Carrier::admit`] raises both.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use belay_proto::version::ALPN;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};

use super::congestion::controller;
use super::end::CarrierError;
use super::quic_reset;
use super::quic_runtime::{Few, ManyIdle};
use super::stream::Carrier;

/// Streams a peer may open before it is admitted: the control stream, and one more so that a
/// client's first `Open` travels with its `Hello`. quinn makes a table entry for each up front.
pub const STRANGER_STREAMS: u32 = 2;

/// Bytes a peer may have in flight over all streams before it is admitted: one `Hello` and one
/// `Open` of the largest size.
pub const STRANGER_WINDOW: u32 = 160 * 1024;

/// Bytes in flight on one stream: 100 Mbit/s over a satellite (650 ms), 640 Mbit/s at 100 ms. It
/// bounds what a stopped reader makes the relay hold; the resume layer's own window is less on
/// shorter paths.
pub const STREAM_WINDOW: u32 = 8 * 1024 * 1024;

/// Bytes sent and not yet acknowledged over all streams of a carrier.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;

/// Silence after which a client's carrier is dead, and any carrier over WebSocket. Probing finds out
/// sooner; this bounds what an endpoint keeps of a peer that vanished.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The same for a device's line, which is quiet for up to five minutes between two questions of the
/// relay (`proto::presence`).
const LINE_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A client that hears nothing says something. It keeps the NAT mapping, which Linux forgets after
/// 30 quiet seconds, and it is how it finds out that its relay was killed: the relay's answer to a
/// packet of a forgotten connection is a reset. A device keeps its mapping for fewer bytes
/// (`proto::keeping`).
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Keeps a NAT's mapping and means nothing: shorter than any packet of QUIC, so that its receiver
/// passes over it. RFC 3948 §2.3 has the same octet for the same purpose.
const OCTET: &[u8] = &[0xff];

/// An idle line is not measured anew for a day: each probe for a larger datagram costs its size.
const MTU_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Largest datagram sent or taken: what fits the 1,500 bytes of an Ethernet path over IPv4.
/// Loopback and jumbo frames carry more, but an endpoint's receive buffer is this times 2,048, and
/// a probe for more costs every idle connection its size: memory of which the relay has too many.
const LARGEST_DATAGRAM: u16 = 1_472;

/// Smallest gain worth another probe, which each end of each connection sends and answers.
const MTU_STEP: u16 = 64;

/// Socket buffers of the relay: a burst of some thousand handshakes (1,200 bytes each) waits here
/// instead of being lost.
const RELAY_SOCKET_BUFFER: usize = 16 * 1024 * 1024;

/// Socket buffers of a dialler: 8 ms at 1 Gbit/s.
const DIALLER_SOCKET_BUFFER: usize = 1024 * 1024;

pub use super::quic_reset::{LineId, Resets, accept};

/// An endpoint could not be made, or the relay not reached.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The address cannot be bound.
    #[error("cannot bind UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS configuration has no cipher QUIC needs.
    #[error("the TLS configuration cannot protect QUIC")]
    Tls(#[from] NoInitialCipherSuite),
    /// The relay's name cannot stand in a certificate.
    #[error("\"{0}\" is not a name a relay can have")]
    Name(String),
    /// The address cannot be dialled.
    #[error("cannot dial {0}")]
    Dial(SocketAddr, #[source] quinn::ConnectError),
    /// The handshake failed.
    #[error("no QUIC connection to {0}")]
    Handshake(SocketAddr, #[source] CarrierError),
}

impl QuicError {
    /// Whether the relay is there and takes nobody now.
    pub fn turned_away(&self) -> bool {
        match self {
            Self::Handshake(_, error) => error.turned_away(),
            Self::Bind { .. } | Self::Tls(_) | Self::Name(_) | Self::Dial(..) => false,
        }
    }
}

/// Which end this is: the two differ in what they keep ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts very many carriers, most of them idle.
    Relay,
    /// Holds one line for years; the relay opens streams to it.
    Device,
    /// Dials for one session.
    Client,
}

/// Streams the relay may have open to a device at once: its sessions.
pub const DEVICE_STREAMS: u32 = 64;

fn transport(role: Role) -> TransportConfig {
    let mut config = TransportConfig::default();
    let streams = match role {
        Role::Relay => STRANGER_STREAMS,
        Role::Device => DEVICE_STREAMS,
        Role::Client => 0,
    };
    // The shorter of both ends' holds (RFC 9000 §10.1), so a client's is its own.
    let idle = match role {
        Role::Relay | Role::Device => LINE_IDLE_TIMEOUT,
        Role::Client => IDLE_TIMEOUT,
    };
    let window = match role {
        Role::Relay => STRANGER_WINDOW,
        // Bounded by the streams and their windows; a bound below that would let one stopped
        // session hold up its neighbours.
        Role::Device | Role::Client => u32::MAX,
    };
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .congestion_controller_factory(controller())
        .max_idle_timeout(IdleTimeout::try_from(idle).ok());
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LARGEST_DATAGRAM).minimum_change(MTU_STEP).interval(MTU_AGAIN);
    config.mtu_discovery_config(Some(mtu));
    if role == Role::Client {
        config.keep_alive_interval(Some(KEEP_ALIVE));
    }
    config
}

/// A dialler's: nobody sends it packets of a connection it has forgotten.
fn dialler_endpoint() -> EndpointConfig {
    sized(EndpointConfig::default())
}

fn relay_endpoint(reset_key: &[u8]) -> EndpointConfig {
    // Ids are checked before a reset is sent, so they outlive a restart as the key does.
    let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
    let mut config = EndpointConfig::new(Arc::new(key));
    let reset_key: Arc<[u8]> = reset_key.into();
    config.cid_generator(move || Box::new(quic_reset::Marked::new(&reset_key)));
    sized(config)
}

fn sized(mut config: EndpointConfig) -> EndpointConfig {
    // The value is within what quinn accepts (1200 to 65527), so this cannot fail.
    if config.max_udp_payload_size(LARGEST_DATAGRAM).is_err() {
        tracing::error!("the datagram size is out of bounds");
    }
    config
}

fn bind(address: SocketAddr, buffer: usize) -> Result<UdpSocket, QuicError> {
    let socket = UdpSocket::bind(address).map_err(|source| QuicError::Bind { address, source })?;
    super::quic_socket::enlarge(&socket, buffer);
    Ok(socket)
}

/// The relay's endpoint. `half_open` bounds the handshakes whose first packet waits to be looked
/// at. `reset_key` stays the same over restarts: with it, a relay that was killed tells a peer of
/// a lost connection so with a stateless reset (RFC 9000 §10.3), at the peer's next packet.
///
/// # Errors
/// [`QuicError::Bind`], [`QuicError::Tls`].
pub fn listen(
    address: SocketAddr,
    tls: rustls::ServerConfig,
    half_open: usize,
    reset_key: &[u8],
) -> Result<(Endpoint, Resets), QuicError> {
    let crypto = QuicServerConfig::try_from(Arc::new(tls))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(Role::Relay)))
        .max_incoming(half_open)
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(16 * 1024 * 1024)
        .migration(true);
    // Address validation tokens for later connections would be one more thing to remember.
    config.validation_token.sent(0);
    let socket = bind(address, RELAY_SOCKET_BUFFER)?;
    let cannot = |source| QuicError::Bind { address, source };
    let resets = Resets::new(socket.try_clone().map_err(cannot)?, reset_key);
    Endpoint::new(relay_endpoint(reset_key), Some(config), socket, Arc::new(ManyIdle))
        .map(|endpoint| (endpoint, resets))
        .map_err(cannot)
}

/// Makes a carrier of an accepted connection.
pub const fn accepted(connection: quinn::Connection) -> Carrier {
    Carrier::from_quic(connection, None)
}

/// A dialler's endpoint with its configuration. One serves many dials.
#[derive(Debug, Clone)]
pub struct Dialler {
    end: Arc<DialledFrom>,
    config: ClientConfig,
}

/// What a dialled carrier was dialled from.
#[derive(Debug)]
pub(super) struct DialledFrom {
    /// Kept to see its last words out.
    pub(super) endpoint: Endpoint,
    socket: UdpSocket,
}

impl DialledFrom {
    /// Sends the octet that keeps a mapping. When it cannot be sent now, the next one is.
    pub(super) fn keep_mapping(&self, towards: SocketAddr) {
        if let Err(error) = self.socket.send_to(OCTET, towards) {
            tracing::debug!(%error, "cannot keep the mapping");
        }
    }
}

impl Dialler {
    /// Binds an ephemeral port of the family of `towards`.
    ///
    /// # Errors
    /// [`QuicError::Bind`], [`QuicError::Tls`].
    pub fn new(
        role: Role,
        tls: rustls::ClientConfig,
        towards: SocketAddr,
    ) -> Result<Self, QuicError> {
        let config = client_config(role, tls)?;
        let any: SocketAddr = if towards.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let cannot = |source| QuicError::Bind { address: any, source };
        let socket = bind(any, DIALLER_SOCKET_BUFFER)?;
        let kept = socket.try_clone().map_err(cannot)?;
        let endpoint =
            Endpoint::new(dialler_endpoint(), None, socket, Arc::new(Few)).map_err(cannot)?;
        Ok(Self { end: Arc::new(DialledFrom { endpoint, socket: kept }), config })
    }

    /// Another identity on the same socket: how thousands of diallers share a few ports.
    ///
    /// # Errors
    /// [`QuicError::Tls`].
    pub fn with_identity(&self, role: Role, tls: rustls::ClientConfig) -> Result<Self, QuicError> {
        Ok(Self { end: Arc::clone(&self.end), config: client_config(role, tls)? })
    }

    /// Dials the relay.
    ///
    /// # Errors
    /// [`QuicError::Dial`], [`QuicError::Handshake`].
    pub async fn dial(&self, address: SocketAddr, name: &str) -> Result<Carrier, QuicError> {
        let connecting = self
            .end
            .endpoint
            .connect_with(self.config.clone(), address, name)
            .map_err(|error| not_dialled(error, address))?;
        let connection =
            connecting.await.map_err(|error| QuicError::Handshake(address, error.into()))?;
        Ok(Carrier::from_quic(connection, Some(Arc::clone(&self.end))))
    }

    /// Waits until every carrier's last words are on the wire, at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.end.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("the endpoint did not drain in time");
        }
    }
}

fn client_config(role: Role, mut tls: rustls::ClientConfig) -> Result<ClientConfig, QuicError> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(Arc::new(tls))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(role)));
    Ok(config)
}

fn not_dialled(error: quinn::ConnectError, address: SocketAddr) -> QuicError {
    if let quinn::ConnectError::InvalidServerName(name) = error {
        QuicError::Name(name)
    } else {
        QuicError::Dial(address, error)
    }
}
