//! HTTPS from the relay to somebody else's server: a webhook, a collector, a witness.
//!
//! Its law: plain HTTP goes to this machine alone; each exchange is one connection with a deadline and
//! a bounded answer; nothing is followed, no redirect and no proxy. What it is not: it repeats nothing.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use belay_tunnel::tls::{self, TlsError};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::SOFTWARE;

/// From looking the name up to the answer's last byte.
const WITHIN: Duration = Duration::from_secs(30);

/// Until TCP and TLS stand.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Longest answer read, in bytes: cosignatures of dozens of witnesses.
const MAX_ANSWER: usize = 64 * 1024;

/// Where distributions keep the authorities that the system believes.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An address of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

/// What [`Url::parse`] takes.
pub const URL_RULE: &str = "https://HOST[:PORT]/PATH without user, query or fragment; http:// for 127.0.0.1 and [::1] alone";

impl Url {
    /// Reads one. Plain HTTP is for this machine alone.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => false,
            _ => return None,
        };
        if host.is_empty() || authority.as_str().contains('@') || text.contains(['?', '#']) {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self { secure, host: host.to_owned(), port, path: uri.path().to_owned() })
    }

    /// The same server, with more path.
    #[must_use]
    pub fn below(mut self, more: &str) -> Self {
        self.path = format!("{}/{more}", self.path.trim_end_matches('/'));
        self
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Url {
    fn authority(&self) -> String {
        let host = &self.host;
        match host.contains(':') {
            true => format!("[{host}]:{}", self.port),
            false => format!("{host}:{}", self.port),
        }
    }
}

/// No exchange is possible with what is configured.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The authorities cannot be read.
    #[error("cannot read the certificate authorities in {0}")]
    Roots(PathBuf, #[source] io::Error),
    /// There are none.
    #[error("there is no certificate authority in {0}")]
    NoRoots(PathBuf),
    /// The system has none where they usually are.
    #[error("this system has no certificate authorities at the usual places; set ca_file")]
    NoSystemRoots,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An exchange did not take place.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// TCP, DNS or TLS.
    #[error("cannot reach {0}")]
    Connect(String, #[source] io::Error),
    /// HTTP.
    #[error("{0} does not speak HTTP as it should")]
    Http(String, #[source] hyper::Error),
    /// The answer's body broke off or is too long.
    #[error("the answer of {0} is over {MAX_ANSWER} bytes, or was cut off")]
    Answer(String),
    /// It took too long.
    #[error("{0} did not answer within 30 s")]
    Silent(String),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its type, when it has one.
    pub kind: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// Somebody else's server, ready to be asked.
pub struct Peer {
    url: Url,
    tls: Option<Arc<ClientConfig>>,
}

impl Peer {
    /// Reads the authorities, of this file or of the system.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub fn new(url: Url, ca_file: Option<&Path>) -> Result<Self, SetUpError> {
        if !url.secure {
            return Ok(Self { url, tls: None });
        }
        let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
        let file = ca_file.or_else(system).ok_or(SetUpError::NoSystemRoots)?;
        let cannot = |error| SetUpError::Roots(file.to_owned(), error);
        let pem = fs::read(file).map_err(cannot)?;
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| cannot(io::Error::other(error.to_string())))?;
        if roots.is_empty() {
            return Err(SetUpError::NoRoots(file.to_owned()));
        }
        Ok(Self { url, tls: Some(Arc::new(tls::foreign(roots)?)) })
    }

    /// Where it is.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Sends one request and reads its answer, whatever its status.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(
        &self,
        kind: &'static str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, PostError> {
        let asked = self.exchange(kind, headers, body);
        timeout(WITHIN, asked).await.unwrap_or_else(|_| Err(PostError::Silent(self.name())))
    }

    fn name(&self) -> String {
        self.url.authority()
    }

    async fn exchange(
        &self,
        kind: &'static str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, PostError> {
        let cannot = |error| PostError::Connect(self.name(), error);
        let connect = TcpStream::connect((self.url.host.as_str(), self.url.port));
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let tcp = timeout(CONNECT_WITHIN, connect).await.map_err(late).flatten().map_err(cannot)?;
        let Some(tls) = &self.tls else { return self.ask(tcp, kind, headers, body).await };
        let name = ServerName::try_from(self.url.host.clone())
            .map_err(|error| cannot(io::Error::other(error)))?;
        let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
        let stream =
            timeout(CONNECT_WITHIN, handshake).await.map_err(late).flatten().map_err(cannot)?;
        self.ask(stream, kind, headers, body).await
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        kind: &'static str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, PostError> {
        let broke = |error| PostError::Http(self.name(), error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        // Both were checked when the address was read.
        *request.uri_mut() = self.url.path.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&self.url.authority());
        request.headers_mut().extend(host.ok().map(|host| (HOST, host)));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(SOFTWARE));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.map(str::to_owned);
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| PostError::Answer(self.name()))?.to_bytes();
        Ok(Answer { status, kind, body })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::Url;

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for good in [
            "https://siem.example",
            "https://[2001:db8::1]:8443/a/b",
            "http://127.0.0.1:9/x",
            "http://[::1]/",
        ] {
            assert!(Url::parse(good).is_some(), "{good}");
        }
        for bad in [
            "http://siem.example/x",
            "http://127.0.0.1.example/x",
            "https://user:secret@siem.example/x",
            "https://siem.example/x?token=secret",
            "ftp://127.0.0.1/x",
            "https:///x",
            "/x",
            "",
        ] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
        let url = Url::parse("https://w.example/log").unwrap().below("add-checkpoint");
        assert_eq!(url.to_string(), "https://w.example:443/log/add-checkpoint");
    }
}
