//! The fallback carrier: WebSocket (RFC 6455) over TLS 1.3 on TCP, where UDP does not get through.
//!
//! The same certificates as over QUIC, judged by the same verifiers; one upgrade of an HTTPS
//! request; then binary messages with many streams inside (`mux`). Before a peer is admitted the
//! same bounds hold as over QUIC.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{Role as Seat, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::end::CarrierError;
use super::mux::{Driver, MAX_MESSAGE, Pace, Peer, end_of_io};
use super::quic::{DEVICE_STREAMS, IDLE_TIMEOUT, Role};
use super::stream::{Carrier, Side};
use crate::address::RelayAddress;

/// Where a relay takes the upgrade.
pub const PATH: &str = "/v1/line";

/// What is spoken inside, as the subprotocol's name.
pub const SUBPROTOCOL: &str = "belay.1";

/// What is spoken outside (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// Bytes read from TLS at once, and kept ready for each carrier: one TLS record.
const READ_BUFFER: usize = 16 * 1024;

/// Bytes that wait for the connection below: past the first number a message is written at once,
/// and none is begun while one waits.
const WRITE_BUFFER: usize = 16 * 1024;
const MAX_WRITE_BUFFER: usize = 4 * MAX_MESSAGE;

/// What the kernel may hold unsent: what stands there cannot be overtaken by anything urgent.
const UNSENT: u32 = 128 * 1024;

/// As over QUIC: a dialler that hears nothing asks, which keeps the NAT's and the proxy's mapping.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A dialler that has sent something and hears nothing asks after this long, so that a judge of
/// silence (`reach`) has an answer to hear.
const ASK_WHEN_WAITING: Duration = Duration::from_millis(500);

/// The fallback carrier could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The relay's name cannot stand in a certificate.
    #[error("\"{0}\" is not a name a relay can have")]
    Name(String),
    /// TLS failed on our side: the certificate is not the relay's.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The relay, or whoever answers in its place, ended TLS or the connection.
    #[error("the connection broke in its handshake")]
    Ended(#[source] CarrierError),
    /// It speaks TLS and HTTP and is no relay, or will not take us.
    #[error("the upgrade was answered with HTTP status {0}")]
    Status(u16),
    /// It speaks something else.
    #[error("the answer to the upgrade is no WebSocket's: {0}")]
    Answer(String),
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Sets up a connection that will be a carrier: small writes at once, no long queue of unsent
/// bytes, and nothing kept of a peer that does not acknowledge for as long as a carrier lives.
pub fn prepare(tcp: &TcpStream) {
    let socket = socket2::SockRef::from(tcp);
    let prepared = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT))
        .and_then(|()| socket.set_tcp_user_timeout(Some(IDLE_TIMEOUT)));
    if let Err(error) = prepared {
        tracing::debug!(%error, "cannot set up a TCP socket");
    }
}

/// Makes a carrier of a connection to the relay, direct or through a proxy.
///
/// # Errors
/// [`WebSocketError`].
pub async fn dial(
    role: Role,
    mut tls: ClientConfig,
    tcp: TcpStream,
    relay: &RelayAddress,
) -> Result<Carrier, WebSocketError> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    prepare(&tcp);
    let address = tcp.peer_addr().map_err(|error| broke(&error))?;
    let name = relay.server_name().map_err(|_| WebSocketError::Name(relay.host().to_owned()))?;
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, tcp)
        .await
        .map_err(|error| tls_of(&error))?;
    let certificate = leaf(stream.get_ref().1.peer_certificates());
    let asked = Instant::now();
    // Boxed: its state is large and gone once the carrier is up.
    let socket = Box::pin(upgrade(stream, relay)).await?;
    let streams = match role {
        Role::Device => DEVICE_STREAMS,
        Role::Relay | Role::Client => 0,
    };
    let peer = Peer { address, certificate, streams, stranger: false };
    let pace =
        Pace { dead: IDLE_TIMEOUT, ask: Some(KEEP_ALIVE), ask_when_waiting: ASK_WHEN_WAITING };
    let (carrier, driver) = Driver::new(Side::Dialler, peer, socket, pace, asked.elapsed());
    // It ends by itself in bounded time once the last handle is dropped, and every handle sees
    // its end.
    tokio::spawn(driver);
    Ok(Carrier::from_socket(carrier))
}

async fn upgrade<S>(stream: S, relay: &RelayAddress) -> Result<WebSocketStream<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = |error: &dyn std::fmt::Display| WebSocketError::Answer(error.to_string());
    let url = format!("wss://{relay}{PATH}");
    let mut request = url.into_client_request().map_err(|error| answer(&error))?;
    request
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    match client_async_with_config(request, stream, Some(config())).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Io(error)) => Err(tls_of(&error)),
        Err(WsError::Http(response)) => Err(WebSocketError::Status(response.status().as_u16())),
        Err(WsError::Protocol(ProtocolError::HandshakeIncomplete)) => {
            Err(broke(&io::ErrorKind::UnexpectedEof.into()))
        }
        Err(error) => Err(answer(&error)),
    }
}

fn tls_of(error: &io::Error) -> WebSocketError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) | None => broke(error),
        Some(inner) => WebSocketError::Tls(inner.clone()),
    }
}

fn broke(error: &io::Error) -> WebSocketError {
    WebSocketError::Ended(end_of_io(error).into())
}

fn leaf(chain: Option<&[CertificateDer<'_>]>) -> Option<CertificateDer<'static>> {
    chain?.first().map(|leaf| leaf.clone().into_owned())
}

/// What to answer to a request for [`PATH`]: the headers of a 101, or a status and the cause.
///
/// # Errors
/// A status and what is wrong with the request.
pub fn answer_upgrade(headers: &HeaderMap) -> Result<HeaderMap, (StatusCode, &'static str)> {
    // RFC 6455 §4.2.1. Lists are compared without regard to case.
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this path takes WebSocket upgrades only"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this relay speaks WebSocket version 13"));
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err((StatusCode::BAD_REQUEST, "the relay speaks the subprotocol belay.1 only"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_LENGTH);
    let key = key.ok_or((StatusCode::BAD_REQUEST, "the request has no WebSocket key"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| (StatusCode::BAD_REQUEST, "the request has no WebSocket key"))?;
    Ok(HeaderMap::from_iter([
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ]))
}

/// A key is 16 random bytes in base64 (RFC 6455 §4.1).
const KEY_LENGTH: usize = 24;

/// Makes a carrier of an upgraded connection. `early` is what came right behind the request. The
/// future moves its messages: whoever accepts spawns it, and it ends soon after the carrier.
pub async fn accepted<S>(
    stream: S,
    early: Vec<u8>,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
) -> (Carrier, impl Future<Output = ()> + Send + use<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket =
        WebSocketStream::from_partially_read(stream, early, Seat::Server, Some(config())).await;
    // Probing is the relay's own, above; it asks nothing here, and a dialler does.
    let pace = Pace { dead: IDLE_TIMEOUT, ask: None, ask_when_waiting: IDLE_TIMEOUT };
    let peer = Peer { address: peer, certificate, streams: 0, stranger: true };
    let (carrier, driver) = Driver::new(Side::Acceptor, peer, socket, pace, Duration::ZERO);
    (Carrier::from_socket(carrier), driver)
}
