//! One try to reach the relay, and what came of it.

use std::fmt;
use std::io;
use std::time::Duration;

use belay_proto::error_line::one_line;

use crate::carrier::quic::QuicError;
use crate::carrier::websocket::WebSocketError;
use crate::carrier::{Carrier, CarrierError};
use crate::proxy::ProxyError;

/// A carrier's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// QUIC over UDP.
    Quic,
    /// WebSocket over TLS over TCP.
    WebSocket,
}

impl Kind {
    /// Which one this is.
    pub const fn of(carrier: &Carrier) -> Self {
        if carrier.is_fallback() { Self::WebSocket } else { Self::Quic }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        })
    }
}

/// A try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Over which carrier.
    pub kind: Kind,
    /// Where to: an address, or a proxy's.
    pub to: String,
    /// From its begin to its end.
    pub took: Duration,
    /// How it ended.
    pub how: How,
}

impl Attempt {
    /// One whose carrier ended right after it was up.
    pub(crate) fn ended(kind: Kind, to: String, took: Duration, end: &CarrierError) -> Self {
        Self { kind, to, took, how: How::Failed(of_carrier(end), one_line(end)) }
    }

    /// Of what kind its failure was.
    pub const fn trouble(&self) -> Option<Trouble> {
        match &self.how {
            How::Failed(trouble, _) => Some(*trouble),
            How::Won | How::Overtaken => None,
        }
    }
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It is the carrier now.
    Won,
    /// Another was there first.
    Overtaken,
    /// It failed: of what kind, and one line.
    Failed(Trouble, String),
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The name has no address.
    NotFound,
    /// Nothing listens there.
    ConnectionRefused,
    /// Nothing answered.
    Silent,
    /// This machine has no way there.
    NoRoute,
    /// Who answers does not show our relay's certificate.
    NotTheRelay,
    /// The relay does not accept ours.
    NotAccepted,
    /// The proxy wants a user and password, or others.
    ProxyLogin,
    /// Anything else between us and the proxy.
    Proxy,
    /// HTTP was spoken, but the relay's upgrade refused.
    Upgrade,
    /// The relay is there and takes nobody now.
    Busy,
    /// Anything else.
    Other,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, to, took, how } = self;
        let ms = took.as_millis();
        match how {
            How::Won => write!(f, "{kind} to {to}: up after {ms} ms"),
            How::Overtaken => write!(f, "{kind} to {to}: not finished after {ms} ms"),
            How::Failed(_, why) => write!(f, "{kind} to {to}: {why} after {ms} ms"),
        }
    }
}

/// A failure, told apart.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Quic(#[from] QuicError),
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("no TCP connection")]
    Tcp(#[source] io::Error),
    #[error("no answer")]
    Silent,
}

impl Failure {
    pub(super) fn told(&self) -> How {
        How::Failed(self.trouble(), one_line(self))
    }

    fn trouble(&self) -> Trouble {
        match self {
            Self::Quic(QuicError::Handshake(_, error))
            | Self::WebSocket(WebSocketError::Ended(error)) => of_carrier(error),
            Self::Quic(QuicError::Bind { .. } | QuicError::Dial(..)) => Trouble::NoRoute,
            Self::Quic(QuicError::Tls(_) | QuicError::Name(_))
            | Self::WebSocket(WebSocketError::Name(_)) => Trouble::Other,
            Self::WebSocket(WebSocketError::Tls(error)) => {
                if matches!(error, rustls::Error::InvalidCertificate(_)) {
                    Trouble::NotTheRelay
                } else {
                    Trouble::Other
                }
            }
            Self::WebSocket(WebSocketError::Status(503)) => Trouble::Busy,
            Self::WebSocket(WebSocketError::Status(_) | WebSocketError::Answer(_)) => {
                Trouble::Upgrade
            }
            Self::Proxy(ProxyError::Login(_)) => Trouble::ProxyLogin,
            Self::Proxy(
                ProxyError::NotFound(_)
                | ProxyError::Unreachable(_)
                | ProxyError::Silent
                | ProxyError::Refused(_)
                | ProxyError::Protocol(_)
                | ProxyError::Broken(_),
            ) => Trouble::Proxy,
            Self::Tcp(error) => of_io(error),
            Self::Silent => Trouble::Silent,
        }
    }
}

/// In QUIC our own verdict on the relay and the relay's on us are the same numbers (RFC 9001 §4.8):
/// ours has the local side's text.
fn of_carrier(error: &CarrierError) -> Trouble {
    if error.is_timeout() {
        Trouble::Silent
    } else if error.judged_here() {
        Trouble::NotTheRelay
    } else if error.refuses_certificate() {
        Trouble::NotAccepted
    } else if error.turned_away() {
        Trouble::Busy
    } else {
        Trouble::Other
    }
}

fn of_io(error: &io::Error) -> Trouble {
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    if is(&[io::ErrorKind::ConnectionRefused]) {
        Trouble::ConnectionRefused
    } else if is(&[io::ErrorKind::TimedOut]) {
        Trouble::Silent
    } else if is(&[
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::AddrNotAvailable,
        // A firewall of this machine's own.
        io::ErrorKind::PermissionDenied,
    ]) {
        Trouble::NoRoute
    } else {
        Trouble::Other
    }
}
