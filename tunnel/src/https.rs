//! One HTTP/1.1 exchange over TLS: connect, directly or through the environment's proxy, ask, read a
//! bounded answer, close.
//!
//! Its law: every step has a deadline, and every way to fail has a line of its own.

mod http_date;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::one_line;
use belay_proto::time::UnixTime;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::RelayAddress;
use crate::proxy::{Proxies, Proxy, ProxyError};

/// One address's TCP handshake. Three lost SYNs cost 7 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// The TLS handshake: two round trips and their losses.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The relay's answer. A login costs it one slow password hash, which may wait for others.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Longest answer read, in bytes: a list of 100,000 devices at 600 bytes each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Why the relay gave no answer: a word for programs, the cause, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct HttpsError {
    /// One word, stable.
    pub token: &'static str,
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: &'static str,
}

impl HttpsError {
    fn new(token: &'static str, cause: impl Into<String>) -> Self {
        Self { token, cause: cause.into(), remedy: "try again" }
    }

    const fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }
}

/// Sends one request and reads its whole answer.
///
/// # Errors
/// [`HttpsError`].
pub async fn exchange(
    relay: &RelayAddress,
    tls: &Arc<ClientConfig>,
    software: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), HttpsError> {
    let proxies = Proxies::from_environment().map_err(|error| {
        HttpsError::new("bad-setting", error.to_string()).remedy("change it in the environment")
    })?;
    let stream = connect_tls(relay, &proxies, tls).await?;
    let asked = request(relay, stream, software, method, path, body);
    let answer = timeout(ANSWER_WITHIN, asked).await.map_err(|_| silent(relay))??;
    Ok((answer.status, answer.body))
}

fn silent(relay: &RelayAddress) -> HttpsError {
    HttpsError::new(
        "relay-silent",
        format!("{relay} did not answer within {} s", ANSWER_WITHIN.as_secs()),
    )
    .remedy("try again; if it stays so, tell the relay's operator")
}

/// Asks the relay for the time, without saying who asks: every answer of HTTP has it (RFC 9110
/// §6.6.1). Believed because TLS has proved the relay. `None` when the answer has none.
///
/// # Errors
/// [`HttpsError`].
pub async fn relay_time(
    relay: &RelayAddress,
    proxies: &Proxies,
    tls: &Arc<ClientConfig>,
    software: &str,
) -> Result<Option<UnixTime>, HttpsError> {
    let stream = connect_tls(relay, proxies, tls).await?;
    // A line's path: without an upgrade it is answered, and nothing comes of it.
    let path = crate::carrier::websocket::PATH;
    let asked = request(relay, stream, software, Method::GET, path, Vec::new());
    let answer = timeout(ANSWER_WITHIN, asked).await.map_err(|_| silent(relay))??;
    let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
    Ok(date.and_then(http_date::read))
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

async fn request(
    relay: &RelayAddress,
    stream: TlsStream<TcpStream>,
    software: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, HttpsError> {
    let broke = |error: hyper::Error| refused_in_handshake(relay, &error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, relay.to_string())
        .header(USER_AGENT, software)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| HttpsError::new("internal", format!("cannot make the request: {e}")))?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(broke)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| {
            if e.is::<LengthLimitError>() {
                HttpsError::new(
                    "protocol",
                    format!("{relay} answered with more than {MAX_ANSWER} bytes"),
                )
                .remedy("check that the address is a Belay relay's")
            } else {
                HttpsError::new("relay-lost", format!("{relay} broke off its answer: {e}"))
                    .remedy("try again")
            }
        })?;
        Ok(Answer { status, headers, body: body.to_bytes() })
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

/// Connects and finishes the TLS handshake.
async fn connect_tls(
    relay: &RelayAddress,
    proxies: &Proxies,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, HttpsError> {
    let name = relay.server_name().map_err(|e| HttpsError::new("address", e.to_string()))?;
    let tcp = connect_tcp(relay, proxies).await?;
    tcp.set_nodelay(true).map_err(|e| HttpsError::new("network", e.to_string()))?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
    match timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls_failure(relay, &error)),
        Err(_) => Err(HttpsError::new(
            "relay-silent",
            format!("{relay} took the connection but did not finish the TLS handshake"),
        )
        .remedy("check that the address is a Belay relay's")),
    }
}

