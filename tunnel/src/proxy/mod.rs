//! Ways out through a proxy: which one is configured, and a connection through it.
//!
//! `choice` reads what was configured, `connect_http` and `socks5` speak to the proxy. Its law: a
//! proxy's answer is bounded and read to its last byte and no further; a password is sent to the
//! proxy it was configured for and shown nowhere.

mod choice;
mod connect_http;
mod socks5;

pub use choice::{BadProxy, Proxies};

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// One address's TCP handshake. Three lost SYNs cost 7 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// The proxy's answers: it connects to the relay in between.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What to do about a proxy that does not take us.
pub(crate) const LOGIN_REMEDY: &str =
    "put them in the proxy's address: http://USER:PASSWORD@HOST:PORT";

/// What to do about a proxy that does not let us through.
pub(crate) const REMEDY: &str =
    "check HTTPS_PROXY and what the proxy lets through; NO_PROXY goes around it";

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP CONNECT (RFC 9110 §9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928); names are resolved by the proxy.
    Socks5,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    protocol: Protocol,
    host: String,
    port: u16,
    login: Option<ProxyLogin>,
}

/// A user and a password for a proxy.
#[derive(Clone, PartialEq, Eq)]
struct ProxyLogin {
    user: String,
    password: Zeroizing<String>,
}

impl fmt::Display for Proxy {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self}, {} login)", if self.login.is_some() { "with" } else { "no" })
    }
}

/// No connection through the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its name has no address.
    #[error("cannot find the proxy")]
    NotFound(#[source] io::Error),
    /// It cannot be connected to.
    #[error("cannot connect to the proxy")]
    Unreachable(#[source] io::Error),
    /// It did not answer in time.
    #[error("the proxy did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// It wants a user and password, or others.
    #[error("the proxy wants a user and a password{}", if *.0 { ", and not these" } else { "" })]
    Login(bool),
    /// It will not connect to the relay.
    #[error("the proxy refused: {0}")]
    Refused(String),
    /// It does not speak the configured protocol.
    #[error("it does not answer as a proxy: {0}")]
    Protocol(&'static str),
    /// The connection broke.
    #[error("the connection to the proxy broke")]
    Broken(#[source] io::Error),
}

impl From<io::Error> for ProxyError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Protocol("it closed the connection")
        } else {
            Self::Broken(error)
        }
    }
}

impl Proxy {
    /// Connects to `host` and `port` through it. What comes next on the connection is theirs.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let mut tcp = self.reach().await?;
        let login = self.login.as_ref();
        let asked = async {
            match self.protocol {
                Protocol::Http => connect_http::ask(&mut tcp, host, port, login).await,
                Protocol::Socks5 => socks5::ask(&mut tcp, host, port, login).await,
            }
        };
        timeout(ANSWER_WITHIN, asked).await.map_err(|_| ProxyError::Silent)??;
        Ok(tcp)
    }

    async fn reach(&self) -> Result<TcpStream, ProxyError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in found.map_err(ProxyError::NotFound)? {
            match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(ProxyError::Unreachable(last))
    }
}
