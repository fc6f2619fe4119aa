//! Which carrier: QUIC and WebSocket raced, and QUIC again while the other is in use.
//!
//! `race` dials, `attempt` is what came of each try, `diagnosis` makes one line of all of them,
//! `upgrade` goes on looking for QUIC, `history` remembers how it went. Its law: the first finished handshake wins and all others
//! are dropped; no failure is forgotten, and each names its way.

mod attempt;
mod diagnosis;
mod history;
mod race;
mod upgrade;

pub use attempt::{Attempt, How, Kind, Trouble};
pub use diagnosis::{Unreached, remark};
pub use history::{History, SOON};
pub use race::dial;
pub use upgrade::quic_again;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::Carrier;
use super::quic::Role;
use crate::address::RelayAddress;
use crate::proxy::{BadProxy, Proxies};

/// The environment variable that forces a carrier: `quic`, `websocket`, or nothing for both.
pub const CARRIER_VARIABLE: &str = "BELAY_CARRIER";

/// The environment variable with the seconds between two looks for QUIC while the fallback is in
/// use.
pub const LOOK_VARIABLE: &str = "BELAY_QUIC_SECONDS";

/// Between two looks for QUIC: a few packets a minute, and a way that is back is used within one.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Which carriers may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that works; QUIC has a head start.
    #[default]
    Any,
    /// Only this one.
    Only(Kind),
}

/// A setting of the network cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] BadProxy),
    /// The carrier.
    #[error("BELAY_CARRIER is \"{}\"; it must be quic, websocket or not set",
        belay_proto::error_line::printable(.0))]
    Carrier(String),
    /// The seconds between two looks.
    #[error("BELAY_QUIC_SECONDS is \"{}\"; it must be a number of seconds, 1 to 3600, or not set",
        belay_proto::error_line::printable(.0))]
    Look(String),
}

fn look_every(word: &str) -> Result<Duration, BadSetting> {
    match word.trim() {
        "" => Ok(LOOK_EVERY),
        word => match word.parse() {
            Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
            Ok(_) | Err(_) => Err(BadSetting::Look(word.to_owned())),
        },
    }
}

impl Choice {
    /// Of a word; an empty one is no choice.
    ///
    /// # Errors
    /// [`BadSetting::Carrier`].
    pub fn of(word: &str) -> Result<Self, BadSetting> {
        match word.trim() {
            "" => Ok(Self::Any),
            "quic" => Ok(Self::Only(Kind::Quic)),
            "websocket" => Ok(Self::Only(Kind::WebSocket)),
            other => Err(BadSetting::Carrier(other.to_owned())),
        }
    }

    pub(crate) const fn allows(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Any, _)
            | (Self::Only(Kind::Quic), Kind::Quic)
            | (Self::Only(Kind::WebSocket), Kind::WebSocket) => true,
            (Self::Only(Kind::Quic), Kind::WebSocket)
            | (Self::Only(Kind::WebSocket), Kind::Quic) => false,
        }
    }
}

/// Where to dial, as whom, and which ways.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The relay: UDP for QUIC, TCP for WebSocket, at the same port.
    pub relay: RelayAddress,
    /// What proves the relay, and us to it.
    pub tls: ClientConfig,
    /// Who dials.
    pub role: Role,
    /// Which carriers.
    pub choice: Choice,
    /// The proxy of the fallback. QUIC always goes direct.
    pub proxies: Proxies,
    /// What was seen of both: a fallback that worked last is not kept waiting, a QUIC that is
    /// doubted is.
    pub history: Arc<History>,
    /// Between two looks for QUIC while the fallback is in use.
    pub look_every: Duration,
}

impl Wanted {
    /// Both carriers, and the proxy, choice and period of the environment.
    ///
    /// # Errors
    /// [`BadSetting`].
    pub fn from_environment(
        relay: RelayAddress,
        tls: ClientConfig,
        role: Role,
        history: Arc<History>,
    ) -> Result<Self, BadSetting> {
        Self::from_variables(relay, tls, role, history, |name| std::env::var(name).ok())
    }

    /// The same with what another environment says.
    ///
    /// # Errors
    /// [`BadSetting`].
    pub fn from_variables(
        relay: RelayAddress,
        tls: ClientConfig,
        role: Role,
        history: Arc<History>,
        value: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BadSetting> {
        let choice = Choice::of(&value(CARRIER_VARIABLE).unwrap_or_default())?;
        let look_every = look_every(&value(LOOK_VARIABLE).unwrap_or_default())?;
        let proxies = Proxies::from_variables(value)?;
        Ok(Self { relay, tls, role, choice, proxies, history, look_every })
    }
}

/// A carrier, and what was tried on the way to it.
#[derive(Debug)]
pub struct Dialled {
    /// The winner.
    pub carrier: Carrier,
    /// Which it is.
    pub kind: Kind,
    /// Every attempt, in the order of their ends; those the winner overtook come last.
    pub attempts: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_period_is_a_number_of_seconds_within_an_hour() {
        assert_eq!(look_every(""), Ok(LOOK_EVERY));
        assert_eq!(look_every(" 5 "), Ok(Duration::from_secs(5)));
        for bad in ["0", "3601", "-1", "1.5", "soon", "\n1\u{1b}[2J"] {
            assert!(!look_every(bad).unwrap_err().to_string().chars().any(char::is_control));
        }
    }
}