async fn connect_tcp(relay: &RelayAddress, proxies: &Proxies) -> Result<TcpStream, HttpsError> {
    if let Some(proxy) = proxies.towards(relay.host()) {
        let through = proxy.connect(relay.host(), relay.port()).await;
        return through.map_err(|error| through_proxy(proxy, &error));
    }
    let addresses = relay.resolve().await.map_err(|e| {
        HttpsError::new("relay-not-found", e.to_string())
            .remedy("check the name, and this machine's network and DNS")
    })?;
    let mut last = String::new();
    for address in addresses {
        match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {} s", CONNECT_WITHIN.as_secs()),
        }
    }
    Err(HttpsError::new("relay-unreachable", format!("cannot reach the relay ({last})"))
        .remedy("check the address, this machine's network, and that the relay runs"))
}

/// The same words as the picker's, which goes the same way ([`crate::carrier::picker`]).
fn through_proxy(proxy: &Proxy, error: &ProxyError) -> HttpsError {
    let why = one_line(error);
    if matches!(error, ProxyError::Login(_)) {
        return HttpsError::new("proxy-login", format!("{why} ({proxy})"))
            .remedy(crate::proxy::LOGIN_REMEDY);
    }
    HttpsError::new("proxy", format!("no way through the proxy {proxy}: {why}"))
        .remedy(crate::proxy::REMEDY)
}

fn tls_failure(relay: &RelayAddress, error: &io::Error) -> HttpsError {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => judge(relay, error),
        None => {
            HttpsError::new("relay-lost", format!("{relay} broke off the TLS handshake: {error}"))
                .remedy("check that the address is a Belay relay's")
        }
    }
}

/// In TLS 1.3 a server judges our certificate after our side of the handshake is done (RFC 8446
/// §4.4.2.4), so its alert arrives with the first answer.
fn refused_in_handshake(relay: &RelayAddress, error: &hyper::Error) -> HttpsError {
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
    HttpsError::new("relay-lost", format!("{relay} broke off: {}", one_line(error)))
        .remedy("try again")
}

fn judge(relay: &RelayAddress, error: &rustls::Error) -> HttpsError {
    if let rustls::Error::InvalidCertificate(reason) = error {
        return judge_certificate(relay, reason);
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
            return HttpsError::new(
                "foreign-certificate",
                format!("{relay} does not accept your certificate ({alert:?})"),
            )
            .remedy("run: belay login");
        }
    }
    HttpsError::new("tls", format!("no TLS connection to {relay}: {error}"))
        .remedy("check that the address is a Belay relay's")
}

fn judge_certificate(relay: &RelayAddress, reason: &CertificateError) -> HttpsError {
    let foreign = |cause: String| HttpsError::new("foreign-certificate", cause);
    if matches!(reason, CertificateError::UnknownIssuer) {
        return foreign(format!(
            "{relay} does not show a certificate of the CA your login, code or token names"
        ))
        .remedy("somebody may be in between, or the relay was made anew: ask for a new one");
    }
    if matches!(
        reason,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        return foreign(format!("the certificate of {relay} is for another name"))
            .remedy("use the name the relay was set up with");
    }
    if matches!(reason, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        return HttpsError::new(
            "certificate-expired",
            format!("the certificate of {relay} expired"),
        )
        .remedy("check this machine's clock, then tell the relay's operator");
    }
    foreign(format!("the certificate of {relay} is not acceptable: {reason:?}"))
        .remedy("check that the address is a Belay relay's")
}
