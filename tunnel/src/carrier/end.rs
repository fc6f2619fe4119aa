//! Why a carrier ended, whichever it was.

use quinn::VarInt;

use super::mux::End;
use super::stream::ResetCode;

/// A carrier ended.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct CarrierError(Ended);

#[derive(Debug, Clone, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Quic(quinn::ConnectionError),
    #[error("{0}")]
    Socket(End),
}

impl From<quinn::ConnectionError> for CarrierError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self(Ended::Quic(error))
    }
}

impl From<End> for CarrierError {
    fn from(end: End) -> Self {
        Self(Ended::Socket(end))
    }
}

impl CarrierError {
    /// Whether silence ended it, not a word of either side.
    pub const fn is_timeout(&self) -> bool {
        matches!(self.0, Ended::Quic(quinn::ConnectionError::TimedOut) | Ended::Socket(End::Silent))
    }

    /// Whether the peer's side ended it: with a word of its own, or by having forgotten it.
    pub const fn closed_by_peer(&self) -> bool {
        matches!(
            self.0,
            Ended::Quic(
                quinn::ConnectionError::ApplicationClosed(_) | quinn::ConnectionError::Reset
            ) | Ended::Socket(End::Peer(..) | End::Gone)
        )
    }

    /// What the peer said when it ended it: our code and its line.
    pub fn peer_said(&self) -> Option<(ResetCode, String)> {
        let printable = belay_proto::error_line::printable;
        match &self.0 {
            Ended::Quic(quinn::ConnectionError::ApplicationClosed(close)) => Some((
                reset_code(close.error_code),
                printable(&String::from_utf8_lossy(&close.reason)),
            )),
            Ended::Socket(End::Peer(code, reason)) => Some((*code, printable(reason))),
            Ended::Quic(_) | Ended::Socket(_) => None,
        }
    }

    /// Whether the peer refused our certificate. In TLS 1.3 it judges it after our side of the
    /// handshake is done (RFC 8446 §4.4.2.4), so this can end a carrier that already seemed open.
    pub fn refuses_certificate(&self) -> bool {
        // RFC 8446 §6.2: bad, revoked, expired, unknown, unknown CA, decrypt error, required.
        self.alert().is_some_and(|alert| [42, 44, 45, 46, 48, 51, 116].contains(&alert))
    }

    /// Whether this end refused the peer's certificate, in QUIC's handshake.
    pub(super) fn judged_here(&self) -> bool {
        matches!(&self.0, Ended::Quic(quinn::ConnectionError::TransportError(_)))
            && self.refuses_certificate()
    }

    /// Whether a relay that has no place left turned us away (RFC 9000 §20.1, CONNECTION_REFUSED).
    pub(super) fn turned_away(&self) -> bool {
        const CONNECTION_REFUSED: u64 = 2;
        match &self.0 {
            Ended::Quic(quinn::ConnectionError::ConnectionClosed(close)) => {
                u64::from(close.error_code) == CONNECTION_REFUSED
            }
            Ended::Quic(_) | Ended::Socket(_) => false,
        }
    }

    /// The TLS alert (RFC 8446 §6) the peer ended the handshake with, if it did.
    pub fn alert(&self) -> Option<u8> {
        match &self.0 {
            Ended::Quic(error) => quic_alert(error),
            Ended::Socket(End::Alert(alert)) => Some(*alert),
            Ended::Socket(_) => None,
        }
    }
}

fn quic_alert(error: &quinn::ConnectionError) -> Option<u8> {
    let code = match error {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::TimedOut
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted => return None,
    };
    // RFC 9001 §4.8: an alert travels as CRYPTO_ERROR, 0x0100 and the alert's number.
    code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

pub(super) fn reset_code(code: VarInt) -> ResetCode {
    ResetCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}
