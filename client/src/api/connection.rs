//! One HTTP/1.1 exchange over TLS: connect, ask, read a bounded answer, close.
//!
//! Its law: every step has a deadline, and every way to fail has a line of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::one_line;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;
use belay_tunnel::address::RelayAddress;

/// One address's TCP handshake. Three lost SYNs cost 7 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// The TLS handshake: two round trips and their losses.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The relay's answer. A login costs it one slow password hash, which may wait for others.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Longest answer read, in bytes: a list of 100,000 devices at 600 bytes each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Sends one request and reads its whole answer.
pub(super) async fn exchange(
    relay: &RelayAddress,
    tls: &Arc<ClientConfig>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Failure> {
    let (stream, _) = connect_tls(relay, tls).await?;
    let asked = ask(relay, stream, method, path, body);
    timeout(ANSWER_WITHIN, asked).await.map_err(|_| {
        Failure::new(
            "relay-silent",
            format!("{relay} did not answer within {} s", ANSWER_WITHIN.as_secs()),
        )
        .remedy("try again; if it stays so, tell the relay's operator")
    })?
}

async fn ask(
    relay: &RelayAddress,
    stream: TlsStream<TcpStream>,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Failure> {
    let broke = |error: hyper::Error| refused_in_handshake(relay, &error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, relay.to_string())
        .header(USER_AGENT, concat!("belay/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Failure::new("internal", format!("cannot make the request: {e}")))?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| {
            if e.is::<LengthLimitError>() {
                Failure::new(
                    "protocol",
                    format!("{relay} answered with more than {MAX_ANSWER} bytes"),
                )
                .remedy("check that the address is a Belay relay's")
            } else {
                Failure::new("relay-lost", format!("{relay} broke off its answer: {e}"))
                    .remedy("try again")
            }
        })?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection, answering);
    // Both are polled by this one task: nothing is left behind when it is dropped.
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => match ended {
            Ok(()) => answering.await,
            Err(error) => Err(broke(error)),
        },
    }
}

/// Connects and finishes the TLS handshake; also says which address answered.
///
/// # Errors
/// One line for each way to fail.
pub async fn connect_tls(
    relay: &RelayAddress,
    tls: &Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, SocketAddr), Failure> {
    let name = relay.server_name().map_err(|e| Failure::new("address", e.to_string()))?;
    let (tcp, address) = connect_tcp(relay).await?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
    match timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => Ok((stream, address)),
        Ok(Err(error)) => Err(tls_failure(relay, &error)),
        Err(_) => Err(Failure::new(
            "relay-silent",
            format!("{relay} took the connection but did not finish the TLS handshake"),
        )
        .remedy("check that the address is a Belay relay's")),
    }
}

async fn connect_tcp(relay: &RelayAddress) -> Result<(TcpStream, SocketAddr), Failure> {
    let addresses = relay.resolve().await.map_err(|e| {
        Failure::new("relay-not-found", e.to_string())
            .remedy("check the name, and this machine's network and DNS")
    })?;
    let mut last = String::new();
    for address in addresses {
        match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true).map_err(|e| Failure::new("network", e.to_string()))?;
                return Ok((tcp, address));
            }
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {} s", CONNECT_WITHIN.as_secs()),
        }
    }
    Err(Failure::new("relay-unreachable", format!("cannot reach the relay ({last})"))
        .remedy("check the address, this machine's network, and that the relay runs"))
}

fn tls_failure(relay: &RelayAddress, error: &io::Error) -> Failure {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => judge(relay, error),
        None => Failure::new("relay-lost", format!("{relay} broke off the TLS handshake: {error}"))
            .remedy("check that the address is a Belay relay's"),
    }
}

/// In TLS 1.3 a server judges our certificate after our side of the handshake is done (RFC 8446
/// §4.4.2.4), so its alert arrives with the first answer.
fn refused_in_handshake(relay: &RelayAddress, error: &hyper::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(rustls) = error.downcast_ref::<rustls::Error>() {
            return judge(relay, rustls);
        }
        if let Some(rustls) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return judge(relay, rustls);
        }
        source = error.source();
    }
    Failure::new("relay-lost", format!("{relay} broke off: {}", one_line(error)))
        .remedy("try again")
}

/// The relay did not prove itself.
fn unproved(relay: &RelayAddress, reason: &CertificateError) -> Failure {
    if matches!(reason, CertificateError::UnknownIssuer) {
        return Failure::new(
            "foreign-certificate",
            format!("{relay} does not show a certificate of the CA your login or code names"),
        )
        .remedy("somebody may be in between, or the relay was made anew: ask for a new code");
    }
    if matches!(
        reason,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        return Failure::new(
            "foreign-certificate",
            format!("the certificate of {relay} is for another name"),
        )
        .remedy("use the name the relay was set up with");
    }
    if matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        return Failure::new(
            "certificate-expired",
            format!("the certificate of {relay} expired before your last login"),
        )
        .remedy("tell the relay's operator");
    }
    Failure::new(
        "foreign-certificate",
        format!("the certificate of {relay} is not acceptable: {reason:?}"),
    )
    .remedy("check that the address is a Belay relay's")
}

fn judge(relay: &RelayAddress, error: &rustls::Error) -> Failure {
    if let rustls::Error::InvalidCertificate(reason) = error {
        return unproved(relay, reason);
    }
    if let rustls::Error::AlertReceived(alert) = error {
        let ours = matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::DecryptError
        );
        if ours {
            return Failure::new(
                "foreign-certificate",
                format!("{relay} does not accept your certificate ({alert:?})"),
            )
            .remedy("run: belay login");
        }
    }
    Failure::new("tls", format!("no TLS connection to {relay}: {error}"))
        .remedy("check that the address is a Belay relay's")
}
